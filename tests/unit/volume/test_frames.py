from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from enhanced import enhanced, shuffled
from factories import copied, ct_series, headers_of, mr_series, save
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
    SegmentationStorage,
)

from domain.series import RefusalCode, Stack
from domain.volume import Volume
from volume.assembly import assemble
from volume.digest import inspect
from volume.frames import frames_of
from volume.grouping import group
from volume.header import header_of
from volume.header_json import header_from_json, header_to_json
from volume.repeats import group_stored


def steps(slices: int = 5, offset: int = 0) -> npt.NDArray[np.int16]:
    """Return voxels of which each tells its place."""
    count = slices * 16 * 20
    return (np.arange(count, dtype=np.int16).reshape(slices, 16, 20) - 1000 + offset).astype(np.int16)


def saved(ds: Dataset, folder: Path) -> tuple[list[Stack], dict[str, Path]]:
    (path,) = save([ds], folder)
    header, _ = inspect(path)
    paths = {header.sop_instance_uid: path}
    return list(group_stored([header], paths)), paths


def only_volume(ds: Dataset, folder: Path) -> Volume:
    (stack,), paths = saved(ds, folder)
    assert stack.refusal is None, stack.refusal
    return assemble(stack, paths)


@pytest.mark.parametrize("shared", [True, False])
def test_an_enhanced_image_is_the_volume_of_its_single_frames(shared: bool, tmp_path: Path) -> None:
    series = ct_series(voxels=steps())
    files = {ds.SOPInstanceUID: path for ds, path in zip(series, save(series, tmp_path / "single"), strict=True)}
    (stack,) = group(headers_of(series))
    expected = assemble(stack, files)
    image = enhanced(shuffled(series), shared_orientation=shared)
    found = only_volume(image, tmp_path / "enhanced")
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    np.testing.assert_allclose(found.grid.affine, expected.grid.affine)
    assert (found.unit, found.voxels.dtype.name) == ("HU", "int16")
    assert set(found.sop_instance_uids) == {image.SOPInstanceUID}
    assert sorted(number or 0 for number in found.frame_numbers) == [1, 2, 3, 4, 5]
    assert expected.frame_numbers == ()


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless],
    ids=lambda uid: uid.name,
)
def test_frames_are_the_same_in_every_transfer_syntax(syntax: UID, tmp_path: Path) -> None:
    image = enhanced(ct_series(voxels=steps()))
    if syntax == ExplicitVRBigEndian:
        image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
    if syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        image.file_meta.TransferSyntaxUID = syntax
    else:
        image.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(only_volume(image, tmp_path).voxels, steps())


def test_the_walk_through_the_file_and_pydicom_read_the_same_groups(tmp_path: Path) -> None:
    image = enhanced(ct_series(4), stacks="1122", times=[1, 2, 1, 2])
    header, _ = inspect(save([image], tmp_path)[0])
    assert header == header_of(image, ExplicitVRLittleEndian)
    assert len(header.frames) == 4
    assert header_from_json(header_to_json(header)) == replace(header, patient=None)


def test_what_a_frame_says_goes_before_what_its_instance_says() -> None:
    image = enhanced(ct_series(3), shared_orientation=False)
    image.ImagePositionPatient = [1, 2, 3]
    (header,) = headers_of([image])
    assert [frame.frame_number for frame in frames_of(header)] == [1, 2, 3]
    assert [frame.image_position_mm for frame in frames_of(header)] == [
        (-10.0, -20.0, 30.0),
        (-10.0, -20.0, 32.5),
        (-10.0, -20.0, 35.0),
    ]


def test_rescale_values_of_each_frame_hold(tmp_path: Path) -> None:
    series = ct_series(voxels=steps(3))
    for k, ds in enumerate(series):
        ds.RescaleIntercept = str(100 * k)
    found = only_volume(enhanced(series), tmp_path)
    np.testing.assert_array_equal(found.voxels, steps(3) + np.array([0, 100, 200])[:, None, None])


def test_orientations_in_one_instance_become_stacks(tmp_path: Path) -> None:
    axial, sagittal = ct_series(4), ct_series(3, orientation=(0, 1, 0, 0, 0, -1))
    stacks, paths = saved(enhanced([*axial, *sagittal], shared_orientation=False), tmp_path)
    assert [(stack.name, len(stack.headers), stack.refusal) for stack in stacks] == [
        ("axial", 4, None),
        ("sagittal", 3, None),
    ]
    assert set(assemble(stacks[1], paths).frame_numbers) == {5, 6, 7}


def test_stack_ids_divide_what_positions_would_join(tmp_path: Path) -> None:
    upper, lower = ct_series(3), ct_series(3, origin_mm=(-10, -20, -200))
    image = enhanced([*upper, *lower], stacks=["a", "a", "a", "b", "b", "b"])
    stacks, paths = saved(image, tmp_path)
    assert [(stack.name, stack.refusal) for stack in stacks] == [("stack 1, axial", None), ("stack 2, axial", None)]
    assert [assemble(stack, paths).frame_numbers for stack in stacks] == [(1, 2, 3), (4, 5, 6)]


def test_a_stack_id_for_every_frame_divides_nothing(tmp_path: Path) -> None:
    assert only_volume(enhanced(ct_series(4), stacks="1234"), tmp_path).grid.shape == (4, 16, 20)


def test_temporal_positions_become_stacks(tmp_path: Path) -> None:
    first, second = ct_series(voxels=steps(4)), ct_series(voxels=steps(4, offset=1))
    frames = [frame for pair in zip(first, second, strict=True) for frame in pair]
    stacks, paths = saved(enhanced(frames, times=[1, 2] * 4), tmp_path)
    assert [stack.name for stack in stacks] == ["axial, temporal position 1", "axial, temporal position 2"]
    np.testing.assert_array_equal(assemble(stacks[1], paths).voxels, steps(4, offset=1))


def test_echoes_and_diffusion_of_an_enhanced_mr_become_stacks(tmp_path: Path) -> None:
    frames = [*mr_series(3), *mr_series(3), *mr_series(3)]
    image = enhanced(frames, sop_class_uid=EnhancedMRImageStorage)
    for keyword in ("EchoTime", "EchoNumbers"):
        delattr(image, keyword)
    for k, group_item in enumerate(image.PerFrameFunctionalGroupsSequence):
        echo, diffusion, direction = Dataset(), Dataset(), Dataset()
        echo.EffectiveEchoTime = 80.0 if k < 6 else 20.0
        direction.DiffusionGradientOrientation = [1.0, 0.0, 0.0]
        diffusion.DiffusionBValue = 1000.0 if 3 <= k < 6 else 0.0
        diffusion.DiffusionGradientDirectionSequence = [direction] if 3 <= k < 6 else []
        group_item.MREchoSequence, group_item.MRDiffusionSequence = [echo], [diffusion]
    stacks, _ = saved(image, tmp_path)
    assert [(stack.name, stack.refusal) for stack in stacks] == [
        ("axial, echo time 20 ms", None),
        ("axial, echo time 80 ms, b-value 0", None),
        ("axial, echo time 80 ms, b-value 1000", None),
    ]


@pytest.mark.parametrize("sop_class_uid", [LegacyConvertedEnhancedCTImageStorage, EnhancedPETImageStorage])
def test_other_enhanced_classes_read_alike(sop_class_uid: UID, tmp_path: Path) -> None:
    found = only_volume(enhanced(ct_series(voxels=steps()), sop_class_uid=sop_class_uid), tmp_path)
    np.testing.assert_array_equal(found.voxels, steps())


def test_parts_of_a_concatenation_are_one_stack(tmp_path: Path) -> None:
    series = ct_series(voxels=steps(6))
    parts = [enhanced(series[:3]), enhanced(series[3:])]
    paths = {ds.SOPInstanceUID: path for ds, path in zip(parts, save(parts, tmp_path), strict=True)}
    (stack,) = group_stored(headers_of(parts[::-1]), paths)
    volume = assemble(stack, paths)
    np.testing.assert_array_equal(volume.voxels, steps(6))
    assert volume.frame_numbers == (1, 2, 3, 1, 2, 3)


@pytest.mark.parametrize("change", ["none", "too few", "no sequence"])
def test_groups_that_do_not_cover_the_frames_are_refused(change: str) -> None:
    image = enhanced(ct_series(4))
    if change == "too few":
        del image.PerFrameFunctionalGroupsSequence[3]
    elif change == "no sequence":
        del image.PerFrameFunctionalGroupsSequence
    (stack,) = group(headers_of([image]))
    refused = None if stack.refusal is None else stack.refusal.code
    assert refused == (None if change == "none" else RefusalCode.NO_FUNCTIONAL_GROUPS)


def test_a_missing_frame_is_named_by_its_neighbours() -> None:
    series = ct_series(6)
    (stack,) = group(headers_of([enhanced([*series[:2], *series[3:]])]))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.MISSING_SLICES
    assert "1 between frame 2 and 3" in stack.refusal.reason


def test_values_that_are_colours_are_refused() -> None:
    image = enhanced(ct_series(3))
    image.PixelPresentation = "COLOR"
    (stack,) = group(headers_of([image]))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.UNSUPPORTED_PIXELS


def test_frames_that_are_there_twice_are_used_once(tmp_path: Path) -> None:
    series = ct_series(voxels=steps())
    found = only_volume(enhanced([*series, *copied(series[1:3])]), tmp_path)
    assert found.frame_numbers == (1, 2, 3, 4, 5)


def test_pixel_data_that_ends_before_the_last_frame_is_refused(tmp_path: Path) -> None:
    (stack,), paths = saved(enhanced(ct_series(3)), tmp_path)
    (path,) = paths.values()
    image = enhanced(ct_series(3))
    image.PixelData = image.PixelData[:-640]
    assert save([image], tmp_path) == [path]
    with pytest.raises(Exception, match="PixelData is shorter"):
        assemble(stack, paths)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(6)))
def test_the_order_of_frames_decides_nothing(order: list[int]) -> None:
    series = ct_series(6)
    (stack,) = group(headers_of([enhanced([series[k] for k in order])]))
    assert [h.image_position_mm for h in stack.headers] == [(-10.0, -20.0, 30 + 2.5 * k) for k in range(6)]


def test_frames_of_a_segmentation_are_no_slices() -> None:
    image = enhanced(ct_series(3), sop_class_uid=SegmentationStorage)
    (header,) = headers_of([image])
    assert header.frames == ()
    (stack,) = group([header])
    assert len(stack.headers) == 1
