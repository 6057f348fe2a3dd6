"""An object is followed by our own algebra as transformers' plain model follows it, random weights and all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
from extras import require_models

require_models()

import torch
import torch.nn.functional as F
from medsam2_golden import CPU, random_network
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from inference.medsam2.bank import Bank, Left
from inference.medsam2.layers import place_of
from inference.medsam2.memory import MemoryAttention, turn_in_place
from inference.medsam2.network import Features, Network, placed
from inference.medsam2.tracker import SlicePrompt, Tracked, track

SLICES, SIZE = 18, 64
BOX = SlicePrompt(points=np.array([[0.2, 0.3], [0.7, 0.6]]), labels=(2, 3))
OTHER = SlicePrompt(points=np.array([[0.3, 0.3], [0.8, 0.7]]), labels=(2, 3))
POINT = SlicePrompt(points=np.array([[0.4, 0.5]]), labels=(1,))


def images() -> torch.Tensor:
    """Slices that change slowly; more than pointers reach."""
    steps = torch.randn(SLICES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    return steps.cumsum(0) / 3


def features(network: Network) -> Features:
    seen = images().to(network.no_object_pointer.dtype)
    return Features(network, lambda k: seen[k], range(SLICES))


def by_transformers(
    network: Network, prompts: Mapping[int, SlicePrompt]
) -> Iterator[tuple[int, torch.Tensor, float]]:
    """Yield what the plain model finds, slice by slice; memories of prompted slices from their small logits."""
    seen = features(network)

    def session(prompted: dict[int, Any]) -> Any:
        made = Sam2VideoInferenceSession(dtype=torch.float32)
        made.processed_frames = dict.fromkeys(range(SLICES))
        made.cache = seen
        made.obj_id_to_idx(1)
        made.output_dict_per_obj[0]["cond_frame_outputs"] = prompted
        return made

    drawn: dict[int, Any] = {}
    for index, prompt in prompts.items():
        given = session({})
        points = torch.from_numpy(prompt.points * SIZE).float()[None, None]
        labels = torch.tensor(prompt.labels, dtype=torch.int32)[None, None]
        given.add_point_inputs(0, index, {"point_coords": points, "point_labels": labels})
        given.obj_with_new_inputs = [1]
        network(given, frame_idx=index, run_mem_encoder=False)
        found = drawn[index] = given.output_dict_per_obj[0]["cond_frame_outputs"][index]
        found["maskmem_features"], found["maskmem_pos_enc"] = network._encode_new_memory(
            current_vision_feats=seen.get_vision_features(index)["vision_feats"][-1],
            pred_masks_high_res=F.interpolate(found["pred_masks"], (SIZE, SIZE), mode="bilinear"),
            object_score_logits=found["object_score_logits"],
            is_mask_from_pts=True,
        )
    for order, reverse in ((range(min(prompts), SLICES), False), (range(min(prompts) - 1, -1, -1), True)):
        given = session(drawn)
        for index in order:
            if index not in drawn:
                network(given, frame_idx=index, reverse=reverse)
            found = drawn.get(index) or given.output_dict_per_obj[0]["non_cond_frame_outputs"][index]
            yield index, found["pred_masks"][0, 0], float(found["object_score_logits"])


def assert_the_same(found: list[Tracked], network: Network, prompts: Mapping[int, SlicePrompt]) -> None:
    with torch.inference_mode():
        expected = list(by_transformers(network, prompts))
    assert [item.slice for item in found] == [index for index, _, _ in expected]
    for item, (_, logits, score) in zip(found, expected, strict=True):
        assert item.score == pytest.approx(score, abs=1e-4)
        torch.testing.assert_close(item.logits, logits, rtol=1e-3, atol=1e-3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a loaded machine take ten times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def pair(there: float = 6.0) -> tuple[Network, Network]:
    """Return transformers' network and ours."""
    plain = random_network(there)
    return plain, placed(deepcopy(plain), CPU.device, CPU.dtype)


@pytest.mark.parametrize(
    ("prompts", "there"),
    [({9: BOX}, 6.0), ({3: BOX, 7: OTHER, 8: POINT}, 6.0), ({0: POINT}, 6.0), ({0: POINT, SLICES - 1: BOX}, -6.0)],
    ids=["both ways", "prompted slices between", "from end to end", "not there"],
)
def test_an_object_is_followed_as_transformers_follows_it(prompts: dict[int, SlicePrompt], there: float) -> None:
    plain, network = pair(there)
    with torch.inference_mode():
        found = list(track(network, features(network), SLICES, [prompts]))
    assert_the_same(found, plain, prompts)


def test_objects_that_share_a_slice_are_followed_as_each_alone() -> None:
    plain, network = pair()
    prompts = [{9: BOX}, {9: OTHER}, {4: POINT}]
    with torch.inference_mode():
        found = list(track(network, features(network), SLICES, prompts))
    for number, given in enumerate(prompts):
        assert_the_same([item for item in found if item.object == number], plain, given)


def test_an_object_that_was_drawn_on_many_slices_is_followed_as_transformers_follows_it() -> None:
    plain, network = pair()
    prompts = {index: (BOX, OTHER, POINT)[index % 3] for index in range(2, 15)}
    with torch.inference_mode():
        found = list(track(network, features(network), SLICES, [prompts]))
    assert_the_same(found, plain, prompts)


def test_what_is_kept_of_an_object_hardly_grows_with_the_slices_it_was_drawn_on() -> None:
    _, network = pair()
    attention: MemoryAttention = network.following._attention
    left = Left(memory=torch.zeros(attention.tokens, attention.channels), pointer=torch.zeros(256))
    few, many = (
        Bank(attention, SLICES, dict.fromkeys(range(count), left), reverse=False)._keys.nbytes for count in (8, 300)
    )
    assert many == few


def test_values_as_wide_as_keys_give_the_same_as_memories() -> None:
    """What PyTorch's own attention needs, on a GPU and in bfloat16, against what float32 on a CPU does."""
    narrow, wide = (placed(random_network(), CPU.device, CPU.dtype) for _ in range(2))
    attention: MemoryAttention = wide.following._attention
    attention._narrow = False
    prompts = [{9: BOX}, dict.fromkeys(range(3, 14), POINT)]
    with torch.inference_mode():
        one, other = (list(track(network, features(network), SLICES, prompts)) for network in (narrow, wide))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.logits, b.logits, rtol=1e-3, atol=1e-3)


def test_what_all_objects_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, network = pair()
    looked: list[int] = []
    look = network.following.look

    def counted(*given: Any) -> Any:
        looked.append(1)
        return look(*given)

    monkeypatch.setattr(network.following, "look", counted)
    with torch.inference_mode():
        list(track(network, features(network), SLICES, [{9: BOX}, {9: OTHER}, {9: POINT}]))
    assert len(looked) == SLICES - 1


def test_angles_and_ages_in_bfloat16_are_those_of_float32_rounded_once() -> None:
    exact, reduced = (
        MemoryAttention(pair()[0], place_of(CPU.device, dtype)) for dtype in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(exact._turn, reduced._turn)
    assert torch.equal(exact.ages.bfloat16(), reduced.ages)


def test_a_turn_in_bfloat16_is_computed_in_float32() -> None:
    tokens, turn = torch.randn(2, 16, 8), torch.polar(torch.ones(16, 4), torch.randn(16, 4) * 50)
    reduced, exact = tokens.bfloat16(), tokens.bfloat16().float()
    for given in (reduced, exact):
        turn_in_place(given, turn)
    assert torch.equal(reduced, exact.bfloat16())
