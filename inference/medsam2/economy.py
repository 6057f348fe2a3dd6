"""Spares what transformers computes again for every slice, and keeps positions exact where it rounds them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from inference.medsam2.encoder import economise_encoder

Compute = Callable[..., Any]


def economised(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return ``network``, which is on the CPU in float32, where it is to compute, made quicker.

    Results differ from transformers' by rounding only.
    """
    economise_encoder(network)
    network = _placed(network, device, dtype)
    _compute_once(network)
    for layer in network.memory_attention.layers:
        for attention in (layer.self_attn, layer.cross_attn_image):
            attention.forward = partial(_attend, attention)
    if fuses_bias(device, dtype):
        _fuse_biases(network, dtype)
    return network


# -- What stays in float32 -------------------------------------------------------------------------------------------

_PLACES = ("shared_image_embedding", "prompt_encoder.shared_embedding")
"""In bfloat16 a position in the picture would be up to a pixel off."""
_ANGLES = ("memory_attention.rotary_emb",)
_SCORES = ("mask_decoder.iou_prediction_head", "mask_decoder.pred_obj_score_head")
"""They choose between masks: near 1 bfloat16 has steps of 0.004, and of equal scores the first would win."""


def _placed(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    exact = {name: deepcopy(network.get_submodule(name)).to(device) for name in (*_PLACES, *_ANGLES, *_SCORES)}
    network = network.to(device, dtype)
    for name, module in exact.items():
        network.set_submodule(name, module)
        if name in _PLACES:
            module.forward = partial(_rounded_after, module.forward, dtype)
        elif name in _SCORES:
            module.forward = partial(_in_float32, module.forward)
    return network


def _rounded_after(encode: Compute, dtype: torch.dtype, *given: Any) -> torch.Tensor:
    result: torch.Tensor = encode(*given).to(dtype)
    return result


def _in_float32(judge: Compute, tokens: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = judge(tokens.float())
    return result


# -- What is computed once -------------------------------------------------------------------------------------------


def _compute_once(network: Any) -> None:
    backbone, neck = network.vision_encoder.backbone, network.vision_encoder.neck
    network.get_image_wide_positional_embeddings = _Once(network.get_image_wide_positional_embeddings)
    backbone._get_pos_embed = _Once(backbone._get_pos_embed, _by_size)
    for owner in (neck, network.memory_encoder):
        owner.position_encoding.forward = _Once(partial(_sines, owner.position_encoding.forward), _by_shape)
    network.memory_attention.rotary_emb.forward = _Once(partial(_turn, network.memory_attention.rotary_emb.forward))


class _Once:
    """A computation that is done once for each of its inputs, told apart by ``key``."""

    def __init__(self, compute: Compute, key: Callable[..., object] = lambda *_: None) -> None:
        self._compute = compute
        self._key = key
        self._known: dict[object, Any] = {}

    def __call__(self, *given: Any) -> Any:
        key = self._key(*given)
        if key not in self._known:
            self._known[key] = self._compute(*given)
        return self._known[key]


def _by_size(size: Any) -> object:
    return tuple(size)


def _by_shape(shape: Any, device: Any, dtype: torch.dtype) -> object:
    return tuple(shape), str(device), dtype


def _sines(compute: Compute, shape: Any, device: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return a position encoding; in float32 also where the network computes in bfloat16, whose sines of large angles
    are far off."""
    result: torch.Tensor = compute(shape, device, torch.float32).to(dtype)
    return result


def _turn(compute: Compute, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the rotary position encoding as one complex factor for each token and pair of channels."""
    cos, sin = (part[0, :, ::2] for part in compute(tokens, positions))
    return torch.complex(cos, sin)


# -- Attention to memories -------------------------------------------------------------------------------------------


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


# -- Linear layers ---------------------------------------------------------------------------------------------------


def fuses_bias(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether oneDNN can add biases itself, by trying.

    In bfloat16 PyTorch's own linear layer writes the bias to every row of the result before it multiplies: a twelfth
    of all CPU time. The operation is the one that ``torch.compile`` uses, and not promised to stay.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return False
    one = torch.ones((1, 1), dtype=dtype)
    try:
        return bool(_linear(one, one[0], one) == 2)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _fuse_biases(network: Any, dtype: torch.dtype) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Linear) and module.weight.dtype == dtype:
            module.forward = partial(_linear, module.weight, module.bias)
    for block in network.vision_encoder.backbone.blocks:
        # Hiera's only; its activation is the exact GELU
        block.mlp.forward = partial(_feed_forward, block.mlp)


def _linear(
    weight: torch.Tensor, bias: torch.Tensor, tokens: torch.Tensor, then: str = "none", how: str = ""
) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, then, [], how)
    return result


def _feed_forward(mlp: Any, tokens: torch.Tensor) -> torch.Tensor:
    wide = _linear(mlp.proj_in.weight, mlp.proj_in.bias, tokens, "gelu", "none")
    return _linear(mlp.proj_out.weight, mlp.proj_out.bias, wide)
