"""Spares what transformers computes again for every slice: constants, and passes over the keys of the memories."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F


def economise(network: Any) -> None:
    """Make ``network`` quicker; the results differ by rounding only.

    Call it once it is on its device and in its precision.
    """
    backbone, neck = network.vision_encoder.backbone, network.vision_encoder.neck
    backbone._get_pos_embed = _Constant(backbone._get_pos_embed)
    for owner in (neck, network.memory_encoder):
        # In float32 also where the network computes in bfloat16, whose sines of large angles are far off.
        owner.position_encoding.forward = _Sines(owner.position_encoding.forward)
    for layer in network.memory_attention.layers:
        for attention in (layer.self_attn, layer.cross_attn_image):
            attention.forward = partial(_attend, attention)


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
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    num_k_exclude_rope: int = 0,
) -> tuple[torch.Tensor, None]:
    """Stand in for ``Sam2VideoRoPEAttention.forward`` with one head: the turn is one complex product, in place."""
    cos, sin = (part[0, :, ::2] for part in position_embeddings)
    turn = torch.complex(cos, sin)
    query, key, value = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
    _turned(query, turn, query.shape[-2])
    _turned(key, turn, key.shape[-2] - num_k_exclude_rope)
    found = F.scaled_dot_product_attention(query, key, value)
    return attention.o_proj(found), None


def _turned(tokens: torch.Tensor, turn: torch.Tensor, count: int) -> None:
    """Turn the first ``count`` tokens, which are one picture or several; shape ``(1, 1, tokens, channels)``."""
    pairs = tokens[0, 0, :count].float().reshape(-1, turn.shape[0], turn.shape[1], 2)
    result = torch.view_as_real(torch.view_as_complex(pairs) * turn)
    tokens[0, 0, :count] = result.reshape(count, -1).to(tokens.dtype)
