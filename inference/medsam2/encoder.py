"""Hiera's way through a picture, without moving its tokens between windows and picture in every block."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModelOutput

Tokens: TypeAlias = torch.Tensor
"""Shape ``(windows, side, side, channels)``; a whole picture is one window."""


def economise_encoder(network: Any) -> None:
    """Replace the forward pass of the backbone, and join its finest levels' two projections to one.

    Call it while the network is in float32: the joined weights are then rounded once.
    """
    backbone, neck, decoder = network.vision_encoder.backbone, network.vision_encoder.neck, network.mask_decoder
    backbone.forward = partial(_encoded, backbone)
    levels = len(neck.convs)
    for level, name in ((0, "conv_s0"), (1, "conv_s1")):
        # Nothing lies between them: the neck projects to 256 channels, and the mask decoder these to 32 or 64.
        place = levels - 1 - level
        if level not in neck.fpn_top_down_levels:
            neck.convs[place] = _joined(neck.convs[place], getattr(decoder, name))
            setattr(decoder, name, torch.nn.Identity())


def _joined(first: Any, second: Any) -> torch.nn.Conv2d:
    """Return one projection in place of two."""
    result = torch.nn.Conv2d(first.in_channels, second.out_channels, kernel_size=1).requires_grad_(False)
    outer = second.weight[:, :, 0, 0].double()
    result.weight.copy_((outer @ first.weight[:, :, 0, 0].double())[:, :, None, None])
    result.bias.copy_(outer @ first.bias.double() + second.bias.double())
    return result


def _encoded(backbone: Any, pixel_values: torch.Tensor, **_: object) -> Any:
    """Stand in for ``Sam2HieraDetModel.forward``.

    Layers between the attentions work on each token by itself, in whatever order: tokens stay in their windows as
    long as the next block has windows of the same tokens, which pooling does not change.
    """
    tokens = backbone.patch_embed(pixel_values)
    height, width = tokens.shape[1:3]
    tokens = tokens + backbone._get_pos_embed((height, width))
    levels = []
    for number, block in enumerate(backbone.blocks):
        whole = height
        fits = bool(block.window_size) and height % block.window_size == 0
        side = block.window_size if fits else whole
        if tokens.shape[1] != side:
            tokens = in_windows(as_picture(tokens, whole), side)
        tokens = _through(block, tokens, padded=0 if fits else block.window_size)
        if block.query_stride:
            height //= block.query_stride[0]
        if number in backbone.stage_ends:
            levels.append(as_picture(tokens, height))
    return Sam2HieraDetModelOutput(last_hidden_state=levels[-1], intermediate_hidden_states=tuple(levels))


def _through(block: Any, tokens: Tokens, *, padded: int) -> Tokens:
    """Stand in for ``Sam2MultiScaleBlock.forward``."""
    normed = block.layer_norm1(tokens)
    if block.dim != block.dim_out:
        tokens = pooled(block.proj(normed), block.query_stride)
    tokens = tokens + _attended(block.attn, normed, padded)
    return tokens + block.mlp(block.layer_norm2(tokens))


def _attended(attention: Any, tokens: Tokens, padded: int) -> Tokens:
    """Stand in for ``Sam2MultiScaleAttention.forward``, which computes weights that it does not use.

    Parameters
    ----------
    padded
        Side of the windows where they do not fill the picture; 0: ``tokens`` are in their windows.
    """
    projected = attention.qkv(tokens)
    height, width = tokens.shape[1:3]
    if padded:
        projected = in_windows(_with_margin(projected, attention.qkv.bias, padded), padded)
    windows, heads = projected.shape[0], attention.num_attention_heads
    query, key, value = projected.chunk(3, dim=-1)
    if attention.query_stride:
        query = pooled(query, attention.query_stride)
        height, width = (size // stride for size, stride in zip((height, width), attention.query_stride, strict=True))
    found = F.scaled_dot_product_attention(
        *(part.reshape(windows, -1, heads, part.shape[-1] // heads).transpose(1, 2) for part in (query, key, value)),
        scale=attention.scale,
    )
    found = found.transpose(1, 2).reshape(windows, query.shape[1], query.shape[2], -1)
    if padded:
        found = as_picture(found, -(-height // query.shape[1]) * query.shape[1])[:, :height, :width]
    # A linear layer is many times slower on tokens that do not lie one after another.
    result: Tokens = attention.proj(found.contiguous())
    return result


def _with_margin(projected: Tokens, bias: torch.Tensor, side: int) -> Tokens:
    """Return a picture that is filled up to whole windows; beyond its edge tokens are 0 before their projection."""
    height, width = (-(-size // side) * side for size in projected.shape[1:3])
    result = bias.expand(1, height, width, -1).clone()
    result[:, : projected.shape[1], : projected.shape[2]] = projected
    return result


def pooled(tokens: Tokens, stride: tuple[int, int]) -> Tokens:
    """Return the largest value of each 2 x 2 tokens, which lie in one window."""
    if tuple(stride) != (2, 2):
        raise ValueError("Hiera pools by 2 x 2")
    rows = torch.maximum(tokens[:, ::2], tokens[:, 1::2])
    return torch.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def in_windows(picture: Tokens, side: int) -> Tokens:
    """Return the windows of a picture, row by row."""
    _, height, width, channels = picture.shape
    split = picture.reshape(height // side, side, width // side, side, channels)
    return split.transpose(1, 2).reshape(-1, side, side, channels)


def as_picture(windows: Tokens, height: int) -> Tokens:
    """Return the picture of windows; it is square."""
    count, side, _, channels = windows.shape
    rows = height // side
    split = windows.reshape(rows, count // rows, side, side, channels)
    return split.transpose(1, 2).reshape(1, height, -1, channels)
