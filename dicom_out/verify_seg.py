"""The check of an encoded segmentation: every voxel, where it lies, and what it is called."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import Findings, SegmentDescription
from domain.ports import Result
from domain.volume import Grid
from volume.spacing import tolerance_mm

TOLERANCE_MM = 0.01
_VOLUME = Code("118565006", "SCT", "Volume")
_PER_ML = {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 1e-3, "l": 1e3, "L": 1e3}
_MASK_VOLUME_TOLERANCE = 0.01
"""An engine may measure on a finer or coarser model of the mask; a wrong unit or voxel size is far beyond this."""

LabelArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Slices(Protocol):
    """What the source files say; see ``verify.SourceSlices``."""

    @property
    def sop_instance_uids(self) -> tuple[str, ...]: ...
    @property
    def sop_class_uids(self) -> tuple[str, ...]: ...
    @property
    def frame_numbers(self) -> tuple[int | None, ...]: ...
    @property
    def series_instance_uid(self) -> str: ...
    @property
    def frame_of_reference_uid(self) -> str: ...
    @property
    def positions_mm(self) -> FloatArray: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedSeg:
    """What the report may refer to."""

    sop_instance_uid: str = field(repr=False)
    tracking: dict[int, tuple[str, str]] = field(repr=False)
    """Tracking ID and UID by segment number."""
    planes: dict[tuple[str, int | None], LabelArray] = field(repr=False)
    """Segment number of each pixel by source instance and its frame, where there is any."""
    voxels: dict[int, int]
    """By segment number, where there is any."""
    spacing_mm: tuple[float, float]


@dataclass(slots=True)
class _Moments:
    """Voxels of one segment, and the sums of their positions and indices."""

    voxels: int = 0
    position: FloatArray = field(default_factory=lambda: np.zeros(3))
    """mm, by the segmentation's own geometry."""
    expected: FloatArray = field(default_factory=lambda: np.zeros(3))
    """mm, by the grid of the findings."""
    on_slice: dict[int, int] = field(default_factory=dict)
    """Voxels by slice."""

    def add(self, mask: BoolArray, k: int, origin: FloatArray, steps: FloatArray, grid: Grid) -> None:
        """Add a frame that has voxels, on slice ``k``; its first pixel lies at ``origin``."""
        weights = mask.astype(np.float32)  # exact: a frame's sums stay far below 2**24 in each row and column
        rows, columns = weights.sum(axis=1).astype(float), weights.sum(axis=0).astype(float)
        count = rows.sum()
        in_row, in_column = rows @ np.arange(len(rows)), columns @ np.arange(len(columns))
        self.voxels += int(count)
        self.position += count * origin + in_column * steps[0] + in_row * steps[1]
        self.expected += count * grid.to_lps((k, in_row / count, in_column / count))
        self.on_slice[k] = int(count)


def check_seg(seg: Dataset, result: Result, slices: Slices) -> CheckedSeg:
    """Compare a segmentation, read from its file, with the findings; return what a report may refer to."""
    grid, labels = result.patient_grid, result.findings.labels
    if labels is None or labels.shape != grid.shape or len(slices.sop_instance_uids) != grid.shape[0]:
        raise VerificationFailed("Findings, grid and source do not have the same number of slices.")
    measures, steps = _check_geometry(seg, grid, slices)
    tracking = _check_segments(seg, result.findings.segments)
    planes, moments = _decode(seg, grid, slices, steps)
    _check_voxels(planes, labels)
    reach_mm, row_mm, column_mm = measures
    _check_places(moments, result, voxel_ml=reach_mm * row_mm * column_mm / 1000)
    _check_referenced_series(seg, slices)
    return CheckedSeg(
        sop_instance_uid=str(seg.SOPInstanceUID),
        tracking=tracking,
        planes={(slices.sop_instance_uids[k], slices.frame_numbers[k]): plane for k, plane in planes.items()},
        voxels={number: found.voxels for number, found in moments.items()},
        spacing_mm=(measures[1], measures[2]),
    )


def _check_geometry(seg: Dataset, grid: Grid, slices: Slices) -> tuple[tuple[FloatArray, float, float], FloatArray]:
    """Check frame of reference, matrix, spacing and orientation; return spacing and the in-plane steps.

    Of the spacing, the first is how far each slice reaches along the normal, the others are between rows and between
    columns. The steps have shape (2, 3): mm from one column to the next, and from one row to the next.
    """
    if not (seg.FrameOfReferenceUID == slices.frame_of_reference_uid == grid.frame_of_reference_uid):
        raise VerificationFailed("SEG: FrameOfReferenceUID is not the source's.")
    if (seg.Rows, seg.Columns) != grid.shape[1:]:
        raise VerificationFailed("SEG: Rows and Columns are not the source's.")
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixel = shared.PixelMeasuresSequence[0]
    row_mm, column_mm = (float(x) for x in pixel.PixelSpacing)
    cosines = np.array([float(x) for x in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    steps = np.stack([cosines[:3] * column_mm, cosines[3:] * row_mm])
    expected = grid.affine[:3, [2, 1]].T
    reach = np.abs(steps - expected).max(axis=1) * (grid.shape[2], grid.shape[1])
    if reach.max() > TOLERANCE_MM:
        raise VerificationFailed("SEG: PixelSpacing or ImageOrientationPatient is not the source's.")
    reach = _reach_mm(pixel, np.cross(cosines[:3], cosines[3:]), grid, slices)
    return (reach, row_mm, column_mm), steps


def _reach_mm(pixel: Dataset, normal: FloatArray, grid: Grid, slices: Slices) -> FloatArray:
    """Return how much of the patient each slice stands for, by SpacingBetweenSlices or by the source's positions."""
    said, expected = pixel.get("SpacingBetweenSlices"), grid.slice_distance_mm
    if said is None and expected is None:
        gaps = np.diff(slices.positions_mm @ normal)
        return np.concatenate([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
    if said is None or expected is None or abs(float(said) - expected) > TOLERANCE_MM:
        raise VerificationFailed("SEG: SpacingBetweenSlices is not the distance of the source's slices.")
    return np.full(grid.shape[0], float(said))


def _check_segments(seg: Dataset, segments: tuple[SegmentDescription, ...]) -> dict[int, tuple[str, str]]:
    """Check that segment numbers mean what the findings mean; return their tracking."""
    if [int(item.SegmentNumber) for item in seg.SegmentSequence] != list(range(1, len(segments) + 1)):
        raise VerificationFailed("SEG: SegmentSequence does not have the segments of the findings.")
    tracking = {}
    for item, expected in zip(seg.SegmentSequence, segments, strict=True):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        modifiers = tuple(_code(x) for x in kind.get("SegmentedPropertyTypeModifierCodeSequence", ()))
        meaning = (_code(item.SegmentedPropertyCategoryCodeSequence[0]), _code(kind), modifiers)
        if meaning != (expected.category, expected.type, expected.type_modifiers):
            raise VerificationFailed(f"SEG: the codes of segment {item.SegmentNumber} are not the finding's.")
        tracking[int(item.SegmentNumber)] = (str(item.TrackingID), str(item.TrackingUID))
    if len({uid for _, uid in tracking.values()}) != len(tracking):
        raise VerificationFailed("SEG: two segments share a TrackingUID.")
    return tracking


def _code(item: Dataset) -> Code:
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    return Code(str(value), str(item.get("CodingSchemeDesignator")), str(item.get("CodeMeaning")))


def _decode(
    seg: Dataset, grid: Grid, slices: Slices, steps: FloatArray
) -> tuple[dict[int, LabelArray], dict[int, _Moments]]:
    """Return the labels of each slice that has any, and the moments of each segment that has voxels."""
    planes: dict[int, LabelArray] = {}
    moments: dict[int, _Moments] = defaultdict(_Moments)
    seen: set[tuple[int, int]] = set()
    for number, (group, mask) in enumerate(zip(seg.PerFrameFunctionalGroupsSequence, _frames(seg), strict=True), 1):
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        position = np.array([float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient])
        k = _slice_of(number, position, grid, slices)
        _check_source(number, group, (slices.sop_instance_uids[k], slices.frame_numbers[k]))
        if (segment, k) in seen:
            raise VerificationFailed(f"SEG: frame {number} repeats a segment on a slice.")
        seen.add((segment, k))
        plane = planes.setdefault(k, np.zeros(mask.shape, np.uint8))
        if np.logical_and(plane, mask).any():
            raise VerificationFailed(f"SEG: frame {number} overlaps another segment.")
        plane += mask.view(np.uint8) * np.uint8(segment)
        if mask.any():
            moments[segment].add(mask, k, position, steps, grid)
    return planes, {number: found for number, found in moments.items() if found.voxels}


def _frames(seg: Dataset) -> Iterator[BoolArray]:
    """Yield the frames, unpacked here: one bit a pixel, lowest first, without padding between frames."""
    if (seg.BitsAllocated, seg.SegmentationType) != (1, "BINARY"):
        raise VerificationFailed("SEG: it is not a binary segmentation.")
    data, pixels, count = np.frombuffer(seg.PixelData, np.uint8), seg.Rows * seg.Columns, int(seg.NumberOfFrames)
    if len(data) != (pixels * count + 15) // 16 * 2:
        raise VerificationFailed("SEG: PixelData does not have the bits of its frames.")
    for index in range(count):
        first, last = index * pixels // 8, -(-(index + 1) * pixels // 8)
        skip = index * pixels % 8
        bits = np.unpackbits(data[first:last], bitorder="little")[skip : skip + pixels]
        yield bits.reshape(seg.Rows, seg.Columns).view(np.bool_)


def _slice_of(number: int, position: FloatArray, grid: Grid, slices: Slices) -> int:
    """Return the slice of the source on which a frame lies by its position."""
    k = int(np.rint(grid.to_index(position)[0]))
    if not 0 <= k < grid.shape[0] or math.dist(position, grid.to_lps((k, 0, 0))) > _unevenness_mm(grid):
        raise VerificationFailed(f"SEG: frame {number} does not lie on a slice of the source.")
    if math.dist(position, slices.positions_mm[k]) > TOLERANCE_MM:
        raise VerificationFailed(f"SEG: frame {number} does not have the position of the source's slice.")
    return k


def _unevenness_mm(grid: Grid) -> float:
    """Return how far a slice may lie from its place on the grid, a small part of the distance to the next.

    Assembly takes slices that are a little off, along the normal and in the plane.
    """
    return 2 * tolerance_mm(float(np.diff(grid.along_mm).min()) if grid.shape[0] > 1 else grid.spacing_mm[0])


def image_named(reference: Dataset) -> tuple[str, int | None]:
    """Return the instance, and the frame where there is one, that a reference names (PS3.3 10.8)."""
    frame = reference.get("ReferencedFrameNumber")
    return str(reference.ReferencedSOPInstanceUID), None if frame is None else int(frame)


def _check_source(number: int, group: Dataset, expected: tuple[str, int | None]) -> None:
    named = [
        image_named(item) for derivation in group.DerivationImageSequence for item in derivation.SourceImageSequence
    ]
    if named != [expected]:
        raise VerificationFailed(f"SEG: frame {number} names another source image than the one at its position.")


def _check_voxels(decoded: dict[int, LabelArray], labels: LabelArray) -> None:
    wrong, slices = 0, 0
    for k, expected in enumerate(labels):
        plane = decoded.get(k)
        if plane is None:
            different = int(np.count_nonzero(expected)) if expected.any() else 0
        else:
            different = 0 if np.array_equal(plane, expected) else int(np.count_nonzero(plane != expected))
        wrong, slices = wrong + different, slices + bool(different)
    if wrong:
        raise VerificationFailed(f"SEG: {wrong} voxel(s) on {slices} slice(s) are not the engine's.")


def _check_places(moments: dict[int, _Moments], result: Result, *, voxel_ml: FloatArray) -> None:
    """Compare centroid and volume of each segment with those of its voxels on the grid of the findings.

    ``voxel_ml`` is the volume of a voxel of each slice, by the segmentation's own geometry.
    """
    grid = result.patient_grid
    expected_ml = grid.voxel_volumes_ml
    for number, found in moments.items():
        if math.dist(found.position / found.voxels, found.expected / found.voxels) > _unevenness_mm(grid):
            raise VerificationFailed(f"SEG: the centroid of segment {number} is not the engine's.")
        volume = sum(count * float(voxel_ml[k]) for k, count in found.on_slice.items())
        expected = sum(count * float(expected_ml[k]) for k, count in found.on_slice.items())
        if not math.isclose(volume, expected, rel_tol=1e-3):
            raise VerificationFailed(f"SEG: the volume of segment {number} is not the engine's.")
        if result.analysed is None:
            check_measured_volume(number, volume, result.findings, slack_ml=8 * float(voxel_ml.max()))


def check_measured_volume(number: int, volume_ml: float, findings: Findings, *, slack_ml: float) -> None:
    """Compare the volume that the engine measured, where it did, with the volume of its mask."""
    key = findings.segments[number - 1].key
    for measurement in findings.measurements:
        scale = _PER_ML.get(measurement.unit.value)
        if (measurement.segment, measurement.concept) != (key, _VOLUME) or scale is None:
            continue
        if abs(measurement.value * scale - volume_ml) > _MASK_VOLUME_TOLERANCE * volume_ml + slack_ml:
            raise VerificationFailed(f"The measured volume of segment {number} is not that of its mask.")


def _check_referenced_series(seg: Dataset, slices: Slices) -> None:
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in seg.ReferencedSeriesSequence
        if series.SeriesInstanceUID == slices.series_instance_uid
        for item in series.ReferencedInstanceSequence
    }
    if listed != set(slices.sop_instance_uids):
        raise VerificationFailed("SEG: ReferencedSeriesSequence does not list the source's instances.")
