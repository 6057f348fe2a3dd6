"""The check of an encoded segmentation: every voxel, where it lies, and what it is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import SegmentDescription
from domain.ports import Result
from domain.volume import Grid

TOLERANCE_MM = 0.01
_VOLUME = Code("118565006", "SCT", "Volume")
_PER_ML = {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 1e-3, "l": 1e3, "L": 1e3}
_MASK_VOLUME_TOLERANCE = 0.01
"""An engine may measure on a finer or coarser model of the mask; a wrong unit or voxel size is far beyond this."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Slices(Protocol):
    """What the source files say; see ``verify.SourceSlices``."""

    @property
    def sop_instance_uids(self) -> tuple[str, ...]: ...
    @property
    def sop_class_uids(self) -> tuple[str, ...]: ...
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
    series_instance_uid: str = field(repr=False)
    tracking: dict[int, tuple[str, str]] = field(repr=False)
    """Tracking ID and UID by segment number."""
    masks: dict[int, dict[str, BoolArray]] = field(repr=False)
    """By segment number and source instance."""
    spacing_mm: tuple[float, float]


@dataclass(slots=True)
class _Sum:
    """Voxels of one segment and the sum of their positions."""

    voxels: int = 0
    position: FloatArray = field(default_factory=lambda: np.zeros(3))


def check_seg(seg: Dataset, result: Result, slices: Slices) -> CheckedSeg:
    """Compare a segmentation, read from its file, with the findings; return what a report may refer to."""
    grid, labels = result.grid, result.findings.labels
    if labels is None or labels.shape != grid.shape or len(slices.sop_instance_uids) != grid.shape[0]:
        raise VerificationFailed("Findings, grid and source do not have the same number of slices.")
    measures, axes = _check_geometry(seg, grid, slices)
    tracking = _check_segments(seg, result.findings.segments)
    decoded, masks = _decode(seg, grid, slices)
    _check_voxels(decoded, labels)
    _check_places(_sums(seg, masks, slices, axes), result, labels, voxel_ml=float(np.prod(measures)) / 1000)
    _check_referenced_series(seg, slices)
    return CheckedSeg(
        sop_instance_uid=str(seg.SOPInstanceUID),
        series_instance_uid=str(seg.SeriesInstanceUID),
        tracking=tracking,
        masks=masks,
        spacing_mm=(measures[1], measures[2]),
    )


def _check_geometry(seg: Dataset, grid: Grid, slices: Slices) -> tuple[tuple[float, float, float], FloatArray]:
    """Check frame of reference, matrix, spacing and orientation; return spacing and the in-plane steps.

    The steps have shape (2, 3): mm from one column to the next, and from one row to the next.
    """
    if not (seg.FrameOfReferenceUID == slices.frame_of_reference_uid == grid.frame_of_reference_uid):
        raise VerificationFailed("SEG: FrameOfReferenceUID is not the source's.")
    if (seg.Rows, seg.Columns) != grid.shape[1:]:
        raise VerificationFailed("SEG: Rows and Columns are not the source's.")
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixel = shared.PixelMeasuresSequence[0]
    row_mm, column_mm = (float(x) for x in pixel.PixelSpacing)
    slice_mm = float(pixel.SpacingBetweenSlices)
    cosines = np.array([float(x) for x in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    steps = np.stack([cosines[:3] * column_mm, cosines[3:] * row_mm])
    expected = grid.affine[:3, [2, 1]].T
    reach = np.abs(steps - expected).max(axis=1) * (grid.shape[2], grid.shape[1])
    if reach.max() > TOLERANCE_MM:
        raise VerificationFailed("SEG: PixelSpacing or ImageOrientationPatient is not the source's.")
    if abs(slice_mm - grid.spacing_mm[0]) > TOLERANCE_MM:
        raise VerificationFailed("SEG: SpacingBetweenSlices is not the distance of the source's slices.")
    return (slice_mm, row_mm, column_mm), steps


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
    seg: Dataset, grid: Grid, slices: Slices
) -> tuple[dict[int, npt.NDArray[np.uint8]], dict[int, dict[str, BoolArray]]]:
    """Return the labels of each slice that has any, and every frame's mask by segment and source instance."""
    decoded: dict[int, npt.NDArray[np.uint8]] = {}
    masks: dict[int, dict[str, BoolArray]] = defaultdict(dict)
    for number, (group, mask) in enumerate(zip(seg.PerFrameFunctionalGroupsSequence, _frames(seg), strict=True), 1):
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        k = _slice_of(number, group, grid, slices)
        uid = slices.sop_instance_uids[k]
        if uid in masks[segment]:
            raise VerificationFailed(f"SEG: frame {number} repeats a segment on a slice.")
        plane = decoded.setdefault(k, np.zeros(mask.shape, np.uint8))
        if (plane[mask] != 0).any():
            raise VerificationFailed(f"SEG: frame {number} overlaps another segment.")
        plane[mask] = segment
        masks[segment][uid] = mask
    return decoded, dict(masks)


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


def _slice_of(number: int, group: Dataset, grid: Grid, slices: Slices) -> int:
    """Return the slice on which a frame lies by its position; the source it names must be that slice's."""
    position = np.array([float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient])
    k = int(np.rint(grid.to_index(position)[0]))
    allowed = max(TOLERANCE_MM, 0.05 * grid.spacing_mm[0])  # assembly takes slices that are a little uneven
    if not 0 <= k < grid.shape[0] or np.linalg.norm(position - grid.to_lps((k, 0, 0))) > allowed:
        raise VerificationFailed(f"SEG: frame {number} does not lie on a slice of the source.")
    if np.linalg.norm(position - slices.positions_mm[k]) > TOLERANCE_MM:
        raise VerificationFailed(f"SEG: frame {number} does not have the position of the source's slice.")
    named = [
        str(item.ReferencedSOPInstanceUID)
        for derivation in group.DerivationImageSequence
        for item in derivation.SourceImageSequence
    ]
    if named != [slices.sop_instance_uids[k]]:
        raise VerificationFailed(f"SEG: frame {number} names another source instance than the one at its position.")
    return k


def _check_voxels(decoded: dict[int, npt.NDArray[np.uint8]], labels: npt.NDArray[np.uint8]) -> None:
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


def _sums(seg: Dataset, masks: dict[int, dict[str, BoolArray]], slices: Slices, steps: FloatArray) -> dict[int, _Sum]:
    """Add up the voxel positions of each segment by the segmentation's own geometry."""
    origin = {}
    for group in seg.PerFrameFunctionalGroupsSequence:
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        origin[uid] = np.array([float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient])
    sums: dict[int, _Sum] = defaultdict(_Sum)
    for number, planes in masks.items():
        for uid, mask in planes.items():
            per_row, per_column = mask.sum(axis=1), mask.sum(axis=0)
            count = int(per_row.sum())
            columns, rows = per_column @ np.arange(mask.shape[1]), per_row @ np.arange(mask.shape[0])
            sums[number].voxels += count
            sums[number].position += count * origin[uid] + columns * steps[0] + rows * steps[1]
    return sums


def _check_places(sums: dict[int, _Sum], result: Result, labels: npt.NDArray[np.uint8], *, voxel_ml: float) -> None:
    """Compare centroid and volume of each segment with those of the engine's mask on the engine's grid."""
    grid = result.grid
    allowed = max(TOLERANCE_MM, 0.05 * grid.spacing_mm[0])
    for number, total in sums.items():
        voxels, index = _moments(labels, number)
        if np.linalg.norm(total.position / total.voxels - grid.to_lps(index)) > allowed:
            raise VerificationFailed(f"SEG: the centroid of segment {number} is not the engine's.")
        volume = total.voxels * voxel_ml
        if abs(volume - voxels * grid.voxel_volume_ml) > 1e-3 * volume:
            raise VerificationFailed(f"SEG: the volume of segment {number} is not the engine's.")
        key = result.findings.segments[number - 1].key
        for measurement in result.findings.measurements:
            scale = _PER_ML.get(measurement.unit.value)
            if (measurement.segment, measurement.concept) != (key, _VOLUME) or scale is None:
                continue
            if abs(measurement.value * scale - volume) > _MASK_VOLUME_TOLERANCE * volume + 8 * voxel_ml:
                raise VerificationFailed(f"The measured volume of segment {number} is not that of its mask.")


def _moments(labels: npt.NDArray[np.uint8], number: int) -> tuple[int, FloatArray]:
    """Return the voxel count and the mean index of one label of the engine's output."""
    per_slice = np.zeros(labels.shape[0])
    sums = np.zeros(2)
    for k, plane in enumerate(labels):
        mask = plane == number
        rows = np.count_nonzero(mask, axis=1)
        per_slice[k] = rows.sum()
        if per_slice[k]:
            columns = np.count_nonzero(mask, axis=0)
            sums += (rows @ np.arange(mask.shape[0]), columns @ np.arange(mask.shape[1]))
    count = per_slice.sum()
    return int(count), np.array([per_slice @ np.arange(len(per_slice)), *sums]) / count


def _check_referenced_series(seg: Dataset, slices: Slices) -> None:
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in seg.ReferencedSeriesSequence
        if series.SeriesInstanceUID == slices.series_instance_uid
        for item in series.ReferencedInstanceSequence
    }
    if listed != set(slices.sop_instance_uids):
        raise VerificationFailed("SEG: ReferencedSeriesSequence does not list the source's instances.")
