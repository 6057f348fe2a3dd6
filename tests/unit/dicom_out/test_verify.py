"""The check before sending bites: each test breaks one thing in files that were right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enhanced import enhanced
from factories import ct_series, save
from pydicom import dcmread
from pydicom.dataset import Dataset
from results import VOLUME, ball, grid_of, result_of

from dicom_out.writer import Writer
from domain.codes import LEFT, RIGHT, Code
from domain.errors import VerificationFailed
from domain.job import ResultObject
from domain.ports import Result

Written = tuple[Result, tuple[ResultObject, ...]]
SEG, SR = 0, 1


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A result with two segments on an oblique series of 31 x 37 pixels, written."""
    voxels = np.zeros((9, 31, 37), np.int16)
    series = ct_series(voxels=voxels, orientation=(0.8, 0.6, 0, -0.6, 0.8, 0))
    grid, _ = grid_of(series)
    labels = ball(grid, grid.to_lps((4, 15, 11)), 6.0).astype(np.uint8)
    labels[ball(grid, grid.to_lps((5, 15, 28)), 4.0)] = 2
    result = result_of(series, tmp_path / "source", labels)
    return result, Writer().write(result, tmp_path / "results")


def fails(written: Written, which: int, change: Callable[[Dataset], object], match: str) -> None:
    """Change one object on disk and expect the check to say ``match``."""
    result, objects = written
    ds = dcmread(objects[which].path)
    change(ds)
    ds.save_as(objects[which].path, enforce_file_format=True)
    with pytest.raises(VerificationFailed, match=match):
        Writer().verify(result, objects)


def frame(ds: Dataset, index: int = 0) -> Dataset:
    item: Dataset = ds.PerFrameFunctionalGroupsSequence[index]
    return item


def numbers(ds: Dataset) -> list[Dataset]:
    """Return the measured values of a report, in order."""
    groups = next(i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010").ContentSequence
    return [item.MeasuredValueSequence[0] for g in groups for item in g.ContentSequence if item.ValueType == "NUM"]


def items(ds: Dataset, value_type: str) -> list[Dataset]:
    groups = next(i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010").ContentSequence
    return [item for g in groups for item in g.ContentSequence if item.ValueType == value_type]


def test_what_was_written_passes(written: Written) -> None:
    Writer().verify(*written)


@pytest.mark.parametrize("shift", [(0, 0, 1.0), (0, 0, 2.5), (0.05, 0, 0)], ids=["1 mm", "one slice", "0.05 mm"])
def test_a_frame_that_lies_elsewhere_fails(written: Written, shift: tuple[float, float, float]) -> None:
    def change(ds: Dataset) -> None:
        plane = frame(ds).PlanePositionSequence[0]
        plane.ImagePositionPatient = [float(x) + d for x, d in zip(plane.ImagePositionPatient, shift, strict=True)]

    fails(written, SEG, change, r"frame 1 (does not|names another)")


def test_frames_in_reversed_order_fail(written: Written) -> None:
    def change(ds: Dataset) -> None:
        groups = list(ds.PerFrameFunctionalGroupsSequence)
        ones = [g for g in groups if g.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1]
        positions = [g.PlanePositionSequence for g in ones]
        references = [g.DerivationImageSequence for g in ones]
        for group, position, reference in zip(ones, positions[::-1], references[::-1], strict=True):
            group.PlanePositionSequence, group.DerivationImageSequence = position, reference

    result, objects = written
    labels = np.array(result.findings.labels)
    labels[3, 14:17, 10:12] = 0  # the ball would be the same upside down
    changed = replace(result, findings=replace(result.findings, labels=labels))
    objects = Writer().write(changed, objects[0].path.parent)
    fails((changed, objects), SEG, change, "voxel")


def test_another_source_instance_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        source = frame(ds).DerivationImageSequence[0].SourceImageSequence[0]
        other = frame(ds, 1).DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPInstanceUID = other.ReferencedSOPInstanceUID

    fails(written, SEG, change, "frame 1 names another source image")


def test_another_frame_of_reference_fails(written: Written) -> None:
    fails(written, SEG, lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.9"), "FrameOfReferenceUID")


def test_swapped_pixel_spacing_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = list(measures.PixelSpacing)[::-1]

    fails(written, SEG, change, "PixelSpacing or ImageOrientationPatient")


def test_a_wrong_distance_of_slices_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = "5.0"

    fails(written, SEG, change, "SpacingBetweenSlices")


def test_a_flipped_row_direction_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        orientation = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        cosines = [float(x) for x in orientation.ImageOrientationPatient]
        orientation.ImageOrientationPatient = [-x for x in cosines[:3]] + cosines[3:]

    fails(written, SEG, change, "ImageOrientationPatient")


def test_one_changed_voxel_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        ds.PixelData = bytes([ds.PixelData[0] ^ 1]) + ds.PixelData[1:]

    fails(written, SEG, change, r"1 voxel\(s\) on 1 slice")


def test_a_frame_of_the_other_segment_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        frame(ds).SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2

    fails(written, SEG, change, "voxel|repeats|overlaps")


def test_left_and_right_exchanged_fail(written: Written) -> None:
    def change(ds: Dataset) -> None:
        first, second = (item.SegmentedPropertyTypeCodeSequence[0] for item in ds.SegmentSequence)
        left, right = (x.SegmentedPropertyTypeModifierCodeSequence for x in (first, second))
        first.SegmentedPropertyTypeModifierCodeSequence = right
        second.SegmentedPropertyTypeModifierCodeSequence = left

    fails(written, SEG, change, "codes of segment 1")


def test_a_missing_frame_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:-1]

    fails(written, SEG, change, "cannot be read back|voxel")


@pytest.mark.parametrize("which", [SEG, SR])
@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"])
def test_another_identity_fails(written: Written, which: int, keyword: str) -> None:
    value = "2.25.77" if keyword.endswith("UID") else "SOMEONE"
    fails(written, which, lambda ds: setattr(ds, keyword, value), f"{keyword} is not the source's")


def test_a_changed_number_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        numbers(ds)[0].NumericValue = "12.5"
        numbers(ds)[0].FloatingPointValue = 12.5

    fails(written, SR, change, "Volume of segment 1 is not the engine's number")


def test_a_decimal_that_differs_from_its_binary_value_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        numbers(ds)[1].NumericValue = "0"

    fails(written, SR, change, "NumericValue and FloatingPointValue differ")


def test_a_changed_unit_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        numbers(ds)[0].MeasurementUnitsCodeSequence[0].CodeValue = "l"

    fails(written, SR, change, "measurements of segment 1")


def test_another_tracking_uid_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        for item in items(ds, "UIDREF"):
            if item.ConceptNameCodeSequence[0].CodeValue == "112040":
                item.UID = item.UID[:-1]

    fails(written, SR, change, "tracking UID")


def test_another_segment_number_in_the_report_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        items(ds, "IMAGE")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber = 2

    fails(written, SR, change, "segment 1 is not referred to")


def test_a_missing_statement_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        groups = next(i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
        group = groups.ContentSequence[0]
        group.ContentSequence = [
            i for i in group.ContentSequence if "99VOXGATE" not in str(i) or i.ValueType != "CODE"
        ]

    fails(written, SR, change, "evaluations of segment 1")


def test_a_line_on_another_slice_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        line = items(ds, "SCOORD")[0].ContentSequence[0].ReferencedSOPSequence[0]
        library = next(i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028")
        entries = [i for i in library.ContentSequence[0].ContentSequence if i.ValueType == "IMAGE"]
        line.ReferencedSOPInstanceUID = entries[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID

    fails(written, SR, change, "long axis of segment 1 does not end at the segment")


def test_a_line_shifted_by_a_pixel_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        line = items(ds, "SCOORD")[0]
        line.GraphicData = [x + 1.01 for x in line.GraphicData]

    fails(written, SR, change, "does not end at the segment")


def test_evidence_that_lacks_an_image_fails(written: Written) -> None:
    def change(ds: Dataset) -> None:
        series = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        series.ReferencedSOPSequence = series.ReferencedSOPSequence[1:]

    fails(written, SR, change, "evidence")


def test_a_truncated_file_fails(written: Written) -> None:
    result, objects = written
    data = objects[SEG].path.read_bytes()
    objects[SEG].path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VerificationFailed):
        Writer().verify(result, objects)


def test_a_missing_object_fails(written: Written) -> None:
    result, objects = written
    for kept in (objects[:1], objects[1:]):
        with pytest.raises(VerificationFailed):
            Writer().verify(result, kept)


def test_a_measured_volume_that_is_not_the_masks_fails(written: Written, tmp_path: Path) -> None:
    result, _ = written
    wrong = tuple(
        replace(m, value=m.value * 1000) if m.concept == VOLUME else m for m in result.findings.measurements
    )
    changed = replace(result, findings=replace(result.findings, measurements=wrong))
    with pytest.raises(VerificationFailed, match="measured volume of segment 1"):
        Writer().verify(changed, Writer().write(changed, tmp_path / "wrong"))


def test_sources_in_another_order_than_the_grid_fail(written: Written, tmp_path: Path) -> None:
    result, _ = written
    changed = replace(result, source_paths=result.source_paths[::-1])
    with pytest.raises(VerificationFailed):
        Writer().verify(changed, Writer().write(changed, tmp_path / "wrong"))


def test_messages_name_nobody(written: Written) -> None:
    result, objects = written
    ds = dcmread(objects[SEG].path)
    ds.PatientID = "SOMEONE"
    ds.save_as(objects[SEG].path, enforce_file_format=True)
    with pytest.raises(VerificationFailed) as caught:
        Writer().verify(result, objects)
    assert not any(word in str(caught.value) for word in ("CANARY", "SOMEONE", "2.25", "1.2.8"))


def test_a_code_is_compared_by_value_and_scheme() -> None:
    assert Code("7771000", "SCT", "left side") == LEFT != RIGHT


def source_fails(written: Written, change: Callable[[Dataset], object], match: str) -> None:
    """Change one slice of the source on disk, as if the index had said something else about it."""
    result, objects = written
    ds = dcmread(result.source_paths[4])
    change(ds)
    ds.save_as(result.source_paths[4], enforce_file_format=True)
    with pytest.raises(VerificationFailed, match=match):
        Writer().verify(result, objects)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_slices_of_two_patients_or_studies_give_no_result(written: Written, keyword: str) -> None:
    source_fails(written, lambda ds: setattr(ds, keyword, "1.2.3"), f"{keyword} differs")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", [0.7, 0.81]),
        ("PixelSpacing", [0.8, 0.7]),
        ("ImageOrientationPatient", [0.8, 0.6, 0, 0.6, -0.8, 0]),
        ("Rows", 37),
    ],
)
def test_the_geometry_of_the_source_files_themselves_counts(written: Written, keyword: str, value: object) -> None:
    source_fails(written, lambda ds: setattr(ds, keyword, value), "size, orientation or PixelSpacing")


@pytest.fixture
def written_on_frames(tmp_path: Path) -> Written:
    """The same on the frames of one enhanced image, of which the last lies lowest."""
    series = ct_series(voxels=np.zeros((9, 31, 37), np.int16))
    grid, _ = grid_of(series)
    labels = ball(grid, grid.to_lps((4, 15, 11)), 6.0).astype(np.uint8)
    labels[ball(grid, grid.to_lps((5, 15, 28)), 4.0)] = 2
    result = result_of(series, tmp_path / "single", labels)
    (path,) = save([enhanced(series[::-1])], tmp_path / "source")
    result = replace(result, source_paths=(path,) * 9, source_frames=tuple(range(9, 0, -1)))
    return result, Writer().write(result, tmp_path / "results")


def test_what_was_written_on_frames_passes(written_on_frames: Written) -> None:
    Writer().verify(*written_on_frames)


@pytest.mark.parametrize("number", [None, 1])
def test_another_frame_of_the_source_fails(written_on_frames: Written, number: int | None) -> None:
    def change(ds: Dataset) -> None:
        source = frame(ds).DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = number

    fails(written_on_frames, SEG, change, "frame 1 names another source image")


def test_a_line_on_another_frame_fails(written_on_frames: Written) -> None:
    def change(ds: Dataset) -> None:
        items(ds, "SCOORD")[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 1

    fails(written_on_frames, SR, change, "the long axis of segment 1")


def test_frames_counted_from_the_other_end_fail(written_on_frames: Written) -> None:
    result, objects = written_on_frames
    turned = replace(result, source_frames=result.source_frames[::-1])
    with pytest.raises(VerificationFailed, match=r"frame 1 (names|does not)"):
        Writer().verify(turned, objects)
