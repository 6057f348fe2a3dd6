from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extras import require_models

require_models()

import torch
from chests import volume_of
from medsam2_golden import CPU, counted_encodings, small_network

from domain.codes import Code
from domain.context import StudyContext
from domain.engine import Case, job_id
from domain.errors import EngineFailed, EngineUnavailable, NotApplicable
from domain.findings import Findings
from domain.prompt import Box, LongAxis, ObjectPrompt, Point, Prompt, SliceMask
from domain.volume import Volume
from inference.device import Placement, computing, fallback_of, fitted, placement
from inference.manifest import read_declaration
from inference.medsam2.engine import MedSam2, joined, largest_component
from inference.medsam2.tracker import track, without_small_holes
from inference.medsam2.windowing import Windowed
from inference.registry import ENGINES, Registry

SHAPE = (7, 40, 56)


def ball(centre: tuple[float, float, float] = (3, 20, 28), radius: float = 9.0) -> Volume:
    """Return a ball of soft tissue in air, slices three times as far apart as rows."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    distance = np.linalg.norm((index - centre) * (3, 1, 1), axis=-1)
    noise = np.random.default_rng(3).normal(0, 20, SHAPE)
    return volume_of((np.where(distance < radius, 60, -300) + noise).astype(np.int16), np.diag([3.0, 1, 1, 1]))


def box(k: int, x0: float = 19, y0: float = 11, x1: float = 37, y1: float = 29) -> Box:
    return Box(corners=((k, y0, x0), (k, y1, x1)))


def engine(**settings: object) -> MedSam2:
    made = MedSam2(read_declaration(ENGINES / "medsam2" / "manifest.toml").manifest, settings)
    made.use(small_network(), CPU)
    return made


def found(*objects: ObjectPrompt, volume: Volume | None = None, **options: object) -> Findings:
    return engine().run(Case(volume=volume or ball(), prompt=Prompt(objects=objects), options=options))


def labels(findings: Findings) -> Any:
    assert findings.labels is not None
    return findings.labels


def test_one_object_becomes_one_segment_on_the_grid_with_its_numbers() -> None:
    findings = found(ObjectPrompt(boxes=(box(3),)))
    (segment,) = findings.segments
    assert labels(findings).shape == SHAPE
    voxels = int((labels(findings) == 1).sum())
    assert voxels > 0
    numbers = {item.label: item.value for item in findings.measurements}
    assert segment.label == "Object 1"
    assert numbers["Volume"] == pytest.approx(voxels * 3 / 1000)
    inside = ball().voxels[labels(findings) == 1]
    assert numbers["Mean"] == pytest.approx(float(inside.mean()))
    assert (numbers["Minimum"], numbers["Maximum"]) == (inside.min(), inside.max())


def test_every_slice_is_encoded_once_for_both_directions_and_all_objects() -> None:
    three = [ObjectPrompt(boxes=(box(k),)) for k in (2, 4, 3)]
    with counted_encodings(small_network()) as calls:
        found(*three)
    assert len(calls) == SHAPE[0]


def test_progress_is_told_slice_by_slice_up_to_the_whole() -> None:
    told: list[float] = []
    prompt = Prompt(objects=(ObjectPrompt(boxes=(box(2),)), ObjectPrompt(boxes=(box(4),))))
    engine().run(Case(volume=ball(), prompt=prompt, progress=told.append))
    assert told == sorted(told)
    assert (len(told), told[-1]) == (2 * SHAPE[0], 1.0)


def test_objects_do_not_know_of_each_other() -> None:
    first, second = ObjectPrompt(boxes=(box(2),)), ObjectPrompt(points=(Point(at=(4, 12, 40)),))
    together = labels(found(first, second, largest_component=False))
    alone = labels(found(second, largest_component=False)) == 1
    before = labels(found(first, largest_component=False)) == 1
    np.testing.assert_array_equal(together == 1, before)
    np.testing.assert_array_equal(together == 2, alone & ~before)


def test_voxels_of_two_objects_go_to_the_first_and_the_second_says_so() -> None:
    same = ObjectPrompt(boxes=(box(3),))
    findings = found(same, same)
    assert 2 not in labels(findings)
    said = [item.value for item in findings.evaluations if item.segment == findings.segments[1].key]
    assert f"{int((labels(findings) == 1).sum())} voxels that belong to an earlier object too" in str(said)


def test_another_drawing_on_the_same_series_is_another_finding() -> None:
    keys = {found(ObjectPrompt(boxes=(box(3, x0=x0),))).segments[0].key for x0 in (19, 19, 20)}
    assert len(keys) == 2


def test_a_prompt_may_name_label_and_codes() -> None:
    liver = Code("10200004", "SCT", "Liver")
    anatomy = Code("123037004", "SCT", "Anatomical Structure")
    findings = found(ObjectPrompt(boxes=(box(3),), label="Liver", category=anatomy, type=liver))
    (segment,) = findings.segments
    assert (segment.label, segment.category, segment.type) == ("Liver", anatomy, liver)


def test_points_masks_and_long_axes_are_prompts_too() -> None:
    disc = np.zeros(SHAPE[1:], bool)
    disc[12:28, 20:36] = True
    masked = labels(found(ObjectPrompt(masks=(SliceMask(slice=3, pixels=disc),)), largest_component=False))
    # The mask itself is the answer on its slice, up to the rounding of its border at 64 and 16 pixels.
    assert (np.logical_xor(masked[3] == 1, disc)).mean() < 0.05
    axis = ObjectPrompt(long_axes=(LongAxis(ends=((3, 20, 19), (3, 20, 37))),))
    along = ObjectPrompt(points=tuple(Point(at=(3, 20, x)) for x in (23.5, 28, 32.5)))
    np.testing.assert_array_equal(labels(found(axis)), labels(found(along)))


def test_what_pointed_at_an_object_is_said_with_the_result() -> None:
    disc = np.zeros(SHAPE[1:], bool)
    disc[12:28, 20:36] = True
    seeded = found(ObjectPrompt(masks=(SliceMask(slice=3, pixels=disc),)))
    boxed = found(ObjectPrompt(boxes=(box(1),), points=(Point(at=(1, 20, 28)),)))
    assert "The prompt was a mask, which is the result on its own slice or frame." in said_of(seeded)
    assert "The prompt was a box and points." in said_of(boxed)


def said_of(findings: Findings) -> list[object]:
    return [item.value for item in findings.evaluations]


def test_several_prompted_slices_of_one_object_each_keep_what_their_prompt_gave() -> None:
    both = labels(found(ObjectPrompt(boxes=(box(1), box(5))), largest_component=False))
    for k in (1, 5):
        alone = labels(found(ObjectPrompt(boxes=(box(k),)), largest_component=False))
        np.testing.assert_array_equal(both[k], alone[k])


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (ObjectPrompt(boxes=(box(3), box(3, x0=1))), "two boxes on one slice"),
        (
            ObjectPrompt(boxes=(box(3),), masks=(SliceMask(slice=3, pixels=np.ones(SHAPE[1:], bool)),)),
            "a mask and another prompt on one slice",
        ),
    ],
)
def test_what_the_network_cannot_take_is_refused(item: ObjectPrompt, said: str) -> None:
    with pytest.raises(EngineFailed, match=said):
        found(item)


def test_slices_outside_the_chosen_range_are_neither_looked_at_nor_labelled() -> None:
    with counted_encodings(small_network()) as calls:
        within = labels(found(ObjectPrompt(boxes=(box(3),)), first_slice=2, last_slice=4))
    assert len(calls) == 3
    assert set(np.flatnonzero(within.any(axis=(1, 2)))) <= {2, 3, 4}
    with pytest.raises(EngineFailed, match="outside the slices"):
        found(ObjectPrompt(boxes=(box(3),)), first_slice=4)


def test_following_stops_after_empty_slices() -> None:
    network = small_network()
    # Of the slice that is drawn on, and of those that it is followed to
    heads = (network.mask_decoder.pred_obj_score_head.proj_out, network.following._decoder._there._last)
    before = [head.bias.clone() for head in heads]
    for head in heads:
        head.bias.fill_(-60.0)  # the object is nowhere
    try:
        with counted_encodings(network) as calls:
            findings = found(ObjectPrompt(boxes=(box(3),)), stop_after_empty=1)
    finally:
        for head, bias in zip(heads, before, strict=True):
            head.bias.copy_(bias)
    assert len(calls) == 3  # the prompted slice, and one on either side
    assert not labels(findings).any()
    assert findings.measurements == ()


def test_without_a_prompt_there_is_nothing_to_segment() -> None:
    with pytest.raises(NotApplicable, match="nothing was pointed at"):
        engine().run(Case(volume=ball()))


def test_a_volume_without_contrast_in_the_window_is_refused() -> None:
    with pytest.raises(NotApplicable, match="same inside the window"):
        found(ObjectPrompt(boxes=(box(3),)), window="2000,3000")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": 1}, "no option colour"),
        ({"window": "240,-160"}, "lower bound first"),
        ({"largest_component": 1}, "largest_component"),
        ({"stop_after_empty": True}, "stop_after_empty"),
        ({"stop_after_empty": -1}, "stop_after_empty"),
    ],
)
def test_an_option_without_meaning_is_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(EngineFailed, match=said):
        found(ObjectPrompt(boxes=(box(3),)), volume=None, **options)


def test_the_window_comes_from_the_option_then_the_setting_then_the_modality() -> None:
    case = Case(volume=ball(), prompt=Prompt(objects=(ObjectPrompt(boxes=(box(3),)),)))
    narrow = labels(engine(window=(-50, 100)).run(case))
    by_option = labels(found(ObjectPrompt(boxes=(box(3),)), window="-50,100"))
    np.testing.assert_array_equal(narrow, by_option)
    assert (narrow != labels(found(ObjectPrompt(boxes=(box(3),))))).any()


def test_other_modalities_are_seen_through_percentiles_and_zero_stays_black() -> None:
    voxels = np.random.default_rng(5).gamma(2, 200, SHAPE).astype(np.float32)
    voxels[:, :5] = 0
    seen = Windowed(voxels, None)
    positive = voxels[voxels > 0]
    assert seen.bounds == pytest.approx(tuple(np.percentile(positive, (0.5, 99.5))))
    picture = seen.eight_bit(2)
    assert not picture[:5].any()
    assert (picture.min(), picture.max()) == (0, 255)


def test_measurements_outside_ct_are_in_arbitrary_units() -> None:
    source = ball()
    volume = Volume(
        voxels=source.voxels + np.int16(400), grid=source.grid, sop_instance_uids=source.sop_instance_uids
    )
    case = Case(
        volume=volume,
        context=StudyContext(modality="MR"),
        prompt=Prompt(objects=(ObjectPrompt(boxes=(box(3),)),)),
    )
    units = {item.unit.value for item in engine().run(case).measurements}
    assert units == {"ml", "mm", "[arb'U]"}


def test_the_largest_of_26_connected_parts_is_kept() -> None:
    mask = np.zeros((4, 5, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True  # one part, by corners
    mask[3, 0, 4] = mask[3, 0, 3] = True
    kept = largest_component(mask)
    assert kept.sum() == 3
    assert not kept[3].any()
    assert not largest_component(np.zeros_like(mask)).any()


def test_joined_masks_count_what_they_share() -> None:
    masks = np.zeros((2, 1, 1, 4), bool)
    masks[0, ..., :3] = masks[1, ..., 2:] = True
    made, shared = joined(masks)
    assert made.ravel().tolist() == [1, 1, 1, 2]
    assert shared.tolist() == [0, 1]


def test_small_holes_are_filled_and_large_ones_kept() -> None:
    logits = torch.ones(16, 16)
    logits[2:4, 2:6] = -1.0  # 8 pixels
    logits[8:11, 8:11] = -1.0  # 9 pixels
    assert int((without_small_holes(logits) <= 0).sum()) == 9


def test_a_full_device_is_a_fault_that_may_pass() -> None:
    with pytest.raises(EngineUnavailable, match="out of memory"), computing(CPU):
        raise torch.OutOfMemoryError


@pytest.mark.parametrize(
    "settings", [{"device": "gpu"}, {"device": "cuda:x"}, {"precision": "fp16"}, {"device": "tpu:0"}]
)
def test_a_placement_without_meaning_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(EngineFailed, match="must be"):
        placement(settings)


def test_a_device_that_is_not_there_may_come_back() -> None:
    with pytest.raises(EngineUnavailable, match="is not there"):
        placement({"device": "cuda:63"})


def test_threads_are_bounded_by_default_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.device.cpu_quota", lambda: 64)
    assert placement({"device": "cpu"}).threads == 4
    before = torch.get_num_threads()
    with computing(Placement(device=torch.device("cpu"), dtype=torch.float32, threads=1)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_registry_asks_for_weights_and_puts_their_digest_into_the_identity(tmp_path: Path) -> None:
    assert Registry({}).unavailable()["medsam2"] == "engines.medsam2.weights is not set"
    (tmp_path / "w.pt").write_bytes(b"weights")
    registry = Registry({"medsam2": {"weights": tmp_path / "w.pt"}})
    assert len(registry.manifest("medsam2").weights_digest) == 64
    with pytest.raises(EngineFailed, match=r"Expected is a SAM 2\.1"):
        registry.engine("medsam2")


def full() -> None:
    """Fail as a device does that is full."""
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_full_device_is_asked_again_with_half_the_batch_and_then_gives_way_to_the_cpu() -> None:
    asked: list[tuple[str, int]] = []
    small = Placement(device=torch.device("meta"), dtype=torch.float32, threads=1)

    def work(place: Placement, batch: int) -> str:
        asked.append((place.device.type, batch))
        if place is small:
            full()
        return "done"

    assert fitted(work, small, batch=5, fallback=CPU) == "done"
    assert asked == [("meta", 5), ("meta", 2), ("meta", 1), ("cpu", 1)]
    with pytest.raises(EngineUnavailable, match="out of memory"):
        fitted(work, small, batch=2)


def test_the_cpu_stands_in_only_where_it_is_allowed() -> None:
    place = Placement(device=torch.device("cuda:0"), dtype=torch.float32, threads=1)
    assert fallback_of({}, place) is None
    assert fallback_of({"cpu_fallback": True}, CPU) is None
    found = fallback_of({"cpu_fallback": True, "device": "cuda:0", "precision": "fp32"}, place)
    assert found is not None
    assert (found.device.type, found.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(("error", "kind"), [("DefaultCPUAllocator: not enough memory", EngineUnavailable),
                                             ("shapes do not match", RuntimeError)])  # fmt: skip
def test_a_full_cpu_may_pass_and_another_fault_is_one(error: str, kind: type[Exception]) -> None:
    with pytest.raises(kind), computing(CPU):
        raise RuntimeError(error)


def test_objects_in_smaller_batches_are_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [ObjectPrompt(boxes=(box(k, 19 + k),)) for k in (2, 3, 4)]
    together = labels(found(*objects))
    tried: list[int] = []

    def crowded(network: Any, features: Any, slices: int, some: Any, **options: Any) -> Any:
        tried.append(len(some))
        if len(some) > 1:
            full()
        return track(network, features, slices, some, **options)

    monkeypatch.setattr("inference.medsam2.engine.track", crowded)
    assert np.array_equal(labels(found(*objects)), together)
    assert tried == [3, 1, 1, 1]


def test_each_object_has_two_diameters_at_right_angles_on_one_slice() -> None:
    findings = found(ObjectPrompt(boxes=(box(3),)))
    long, short = (item for item in findings.measurements if item.points)
    assert [item.concept.value for item in (long, short)] == ["103339001", "103340004"]
    assert len({point[0] for item in (long, short) for point in item.points}) == 1
    assert long.value >= short.value > 0


def test_settings_that_change_what_comes_out_are_part_of_the_identity(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"weights")

    def identity(**settings: object) -> str:
        registry = Registry({"medsam2": {"weights": tmp_path / "w.pt", **settings}})
        return job_id(("1.2",), route="r", engine=registry.manifest("medsam2"))

    plain = identity()
    assert identity(threads=2, device="cpu", precision="auto") == plain
    assert len({plain, identity(window=(-160.0, 240.0)), identity(precision="bf16"), identity(precision="fp32")}) == 4
