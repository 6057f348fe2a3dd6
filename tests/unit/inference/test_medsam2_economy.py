"""What is done differently from transformers gives the same numbers."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest
from extras import require_models

require_models()

import torch
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel

from inference.medsam2 import layers
from inference.medsam2.encoder import as_picture, in_windows, pooled
from inference.medsam2.network import Network, configuration, placed

CPU = torch.device("cpu")
SIZE = 128


def network_like_the_original() -> Network:
    """A backbone of four stages; at 128 pixels windows of 8 and 4 fill the picture, and those of 14 and 7 do not."""
    return deepcopy(_made())


@cache
def _made() -> Network:
    torch.manual_seed(3)
    given = configuration(SIZE, blocks_per_stage=[1, 2, 3, 2], global_attention_blocks=[4])
    return Sam2VideoModel(given).eval().requires_grad_(False)


def features(network: Network, picture: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [level.float() for level in network.get_image_features(picture, return_dict=True).fpn_hidden_states]


def test_the_encoder_gives_what_transformers_gives() -> None:
    picture = torch.randn(1, 3, SIZE, SIZE)
    expected = features(network_like_the_original(), picture)
    found = features(placed(network_like_the_original(), CPU, torch.float32), picture)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_tokens_come_back_from_their_windows() -> None:
    picture = torch.arange(8 * 8 * 2).reshape(1, 8, 8, 2)
    windows = in_windows(picture, 4)
    assert windows.shape == (4, 4, 4, 2)
    assert torch.equal(windows[1], picture[0, :4, 4:])
    assert torch.equal(as_picture(windows, 8), picture)
    assert torch.equal(as_picture(pooled(windows, (2, 2)), 4), pooled(picture, (2, 2)))


def test_positions_in_bfloat16_are_those_of_float32_rounded_once() -> None:
    exact = placed(network_like_the_original(), CPU, torch.float32)
    reduced = placed(network_like_the_original(), CPU, torch.bfloat16)
    corner = torch.tensor([[[[37.25, 101.75]]]])
    positions: list[list[torch.Tensor]] = []
    with torch.inference_mode():
        for network in (exact, reduced):
            prompted = network.prompt_encoder.shared_embedding(corner, (SIZE, SIZE))
            remembered = network.memory_encoder.position_encoding((1, 64, 8, 8), CPU, network.dtype)
            positions.append([network.get_image_wide_positional_embeddings(), prompted, remembered])
    for one, other in zip(*positions, strict=True):
        assert torch.equal(one.to(torch.bfloat16), other)


def test_scores_that_choose_between_masks_are_not_rounded_to_bfloat16() -> None:
    reduced = placed(network_like_the_original(), CPU, torch.bfloat16)
    tokens = torch.randn(64, 256).bfloat16()
    scores = reduced.mask_decoder.iou_prediction_head(tokens)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_without_onednns_operation_the_network_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = torch.randn(1, 3, SIZE, SIZE).bfloat16()
    found = features(placed(network_like_the_original(), CPU, torch.bfloat16), picture)
    monkeypatch.setattr(layers, "fused_linear", missing)
    expected = features(placed(network_like_the_original(), CPU, torch.bfloat16), picture)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def missing(*_: object) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
