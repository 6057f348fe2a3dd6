"""Real series, from files to volumes or to the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.uid import CTImageStorage, generate_uid
from received import read

from domain.errors import AssemblyError, MalformedInstance
from domain.series import RefusalCode, Stack, StackKind
from domain.volume import Volume
from volume.assembly import assemble
from volume.digest import inspect
from volume.display import read_picture
from volume.geometry import geometry
from volume.grouping import group
from volume.pixels import read_frame

Unpack = Callable[[str], Path]


def stacks_of(folder: Path) -> list[Stack]:
    series, _ = read(folder)
    return [stack for headers in series.values() for stack in group(headers)]


def only_stack(folder: Path) -> tuple[Stack, dict[str, Path]]:
    series, paths = read(folder)
    images = [stack for headers in series.values() for stack in group(headers) if len(headers) > 1]
    (stack,) = images
    return stack, paths


def cause(stack: Stack) -> tuple[RefusalCode, tuple[int, ...]] | None:
    return None if stack.refusal is None else (stack.refusal.code, stack.refusal.instance_numbers)


def by_simple_itk(volume: Volume, paths: dict[str, Path]) -> Any:
    """Read the same files, in the order of ``volume``, with an independent reader."""
    reader: Any = SimpleITK.ImageSeriesReader()  # type: ignore[no-untyped-call]
    reader.SetFileNames([str(paths[uid]) for uid in volume.sop_instance_uids])
    return reader.Execute()


def assert_same_place(volume: Volume, image: Any) -> None:
    slices, rows, columns = volume.grid.shape
    for index in [(0, 0, 0), (slices - 1, 0, 0), (0, rows - 1, 0), (0, 0, columns - 1), (slices - 1, 3, 5)]:
        expected = image.TransformIndexToPhysicalPoint([int(n) for n in reversed(index)])
        np.testing.assert_allclose(volume.grid.to_lps(index), expected, atol=2e-3)


def test_the_chest_equals_an_independent_reading_but_for_padding(unpacked: Unpack) -> None:
    stack, paths = only_stack(unpacked("ct/chest_GE_CMB-CRC_100sl"))
    volume = assemble(stack, paths)
    image = by_simple_itk(volume, paths)
    expected: npt.NDArray[np.int32] = SimpleITK.GetArrayFromImage(image).astype(np.int32)
    padding = expected == -2000 - 1024  # stored -2000, which the header writes as an unsigned 63536
    assert padding.any()
    np.testing.assert_array_equal(volume.voxels[~padding], expected[~padding])
    assert (volume.voxels[padding] == -1024).all()
    assert (volume.unit, volume.padding_value, volume.voxels.dtype.name) == ("HU", -1024, "int16")
    assert volume.grid.shape == (100, 512, 512)
    np.testing.assert_allclose(volume.grid.spacing_mm, (2.5, 0.898438, 0.898438))
    assert_same_place(volume, image)


def test_the_tilted_head_is_refused_for_its_tilt(unpacked: Unpack) -> None:
    (stack,) = stacks_of(unpacked("ct/headphantom_Philips_gantrytilt+16.5_58sl"))
    assert cause(stack) == (RefusalCode.GANTRY_TILT, tuple(range(1, 59)))
    assert stack.refusal is not None
    assert "16.5 degrees" in stack.refusal.reason


def test_the_missing_slices_are_named(unpacked: Unpack) -> None:
    (stack,) = stacks_of(unpacked("ct/derived_missing_slices_torchio"))
    assert cause(stack) == (RefusalCode.MISSING_SLICES, (5, 7, 11, 14))
    assert stack.refusal is not None
    assert "1 between InstanceNumber 5 and 7, 2 between InstanceNumber 11 and 14" in stack.refusal.reason


def test_of_the_phantom_study_only_the_axial_series_is_a_volume(unpacked: Unpack) -> None:
    folder = unpacked("ct/headphantom_Philips_study_localizer+5mm+SCsummary")
    series, paths = read(folder)
    stacks = {len(headers): group(headers) for headers in series.values()}
    assert [cause(stack) for stack in stacks[1]] == [(RefusalCode.LOCALIZER, (1,))]
    assert [(stack.kind, cause(stack)) for stack in stacks[6]] == [(StackKind.IMAGE, None)] * 6
    (axial,) = stacks[28]
    volume = assemble(axial, paths)
    image = by_simple_itk(volume, paths)
    np.testing.assert_array_equal(volume.voxels, SimpleITK.GetArrayFromImage(image))
    assert_same_place(volume, image)
    assert volume.grid.spacing_mm[0] == pytest.approx(5.0)


def test_localizer_captures_and_slices_in_one_series_are_told_apart(unpacked: Unpack) -> None:
    series, _ = read(unpacked("ct/headphantom_Philips_study_localizer+5mm+SCsummary"))
    stacks = group([header for headers in series.values() for header in headers])
    assert {stack.name: (cause(stack) or (None,))[0] for stack in stacks} == {
        "axial": None,
        "localizer": RefusalCode.LOCALIZER,
        **{f"image {number}": None for number in range(1, 7)},
    }


def test_slices_turned_by_half_a_revolution_keep_their_place(shared_data: Path) -> None:
    stack, paths = only_stack(shared_data / "ct" / "torchio_mislabelled_CT_17sl")
    volume = assemble(stack, paths)
    image = by_simple_itk(volume, paths)
    np.testing.assert_array_equal(volume.voxels, SimpleITK.GetArrayFromImage(image))
    assert_same_place(volume, image)
    assert volume.unit == "US"  # so that nobody takes these values for HU
    assert volume.grid.affine[0, 2] == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("name", "spacing_mm"),
    [
        ("ct/IBSI_PAT2_lungCT_RTSTRUCT", 3.0),
        ("mr/brain_T1_cor_GE_MRHEAD_100sl", 2.5),
        ("mr/brain_FLAIR_ax_Philips_BRAINIX_22sl", 6.0),
        ("mr/brain_T2_EPI_ax_Philips_BRAINIX_22sl", 6.0),
    ],
)
def test_other_regular_series_equal_an_independent_reading(name: str, spacing_mm: float, unpacked: Unpack) -> None:
    stack, paths = only_stack(unpacked(name))
    volume = assemble(stack, paths)
    image = by_simple_itk(volume, paths)
    np.testing.assert_array_equal(volume.voxels, SimpleITK.GetArrayFromImage(image))
    assert_same_place(volume, image)
    assert volume.grid.spacing_mm[0] == pytest.approx(spacing_mm, abs=1e-3)


def test_the_abdomen_lies_on_the_grid_of_its_reference(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ct" / "abdomen_Siemens_J2K_20sl_TotalSeg"
    with pytest.raises(MalformedInstance, match="SOPClassUID is absent or empty"):
        inspect(min(folder.iterdir()))
    study, series = generate_uid(), generate_uid()
    for path in folder.iterdir():
        ds = dcmread(path)
        ds.SOPClassUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = CTImageStorage, study, series
        ds.SOPInstanceUID = generate_uid()
        ds.FrameOfReferenceUID = ds.get("FrameOfReferenceUID") or study
        ds.save_as(tmp_path / path.name)
    stack, paths = only_stack(tmp_path)
    volume = assemble(stack, paths)
    reference: Any = SimpleITK.ReadImage(str(shared_data / "gt" / "totalseg_example_seg_dicom.nii.gz"))
    assert volume.grid.shape == (20, 512, 512)
    for column, row, k in ((0, 0, 0), (511, 0, 3), (5, 511, 19)):
        # The reference's rows run the other way.
        expected = reference.TransformIndexToPhysicalPoint([column, 511 - row, k])
        np.testing.assert_allclose(volume.grid.to_lps((k, row, column)), expected, atol=1e-4)


def test_a_contour_object_is_no_image(unpacked: Unpack) -> None:
    causes = [cause(stack) for stack in stacks_of(unpacked("ct/IBSI_PAT2_lungCT_RTSTRUCT"))]
    assert (RefusalCode.NOT_AN_IMAGE, ()) in causes


def test_two_echoes_in_one_series_become_two_volumes(unpacked: Unpack) -> None:
    folder = unpacked("mr/multiecho_GRE_Siemens_72")
    _, paths = read(folder)
    stacks = stacks_of(folder)
    assert [stack.name for stack in stacks] == ["axial, echo time 5.19 ms", "axial, echo time 7.65 ms"]
    first, second = (assemble(stack, paths) for stack in stacks)
    assert first.grid.shape == second.grid.shape == (36, 64, 64)
    np.testing.assert_array_equal(first.grid.affine, second.grid.affine)
    assert not np.array_equal(first.voxels, second.voxels)


def test_diffusion_images_split_by_the_b_value_that_the_maker_wrote_privately(unpacked: Unpack) -> None:
    folder = unpacked("mr/prostate_DWI_3b_ProstateX-0000")
    _, paths = read(folder)
    stacks = stacks_of(folder)
    assert [stack.name for stack in stacks] == ["axial, b-value 50", "axial, b-value 400", "axial, b-value 800"]
    volumes = [assemble(stack, paths) for stack in stacks]
    assert {volume.grid.shape for volume in volumes} == {(19, 128, 84)}
    means = [float(volume.voxels.mean()) for volume in volumes]
    assert means == sorted(means, reverse=True)  # the more diffusion weighting, the less signal


def test_the_pet_is_in_becquerel_with_the_factor_to_suv(unpacked: Unpack) -> None:
    stack, paths = only_stack(unpacked("pet/PET_wholebody_QIN-HEADNECK-0024_299sl"))
    volume = assemble(stack, paths)
    assert volume.grid.shape == (299, 128, 128)
    assert volume.grid.spacing_mm[0] == pytest.approx(3.375, abs=1e-3)
    assert volume.unit == "BQML"
    assert volume.suv_body_weight_factor == pytest.approx(2.945e-4, rel=1e-3)
    image = by_simple_itk(volume, paths)
    np.testing.assert_allclose(volume.voxels, SimpleITK.GetArrayFromImage(image), rtol=1e-6)
    assert_same_place(volume, image)
    assert geometry(stack).deviation_mm < 0.01


@pytest.mark.parametrize(
    ("name", "shape"), [("BRTUM004", (24, 256, 256)), ("dcmqi_legacy_enhanced_CT_24x38x3.dcm", (3, 38, 24))]
)
def test_an_enhanced_image_equals_an_independent_reading(
    name: str, shape: tuple[int, int, int], shared_data: Path
) -> None:
    path = shared_data / "enhanced" / name
    header, _ = inspect(path)
    (stack,) = group([header])
    volume = assemble(stack, {header.sop_instance_uid: path})
    other = highdicom.imread(path).get_volume(apply_real_world_transform=False)
    assert volume.grid.shape == shape
    index = np.array([[0, 0, 0], [shape[0] - 1, 0, 0], [1, 5, 7], [2, shape[1] - 1, shape[2] - 1]])
    for place in index:
        position = volume.grid.to_lps(place)
        theirs = np.rint(other.map_reference_to_indices(position[None])[0]).astype(int)
        np.testing.assert_allclose(other.map_indices_to_reference(theirs[None])[0], position, atol=1e-3)
        assert other.array[tuple(theirs)] == volume.voxels[tuple(place)]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dicom2nifti_philips_enhanced_anat.dcm", RefusalCode.NO_FRAME_OF_REFERENCE),
        ("eCT_Supplemental.dcm", RefusalCode.UNSUPPORTED_PIXELS),
        ("emri_small.dcm", RefusalCode.NO_FUNCTIONAL_GROUPS),
    ],
)
def test_enhanced_images_that_lack_something_are_refused_by_name(
    name: str, code: RefusalCode, shared_data: Path
) -> None:
    header, _ = inspect(shared_data / "enhanced" / name)
    (stack,) = group([header])
    assert stack.refusal is not None
    assert stack.refusal.code is code


LOSSLESS = (
    "BigEndian",
    "Deflated",
    "JPEG2000LosslessOnly",
    "JPEGLSLosslessT",
    "JPEGProcess14",
    "LittleEndian",
    "RLE",
)


def stored_values(path: Path) -> npt.NDArray[np.int64]:
    header, _ = inspect(path)
    buffer = np.empty((header.rows or 0, header.columns or 0), np.int16)
    return read_frame(header, path, buffer).values.astype(np.int64)


def test_one_slice_decodes_alike_from_every_lossless_transfer_syntax(shared_data: Path) -> None:
    folder = shared_data / "ts" / "cornerstone_CTImage"
    expected = stored_values(folder / "CTImage.dcm")
    assert expected.std() > 100
    checked = [path for path in sorted(folder.iterdir()) if any(f"_{name}" in path.name for name in LOSSLESS)]
    assert len(checked) == 9
    for path in checked:
        np.testing.assert_array_equal(stored_values(path), expected, err_msg=path.name)


def test_a_transfer_syntax_that_no_decoder_takes_is_refused_by_name(shared_data: Path) -> None:
    folder = shared_data / "ts" / "cornerstone_CTImage"
    for process, name in (("JPEGProcess10_12", "Full Progression"), ("JPEGProcess6_8", "Spectral Selection")):
        (path,) = folder.glob(f"*{process}*")
        with pytest.raises(AssemblyError, match=name) as caught:
            stored_values(path)
        assert caught.value.code == RefusalCode.PIXELS_UNREADABLE


@pytest.mark.parametrize("kind", ["CT1", "MR1"])
def test_the_compression_samples_of_the_standards_committee_decode_alike(kind: str, shared_data: Path) -> None:
    folder = shared_data / "ts" / "WG04"
    first, *others = [stored_values(folder / f"{kind}_{name}.dcm") for name in ("RLE", "J2KR", "JLSL", "JPLL")]
    for other in others:
        np.testing.assert_array_equal(other, first)


# No decoder knows the retired spectral selection and full progression; pydicom does not know Deflated Image Frame.
NOT_DECODED = {
    "CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm",
    "CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm",
    "liver_deflate.dcm",
}


def test_every_transfer_syntax_becomes_a_picture_or_is_refused_by_name(shared_data: Path) -> None:
    shown, refused = 0, set()
    for path in sorted(p for p in (shared_data / "ts").rglob("*") if p.is_file()):
        try:
            header, _ = inspect(path)
        except MalformedInstance:
            continue
        try:
            picture = read_picture(header, path)
        except AssemblyError:
            refused.add(path.name)
            continue
        assert picture.shape == (header.rows, header.columns, 3)
        shown += 1
    assert refused == NOT_DECODED
    assert shown == 53


@pytest.mark.parametrize("name", ["examples_palette.dcm", "US-PAL-8-10x-echo", "examples_ybr_color.dcm"])
def test_ultrasound_in_palette_and_ybr_has_colours_on_grey(name: str, shared_data: Path) -> None:
    path = shared_data / "us" / name
    header, _ = inspect(path)
    picture = read_picture(header, path, header.number_of_frames or 1).astype(int)
    spread = picture.max(axis=2) - picture.min(axis=2)
    assert spread.max() > 60  # Doppler, scales and marks
    assert np.median(spread) < 12  # most of it is grey
