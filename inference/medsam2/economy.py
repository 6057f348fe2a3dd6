"""Spares what transformers computes again for every slice: constants, and passes over the keys of the memories."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from transformers.activations import GELUActivation
from transformers.models.sam2.modeling_sam2 import Sam2FeedForward


def economise(network: Any) -> None:
    """Make ``network`` quicker; the results differ by rounding only.

    Call it once it is on its device and in its precision.
    """
    backbone, neck = network.vision_encoder.backbone, network.vision_encoder.neck
    backbone._get_pos_embed = _Constant(backbone._get_pos_embed)
    for owner in (neck, network.memory_encoder):
        # In float32 also where the network computes in bfloat16, whose sines of large angles are far off.
        owner.position_encoding.forward = _Sines(owner.position_encoding.forward)
    if network.no_object_pointer.dtype == torch.bfloat16:
        _use_fused_linear(network)
    network.memory_attention.rotary_emb.forward = _Turn(network.memory_attention.rotary_emb.forward)
    for layer in network.memory_attention.layers:
        for attention in (layer.self_attn, layer.cross_attn_image):
            attention.forward = partial(_attend, attention)


def _use_fused_linear(network: Any) -> None:
    """Let oneDNN add the bias: PyTorch's own linear layer in bfloat16 first writes it to every row of the result."""
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = partial(_linear, module.weight, module.bias)
        elif isinstance(module, Sam2FeedForward) and isinstance(module.activation, GELUActivation):
            module.forward = partial(_feed_forward, module)


def _linear(weight, bias, tokens):
    return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")

def _feed_forward(module, tokens):
    wide = torch.ops.mkldnn._linear_pointwise(tokens, module.proj_in.weight, module.proj_in.bias, "gelu", [], "none")
    return module.proj_out(wide)


class _Constant:
    """A function of a size, computed once for each."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def __call__(self, size: Any) -> torch.Tensor:
        key = tuple(size)
        if key not in self._known:
            self._known[key] = self._compute(size)
        return self._known[key]


class _Turn:
    """Rotary position encoding as one complex factor for each token and pair of channels, computed once."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute
        self._known: torch.Tensor | None = None

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if self._known is None:
            cos, sin = (part[0, :, ::2] for part in self._compute(tokens, positions))
            self._known = torch.complex(cos, sin)
        return self._known


class _Sines:
    """A position encoding, computed once for each shape and kind of number."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute
        self._known: dict[tuple[object, ...], torch.Tensor] = {}

    def __call__(self, shape: Any, device: Any, dtype: torch.dtype) -> torch.Tensor:
        key = (tuple(shape), str(device), dtype)
        if key not in self._known:
            self._known[key] = self._compute(shape, device, torch.float32).to(dtype)
        return self._known[key]


def _attend(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position_embeddings: torch.Tensor,
    num_k_exclude_rope: int = 0,
) -> tuple[torch.Tensor, None]:
    """Stand in for ``Sam2VideoRoPEAttention.forward`` with one head: the turn is one complex product, in place."""
    query, key, value = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
    _turned(query, position_embeddings, query.shape[-2])
    _turned(key, position_embeddings, key.shape[-2] - num_k_exclude_rope)
    found = F.scaled_dot_product_attention(query, key, value)
    return attention.o_proj(found), None


def _turned(tokens: torch.Tensor, turn: torch.Tensor, count: int) -> None:
    """Turn the first ``count`` tokens, which are one picture or several; shape ``(1, 1, tokens, channels)``."""
    pairs = tokens[0, 0, :count].float().reshape(-1, turn.shape[0], turn.shape[1], 2)
    result = torch.view_as_real(torch.view_as_complex(pairs) * turn)
    tokens[0, 0, :count] = result.reshape(count, -1).to(tokens.dtype)
