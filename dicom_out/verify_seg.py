"""The check of an encoded segmentation: every voxel, where it lies, and what it is called."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_out.verify_frames import Comparison, frames_in
from dicom_out.verify_groups import FrameFacts, Image, frame_facts
from dicom_out.verify_items import children_of, sequence_in, text_of, value_of
from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import Findings, SegmentDescription
from domain.image import Raster
from domain.ports import Result
from domain.volume import Grid
from volume.spacing import tolerance_mm

TOLERANCE_MM = 0.01
_VOLUME = Code("118565006", "SCT", "Volume")
_PLACING = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence")
_CLAIMED = "SEG: it claims a place in the patient that its source does not have."
_REFERENCED_SERIES, _SERIES, _INSTANCES, _INSTANCE = 0x00081115, 0x0020000E, 0x0008114A, 0x00081155
_PER_ML = {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 1e-3, "l": 1e3, "L": 1e3}
_MASK_VOLUME_TOLERANCE = 0.01
"""An engine may measure on a finer or coarser model of the mask; a wrong unit or voxel size is far beyond this."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Slices(Protocol):
    """The slices on which something lies, and the images behind them; see ``verify.SourceSlices``."""

    @property
    def count(self) -> int: ...
    @property
    def series_instance_uid(self) -> str: ...
    @property
    def frame_of_reference_uid(self) -> str: ...
    @property
    def positions_mm(self) -> FloatArray: ...
    def instances(self, count: int) -> Set[str]:
        """Return the SOP Instance UIDs behind the first ``count`` slices."""
        ...

    def accounts_for(self, k: int, images: tuple[Image, ...], *, is_resampled: bool) -> bool:
        """Tell whether slice ``k`` was made from these images, and from their pixels where they are."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedSeg:
    """What the report may refer to. Numbers are those of the findings' segments."""

    segments: dict[int, tuple[str, int]] = field(repr=False)
    """Where each segment is: SOP Instance UID and Segment Number."""
    tracking: dict[int, tuple[str, str]] = field(repr=False)
    """Tracking ID and UID of each segment."""
    frames: dict[tuple[str, int], tuple[int, int]] = field(repr=False, default_factory=dict)
    """Slice, from 0, and segment (0: all) of each frame, from 1, of each instance."""

    @property
    def sop_instance_uids(self) -> frozenset[str]:
        """The instances."""
        return frozenset(uid for uid, _ in self.segments.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Place:
    """Where the frames of one segmentation lie, by its own geometry."""

    reach_mm: FloatArray
    """How far each slice reaches along the normal."""
    row_mm: float
    column_mm: float

    @property
    def voxel_ml(self) -> FloatArray:
        """Volume of a voxel of each slice."""
        volume: FloatArray = self.reach_mm * self.row_mm * self.column_mm / 1000
        return volume


def check_seg(
    seg: Dataset | Sequence[Dataset], result: Result, slices: Slices, voxels: Mapping[tuple[int, int], int]
) -> CheckedSeg:
    """Compare a segmentation, read from its file or files, with the findings; return what a report may refer to.

    ``voxels`` are those of the findings, as ``verify_frames.voxel_counts`` returns them.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    parts = [seg] if isinstance(seg, Dataset) else list(seg)
    findings, shape = result.findings, result.grid.shape
    for arrays in (findings.masks, findings.probabilities, () if findings.labels is None else (findings.labels,)):
        if arrays and (arrays[0].shape != shape or slices.count < shape[0]):
            raise VerificationFailed("Findings, grid and source do not have the same number of slices.")
    tracking, segments = _check_segments(parts, findings.segments)
    fractional = any(part.SegmentationType == "FRACTIONAL" for part in parts)
    comparison = Comparison(findings, voxels, fractional=fractional)
    place: _Place | None = None
    frames: dict[tuple[str, int], tuple[int, int]] = {}
    for part, described in zip(parts, _numbers_in(parts), strict=True):
        if isinstance(result.grid, Raster):
            _check_picture(part, result.grid)
        else:
            place = check_geometry(part, result.grid, slices)
        lie = _compare(part, described, comparison, result.grid, slices)
        frames |= {(str(part.SOPInstanceUID), number): lies for number, lies in enumerate(lie, start=1)}
        check_referenced_series(part, slices, shape[0])
    comparison.finish()
    if place is not None:
        _check_volumes(voxels, result, place)
    return CheckedSeg(
        segments=segments,
        tracking=tracking,
        frames=frames,
    )


def _check_picture(seg: Dataset, raster: Raster) -> None:
    """Without patient coordinates there is nothing but the same rows and columns (PS3.3 A.51.5.1)."""
    if (seg.Rows, seg.Columns) != raster.shape[1:]:
        raise VerificationFailed("SEG: Rows and Columns are not the source's.")
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "FrameOfReferenceUID" in seg or any(keyword in shared for keyword in _PLACING):
        raise VerificationFailed(_CLAIMED)


def check_geometry(seg: Dataset, grid: Grid, slices: Slices, *, what: str = "SEG") -> _Place:
    """Check frame of reference, matrix, spacing and orientation.

    The steps from column to column and from row to row may be off by so little that the last pixel of a frame is
    within the tolerance; with the position of each frame that bounds where every voxel lies.
    """
    if not (seg.FrameOfReferenceUID == slices.frame_of_reference_uid == grid.frame_of_reference_uid):
        raise VerificationFailed(f"{what}: FrameOfReferenceUID is not the source's.")
    if (seg.Rows, seg.Columns) != grid.shape[1:]:
        raise VerificationFailed(f"{what}: Rows and Columns are not the source's.")
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixel = shared.PixelMeasuresSequence[0]
    row_mm, column_mm = (float(x) for x in pixel.PixelSpacing)
    cosines = np.array([float(x) for x in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    steps = np.stack([cosines[:3] * column_mm, cosines[3:] * row_mm])
    expected = grid.affine[:3, [2, 1]].T
    reach = np.abs(steps - expected).max(axis=1) * (grid.shape[2], grid.shape[1])
    if reach.max() > TOLERANCE_MM:
        raise VerificationFailed(f"{what}: PixelSpacing or ImageOrientationPatient is not the source's.")
    reach_mm = _reach_mm(pixel, np.cross(cosines[:3], cosines[3:]), grid, slices, what)
    return _Place(reach_mm=reach_mm, row_mm=row_mm, column_mm=column_mm)


def _reach_mm(pixel: Dataset, normal: FloatArray, grid: Grid, slices: Slices, what: str) -> FloatArray:
    """Return how much of the patient each slice stands for, by SpacingBetweenSlices or by the source's positions."""
    said, expected = pixel.get("SpacingBetweenSlices"), grid.slice_distance_mm
    if said is None and expected is None:
        gaps = np.diff(slices.positions_mm @ normal)
        return np.concatenate([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
    if said is None or expected is None or abs(float(said) - expected) > TOLERANCE_MM:
        raise VerificationFailed(f"{what}: SpacingBetweenSlices is not the distance of the source's slices.")
    return np.full(grid.shape[0], float(said))


def _numbers_in(parts: Sequence[Dataset]) -> list[list[int]]:
    """Return the findings' numbers of the segments that each instance describes, in order, without background."""
    numbers, first = [], 1
    for part in parts:
        count = sum(int(item.SegmentNumber) != 0 for item in part.SegmentSequence)
        numbers.append(list(range(first, first + count)))
        first += count
    return numbers


def _check_segments(
    parts: Sequence[Dataset], segments: tuple[SegmentDescription, ...]
) -> tuple[dict[int, tuple[str, str]], dict[int, tuple[str, int]]]:
    """Check that segment numbers mean what the findings mean; return tracking and place of each segment."""
    tracking, places = {}, {}
    items = [(part, item) for part in parts for item in part.SegmentSequence if int(item.SegmentNumber) != 0]
    for part in parts:
        own = [int(item.SegmentNumber) for item in part.SegmentSequence]
        background = [0] if part.SegmentationType == "LABELMAP" else []
        if own != [*range(1, len(own) + 1 - len(background)), *background]:
            raise VerificationFailed("SEG: SegmentSequence does not number its segments one after the other.")
    if len(items) != len(segments):
        raise VerificationFailed("SEG: SegmentSequence does not have the segments of the findings.")
    for number, ((part, item), expected) in enumerate(zip(items, segments, strict=True), start=1):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        modifiers = tuple(_code(x) for x in kind.get("SegmentedPropertyTypeModifierCodeSequence", ()))
        meaning = (_code(item.SegmentedPropertyCategoryCodeSequence[0]), _code(kind), modifiers)
        if meaning != (expected.category, expected.type, expected.type_modifiers):
            raise VerificationFailed(f"SEG: the codes of segment {number} are not the finding's.")
        tracking[number] = (str(item.TrackingID), str(item.TrackingUID))
        places[number] = (str(part.SOPInstanceUID), int(item.SegmentNumber))
    if len({uid for _, uid in tracking.values()}) != len(tracking):
        raise VerificationFailed("SEG: two segments share a TrackingUID.")
    return tracking, places


def _code(item: Dataset) -> Code:
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    return Code(str(value), str(item.get("CodingSchemeDesignator")), str(item.get("CodeMeaning")))


def _compare(
    seg: Dataset, described: list[int], comparison: Comparison, grid: Grid | Raster, slices: Slices
) -> list[tuple[int, int]]:
    """Compare every frame of an instance with the findings on its slice; return slice and segment (0: all)."""
    lie: list[tuple[int, int]] = []
    kind = str(seg.SegmentationType)
    numbers = np.array([0, *described])
    frames = list(frame_facts(seg))
    if isinstance(grid, Raster) and any(facts.is_placed for facts in frames):
        raise VerificationFailed(_CLAIMED)
    places = slices_of(frames, grid, slices)
    for facts, k, (first, frame) in zip(frames, places, frames_in(seg), strict=True):
        if kind == "LABELMAP":
            lie.append((k, 0))
            comparison.labels(numbers, k, frame)
            continue
        segment = described[(facts.segment or 0) - 1]
        lie.append((k, segment))
        if kind == "FRACTIONAL":
            comparison.fractions(segment, k, frame)
        else:
            comparison.mask(segment, k, first, frame)
    return lie


def slices_of(frames: Sequence[FrameFacts], grid: Grid | Raster, slices: Slices, *, what: str = "SEG") -> list[int]:
    """Return the slice of the source on which each frame lies, by position, or without coordinates by its source."""
    places: dict[tuple[object, ...], int] = {}
    for number, facts in enumerate(frames, 1):
        places.setdefault(_place(facts), number)
    numbers = list(places.values())
    if isinstance(grid, Raster):
        found = [_slice_shown(number, frames[number - 1], grid, slices, what) for number in numbers]
    else:
        found = _slices_at(numbers, frames, grid, slices, what)
    for number, k in zip(numbers, found, strict=True):
        if k < 0 or not _shows(frames[number - 1], k, slices):
            raise VerificationFailed(
                f"{what}: frame {number} names another source image than the one at its position."
            )
    lies = dict(zip(places, found, strict=True))
    return [lies[_place(facts)] for facts in frames]


def _place(facts: FrameFacts) -> tuple[object, ...]:
    """Return what frames on the same slice have in common."""
    return facts.images, facts.is_resampled, facts.position, facts.time


def _slice_shown(number: int, facts: FrameFacts, raster: Raster, slices: Slices, what: str) -> int:
    """Return the frame of the source that a frame names, -1 where there is none."""
    k = next((k for k in range(raster.shape[0]) if _shows(facts, k, slices)), -1)
    if k >= 0 and raster.shape[0] > 1 and facts.time != k + 1:
        raise VerificationFailed(f"{what}: frame {number} has another time than its source image.")
    return k


def _shows(facts: FrameFacts, k: int, slices: Slices) -> bool:
    return slices.accounts_for(k, facts.images, is_resampled=facts.is_resampled)


def _slices_at(
    numbers: Sequence[int], frames: Sequence[FrameFacts], grid: Grid, slices: Slices, what: str
) -> list[int]:
    """Return the slices of the grid, and of the source, that have the positions of these frames, counted from 1."""
    given = [frames[number - 1].position or () for number in numbers]
    positions = np.array([place if len(place) == 3 else [math.nan] * 3 for place in given]).reshape(-1, 3)
    along = np.rint(grid.to_index(positions)[:, 0])
    is_inside = (along >= 0) & (along < grid.shape[0])
    k = np.where(is_inside, along, 0).astype(int)
    on_grid = grid.to_lps(np.stack([k, 0 * k, 0 * k], axis=-1))
    is_on = is_inside & (np.linalg.norm(positions - on_grid, axis=1) <= _unevenness_mm(grid))
    for number in np.array(numbers)[~is_on][:1]:
        raise VerificationFailed(f"{what}: frame {number} does not lie on a slice of the source.")
    is_at = np.linalg.norm(positions - slices.positions_mm[k], axis=1) <= TOLERANCE_MM
    for number in np.array(numbers)[~is_at][:1]:
        raise VerificationFailed(f"{what}: frame {number} does not have the position of the source's slice.")
    found: list[int] = k.tolist()
    return found


def _unevenness_mm(grid: Grid) -> float:
    """Return how far a slice may lie from its place on the grid, a small part of the distance to the next.

    Assembly takes slices that are a little off, along the normal and in the plane.
    """
    return 2 * tolerance_mm(float(np.diff(grid.along_mm).min()) if grid.shape[0] > 1 else grid.spacing_mm[0])


def _check_volumes(voxels: Mapping[tuple[int, int], int], result: Result, place: _Place) -> None:
    """Compare the volume of each segment, by the segmentation's own geometry, with that on the findings' grid."""
    own_ml, expected_ml = place.voxel_ml, result.patient_grid.voxel_volumes_ml
    by_segment: dict[int, dict[int, int]] = {}
    for (number, k), count in voxels.items():
        by_segment.setdefault(number, {})[k] = count
    for number, counts in by_segment.items():
        volume = sum(count * float(own_ml[k]) for k, count in counts.items())
        if not math.isclose(volume, sum(c * float(expected_ml[k]) for k, c in counts.items()), rel_tol=1e-3):
            raise VerificationFailed(f"SEG: the volume of segment {number} is not the engine's.")
        if result.analysed is None:
            check_measured_volume(number, volume, result.findings, slack_ml=8 * float(own_ml.max()))


def check_measured_volume(number: int, volume_ml: float, findings: Findings, *, slack_ml: float) -> None:
    """Compare the volume that the engine measured, where it did, with the volume of its mask."""
    key = findings.segments[number - 1].key
    for measurement in findings.measurements:
        scale = _PER_ML.get(measurement.unit.value)
        if (measurement.segment, measurement.concept) != (key, _VOLUME) or scale is None:
            continue
        if abs(measurement.value * scale - volume_ml) > _MASK_VOLUME_TOLERANCE * volume_ml + slack_ml:
            raise VerificationFailed(f"The measured volume of segment {number} is not that of its mask.")


def check_referenced_series(seg: Dataset, slices: Slices, images: int, *, what: str = "SEG") -> None:
    """Common Instance Reference Module names the images of the findings, no more and no less (PS3.3 C.12.2)."""
    listed = {
        text_of(item[_INSTANCE])
        for series in children_of(sequence_in(seg, _REFERENCED_SERIES))
        if text_of(series[_SERIES]) == slices.series_instance_uid
        for item in children_of(value_of(series[_INSTANCES]))
    }
    if listed != slices.instances(images):
        raise VerificationFailed(f"{what}: ReferencedSeriesSequence does not list the source's instances.")
