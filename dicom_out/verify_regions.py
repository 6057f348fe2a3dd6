"""The check of what a report points at: segments, lines on source images, and its evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_out.kind import Check
from dicom_out.verify_content import Number, children, name_of, number_of, same_number, walk
from dicom_out.verify_frames import mask_of
from dicom_out.verify_groups import image_named
from dicom_out.verify_seg import CheckedSeg
from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import Measurement
from domain.image import Raster

_SEGMENT, _SOURCE_SERIES = "121191", "121232"
_SEGMENTATION_FRAME, _SOURCE_IMAGE = "121214", "121233"
_LONG_AXIS = Code("103339001", "SCT", "Long Axis")
_CORNER = 1e-3
"""Pixels; coordinates are written as 32-bit floats."""

Box = tuple[int, list[tuple[float, float]], Measurement | None]
"""Which image, the points of the line, and what stands beside it."""


def check_region(number: int, groups: list[Dataset], check: Check, seg: CheckedSeg) -> None:
    """The segment that a group refers to is the finding's, in the SEG that goes with the report."""
    items = children(groups)
    if not isinstance(check.result.grid, Raster):
        segments = [item.ReferencedSOPSequence[0] for item in items if name_of(item) == _SEGMENT]
        series = [str(item.UID) for item in items if name_of(item) == _SOURCE_SERIES]
        if [_segment_named(item) for item in segments] != [seg.segments[number]]:
            raise VerificationFailed(f"SR: segment {number} is not referred to in the SEG.")
        if series != [check.slices.series_instance_uid]:
            raise VerificationFailed(f"SR: the source series of segment {number} is not the source's.")
        return
    frames = [item.ReferencedSOPSequence[0] for item in items if name_of(item) == _SEGMENTATION_FRAME]
    images = [item.ReferencedSOPSequence[0] for item in items if name_of(item) == _SOURCE_IMAGE]
    if [str(item.ReferencedSOPInstanceUID) for item in frames] != [seg.segments[number][0]] or len(images) != 1:
        raise VerificationFailed(f"SR: segment {number} is not referred to in the SEG.")
    k = _slices(check)[image_named(images[0])]
    if "ReferencedSegmentNumber" in frames[0]:
        is_its = _segment_named(frames[0]) == seg.segments[number]
    else:
        named = str(frames[0].ReferencedSOPInstanceUID), int(frames[0].ReferencedFrameNumber)
        is_its = seg.frames[named] == (k, number)
    if not is_its or not mask_of(check.result.findings, number, k).any():
        raise VerificationFailed(f"SR: the frame of segment {number} is not one on which it lies.")


def _segment_named(reference: Dataset) -> tuple[str, int]:
    return str(reference.ReferencedSOPInstanceUID), int(reference.ReferencedSegmentNumber)


def _slices(check: Check) -> dict[tuple[str, int | None], int]:
    names = zip(check.slices.sop_instance_uids, check.slices.frame_numbers, strict=True)
    return {name: k for k, name in enumerate(names)}


def check_lines(
    label: str,
    groups: list[Dataset],
    drawn: Sequence[Measurement],
    check: Check,
    number: int | None,
    *,
    box: Box | None = None,
) -> None:
    """Each line is where the engine drew it, or is ours: on the segment, and as long as it says."""
    expected = [(round(m.points[0][0]), [(column + 0.5, row + 0.5) for _, row, column in m.points], m) for m in drawn]
    if box is not None:
        check_given(label, groups, [box], check)
    elif expected:
        check_given(label, groups, expected, check)
    elif number is not None and check.has_voxels(number):
        _check_own_line(label, groups, check, number)
    elif groups:
        raise VerificationFailed(f"SR: {label} has a line that nobody drew.")


def check_given(label: str, groups: list[Dataset], expected: Sequence[Box], check: Check) -> None:
    """There is a line for each that was given, with what it measures."""
    if len(groups) != len(expected):
        raise VerificationFailed(f"SR: {label} does not have the lines that the engine gave.")
    for group, (k, points, measured) in zip(groups, expected, strict=True):
        ends = dict(_line(label, group, check)).get(k)
        if ends is None or ends.shape != (len(points), 2) or np.abs(ends - points).max() > _CORNER:
            raise VerificationFailed(f"SR: a line of {label} is not where the engine drew it.")
        numbers = _numbers(group)
        wanted = (
            [] if measured is None else [((measured.concept, measured.unit, measured.derivation), measured.value)]
        )
        if len(numbers) != len(wanted):
            raise VerificationFailed(f"SR: a line of {label} does not have its number.")
        for (what, value), (other, written) in zip(wanted, numbers, strict=True):
            if what != other or not same_number(value, written):
                raise VerificationFailed(f"SR: the number at a line of {label} is not the engine's.")


def _check_own_line(label: str, groups: list[Dataset], check: Check, number: int) -> None:
    """The long axis begins and ends at pixels of the segment; the rectangle, without a scale, encloses them."""
    if len(groups) != 1:
        raise VerificationFailed(f"SR: {label} does not have one long axis.")
    findings, places = check.result.findings, _line(label, groups[0], check)
    ending = [one for one in places if all(_touches(mask_of(findings, number, one[0]), x, y) for x, y in one[1])]
    k, ends = (ending or places)[0]
    mask, scale, numbers = mask_of(findings, number, k), _scale(check), _numbers(groups[0])
    if scale is None:
        _check_rectangle(label, mask, ends, numbers)
        return
    if [what[0] for what, _ in numbers] != [_LONG_AXIS]:
        raise VerificationFailed(f"SR: {label} does not have one long axis.")
    if len(ends) != 2 or not all(_touches(mask, column, row) for column, row in ends):
        raise VerificationFailed(f"SR: the long axis of {label} does not end at the segment.")
    length = float(np.hypot(*((ends[1] - ends[0]) * scale[::-1])))
    if not math.isclose(length, numbers[0][1], rel_tol=1e-4):
        raise VerificationFailed(f"SR: the long axis of {label} is not as long as it says.")


def _check_rectangle(
    label: str, mask: npt.NDArray[np.bool_], ends: npt.NDArray[np.float64], numbers: list[tuple[Number, float]]
) -> None:
    rows, columns = np.nonzero(mask)
    around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    if numbers or tuple(ends.min(axis=0)) + tuple(ends.max(axis=0)) != around:
        raise VerificationFailed(f"SR: the line of {label} is not the rectangle around it.")


def _scale(check: Check) -> tuple[float, float] | None:
    grid = check.result.grid
    if not isinstance(grid, Raster):
        return grid.spacing_mm[1], grid.spacing_mm[2]
    return None if grid.spacing_origin == "ImagerPixelSpacing" else grid.spacing_mm


def _line(label: str, group: Dataset, check: Check) -> list[tuple[int, npt.NDArray[np.float64]]]:
    """Return the slice on which a group's line lies, and its points; several where it is on a border of two tiles."""
    lines = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    points = np.array([float(x) for x in lines[0].GraphicData]).reshape(-1, 2)
    places = check.slices.drawn_on(image_named(lines[0].ContentSequence[0].ReferencedSOPSequence[0]), points)
    if len(lines) != 1 or not places:
        raise VerificationFailed(f"SR: a line of {label} is on no image of the source.")
    return places


def _numbers(group: Dataset) -> list[tuple[Number, float]]:
    return [number_of(item) for item in group.ContentSequence if item.ValueType == "NUM"]


def _touches(mask: npt.NDArray[np.bool_], column: float, row: float) -> bool:
    """Tell whether a pixel of the mask holds the point or has it on its side; 0.5 is the first pixel's centre."""
    rows = {math.floor(row), math.ceil(row) - 1}
    columns = {math.floor(column), math.ceil(column) - 1}
    return any(0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and bool(mask[r, c]) for r in rows for c in columns)


def check_evidence(sr: Dataset, check: Check) -> None:
    """Evidence is the source, the SEG and the drawing, and the content refers to nothing else (PS3.3 C.17.2.3).

    What is of the report's own study stands apart from what is of others, and the source's images in their series.
    """
    evidence: set[str] = set()
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in sr.get(keyword) or ():
            is_own = study.StudyInstanceUID == sr.StudyInstanceUID
            if is_own != (keyword == "CurrentRequestedProcedureEvidenceSequence"):
                raise VerificationFailed(f"SR: {keyword} names a study that does not belong there.")
            for series in study.ReferencedSeriesSequence:
                named = {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedSOPSequence}
                home = (str(study.StudyInstanceUID), str(series.SeriesInstanceUID))
                if any(check.slices.homes.get(uid, home) != home for uid in named):
                    raise VerificationFailed("SR: its evidence has an image in another series than its own.")
                evidence |= named
    expected = set(check.slices.sop_instance_uids)
    if check.seg is not None:
        expected |= check.seg.sop_instance_uids
    drawing = None if check.result.prompt is None else check.result.prompt.drawing
    if drawing is not None:
        expected.add(drawing.sop_instance_uid)
    if evidence != expected:
        raise VerificationFailed("SR: its evidence is not the source and the SEG.")
    referenced = {
        str(reference.ReferencedSOPInstanceUID)
        for item in walk(sr)
        for reference in item.get("ReferencedSOPSequence") or ()
    }
    if not referenced <= expected:
        raise VerificationFailed("SR: it refers to an instance that is not in its evidence.")
