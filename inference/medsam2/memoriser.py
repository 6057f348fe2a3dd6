"""What an object leaves on a slice: transformers' ``Sam2VideoMemoryEncoder``, its tokens in memory one by one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from inference.medsam2.layers import Linear, Norm, Place, Tokens, taken, weights


class Memoriser:
    """The encoder of memories, with the weights of a network that is on the CPU in float32."""

    def __init__(self, network: Any, place: Place) -> None:
        given, exact = network.memory_encoder, place.exact
        first, *others = given.mask_downsampler.layers
        self._place, self._size, self._side = place, network.image_size, network.backbone_feature_sizes[-1][0]
        self._scale = network.config.sigmoid_scale_for_mem_enc
        self._bias = network.config.sigmoid_bias_for_mem_enc
        self._first = _Centred(first, exact)
        self._others = [_Smaller(layer, place) for layer in others]
        self._mask, self._picture = (
            _pointwise(place, given.mask_downsampler.final_conv),
            _pointwise(place, given.feature_projection),
        )
        self._blocks = [_Block(layer, place, self._side) for layer in given.memory_fuser.layers]
        self._last = _pointwise(place, given.projection)
        self._absent = place.put(network.occlusion_spatial_embedding_parameter[0])

    def look(self, features: Tokens) -> Tokens:
        """Return what all objects share of a slice."""
        return self._picture(features)

    def __call__(self, seen: Tokens, logits: torch.Tensor, *, there: bool, drawn: bool = False) -> Tokens:
        """Return the memory of a slice on which an object was found or, with hard edges, drawn."""
        enlarged = F.interpolate(logits[None, None], (self._size, self._size), mode="bilinear", align_corners=False)
        mask = (enlarged > 0).float() if drawn else enlarged.sigmoid_()
        picture = self._first(mask.mul_(self._scale).add_(self._bias))
        picture = picture.to(self._place.dtype, memory_format=torch.channels_last)
        for layer in self._others:
            picture = layer(picture)
        tokens = self._mask.onto(seen, picture.permute(0, 2, 3, 1).flatten(0, 2))
        for block in self._blocks:
            tokens = block(tokens)
        memory = self._last(tokens)
        if not there:
            memory = memory + self._absent
        result: Tokens = memory.to(torch.bfloat16)  # as the original keeps memories
        return result


class _Centred:
    """The first convolution with its norm over four channels, of which each is a plane.

    Their mean is 0 as soon as the weights' is.
    """

    def __init__(self, given: Any, place: Place) -> None:
        weight, bias = weights(given.conv)
        self._weight, self._bias = place.put(weight - weight.mean(0)), place.put(bias - bias.mean())
        self._stride, self._padding = given.conv.stride, given.conv.padding
        self._factor, self._offset = (
            place.put(part[:, None, None]) for part in (given.layer_norm.weight, given.layer_norm.bias)
        )
        self._eps = given.layer_norm.eps

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        found = F.conv2d(picture, self._weight, self._bias, self._stride, self._padding)
        spread = found.square().mean(1, keepdim=True).add_(self._eps).rsqrt_()
        result: torch.Tensor = F.gelu(found.mul_(spread).mul_(self._factor).add_(self._offset))
        return result


class _Smaller:
    """A convolution that halves both sides, its norm and its GELU."""

    def __init__(self, given: Any, place: Place) -> None:
        weight, bias = weights(given.conv)
        self._weight = place.put(weight).to(memory_format=torch.channels_last)
        self._bias = place.put(bias)
        self._stride, self._padding = given.conv.stride, given.conv.padding
        self._norm = Norm(place, given.layer_norm)

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        found = F.conv2d(picture, self._weight, self._bias, self._stride, self._padding)
        result: torch.Tensor = F.gelu(self._norm(found.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return result


class _Block:
    """A block of the fuser; its scale is in its last layer."""

    def __init__(self, given: Any, place: Place, side: int) -> None:
        conv, (weight, bias), scale = given.depthwise_conv, weights(given.pointwise_conv2), given.scale.double()
        self._side = side
        self._weight = place.put(conv.weight).to(memory_format=torch.channels_last)
        self._bias = place.put(conv.bias)
        self._padding = conv.padding
        self._norm = Norm(place, given.layer_norm)
        self._wide = taken(place, given.pointwise_conv1)
        self._back = Linear(place, weight * scale[:, None], bias * scale)

    def __call__(self, tokens: Tokens) -> Tokens:
        picture = tokens.view(1, self._side, self._side, -1).permute(0, 3, 1, 2)
        found = F.conv2d(picture, self._weight, self._bias, padding=self._padding, groups=len(self._weight))
        return self._back.onto(tokens, self._wide.gelu(self._norm(found.permute(0, 2, 3, 1).flatten(0, 2))))


def _pointwise(place: Place, conv: Any) -> Linear:
    weight, bias = weights(conv)
    return Linear(place, weight[:, :, 0, 0], bias)
