"""Spares what transformers computes again for every slice, and keeps positions exact where it rounds them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch

from inference.medsam2.encoder import economise_encoder
from inference.medsam2.following import Following
from inference.medsam2.layers import fused_linear, place_of

Compute = Callable[..., Any]


def economised(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Return ``network``, which is on the CPU in float32, where it is to compute, made quicker.

    Results differ from transformers' by rounding only.
    """
    economise_encoder(network)
    place = place_of(device, dtype)
    following = Following(network, place)
    network = _placed(network, device, dtype)
    _compute_once(network)
    if place.fused:
        _fuse_biases(network, dtype)
    network.following = following
    return network


# -- What stays in float32 -------------------------------------------------------------------------------------------

_PLACES = ("shared_image_embedding", "prompt_encoder.shared_embedding")
"""In bfloat16 a position in the picture would be up to a pixel off."""
_SCORES = ("mask_decoder.iou_prediction_head", "mask_decoder.pred_obj_score_head")
"""They choose between masks: near 1 bfloat16 has steps of 0.004, and of equal scores the first would win."""


def _placed(network: Any, device: torch.device, dtype: torch.dtype) -> Any:
    exact = {name: deepcopy(network.get_submodule(name)).to(device) for name in (*_PLACES, *_SCORES)}
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


# -- Linear layers ---------------------------------------------------------------------------------------------------


def _fuse_biases(network: Any, dtype: torch.dtype) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Linear) and module.weight.dtype == dtype:
            module.forward = partial(fused_linear, module.weight, module.bias)
    for block in network.vision_encoder.backbone.blocks:
        # Hiera's only; its activation is the exact GELU
        block.mlp.forward = partial(_feed_forward, block.mlp)


def _feed_forward(mlp: Any, tokens: torch.Tensor) -> torch.Tensor:
    wide = fused_linear(mlp.proj_in.weight, mlp.proj_in.bias, tokens, "gelu", "none")
    return fused_linear(mlp.proj_out.weight, mlp.proj_out.bias, wide)
