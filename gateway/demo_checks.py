"""Reads SEG and SR files again, knowing nothing of how they were written, and compares them with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from domain.errors import VerificationFailed
from domain.volume import Grid

VOLUME = ("118565006", "SCT")
TRACKING_UID = ("112040", "DCM")
TOLERANCE = 0.05
"""Of the true volume: the phantom's truth is counted before blur and noise."""

OFF_GRID = 0.05
"""Of a voxel; positions are written as decimal strings of 16 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCheck:
    """One segment as the two objects tell it."""

    label: str
    seg_ml: float
    """Counted in the SEG."""
    sr_ml: float | None
    """Stated in the SR; ``None`` where it states none."""
    truth_ml: float | None = None

    @property
    def difference(self) -> float | None:
        """Relative to the truth."""
        return None if self.truth_ml is None else self.seg_ml / self.truth_ml - 1

    @property
    def holds(self) -> bool:
        """Both objects say the same, and it is true where the truth is known."""
        agree = self.sr_ml is None or abs(self.sr_ml - self.seg_ml) <= 0.001 * max(self.seg_ml, 1.0)
        return agree and (self.difference is None or abs(self.difference) <= TOLERANCE)


def check_objects(seg: Path, sr: Path, truth_ml: Mapping[str, float] | None = None) -> list[SegmentCheck]:
    """Decode both objects; return what they say about each segment. ``truth_ml`` goes by segment label."""
    encoded, stated = pydicom.dcmread(seg), sr_volumes_ml(pydicom.dcmread(sr))
    counted = seg_volumes_ml(encoded)
    return [
        SegmentCheck(
            label=str(segment.SegmentLabel),
            seg_ml=counted[int(segment.SegmentNumber)],
            sr_ml=stated.get(str(segment.TrackingUID)),
            truth_ml=(truth_ml or {}).get(str(segment.SegmentLabel)),
        )
        for segment in encoded.SegmentSequence
    ]


def seg_volumes_ml(seg: Dataset) -> dict[int, float]:
    """Return the volume of each segment by its number, counted in the frames (PS3.3 C.8.20)."""
    volumes = {int(segment.SegmentNumber): 0.0 for segment in seg.SegmentSequence}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(_frames(seg), seg.PerFrameFunctionalGroupsSequence, strict=True):
        measures = (groups if "PixelMeasuresSequence" in groups else shared).PixelMeasuresSequence[0]
        between_mm = float(measures.get("SpacingBetweenSlices", measures.SliceThickness))
        voxel_ml = float(measures.PixelSpacing[0]) * float(measures.PixelSpacing[1]) * between_mm / 1000
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        volumes[number] += np.count_nonzero(frame) * voxel_ml
    return volumes


def sr_volumes_ml(sr: Dataset) -> dict[str, float]:
    """Return the volumes that the measurement groups state, by Tracking Unique Identifier (PS3.16 TID 1411)."""
    found: dict[str, float] = {}
    for group in _containers(sr):
        items = list(group.get("ContentSequence", ()))
        tracked = [str(item.UID) for item in items if _concept(item) == TRACKING_UID]
        volumes = [item for item in items if _concept(item) == VOLUME and item.get("MeasuredValueSequence")]
        if tracked and volumes:
            found[tracked[0]] = float(volumes[0].MeasuredValueSequence[0].NumericValue)
    return found


def labels_on(grid: Grid, seg: Dataset) -> npt.NDArray[np.uint8]:
    """Return segment numbers on ``grid``, each frame laid where its own position says.

    Raises
    ------
    VerificationFailed
        A frame does not begin at the corner of a slice of the grid.
    """
    labels = np.zeros(grid.shape, np.uint8)
    for frame, groups in zip(_frames(seg), seg.PerFrameFunctionalGroupsSequence, strict=True):
        corner = grid.to_index([float(x) for x in groups.PlanePositionSequence[0].ImagePositionPatient])
        k = int(np.rint(corner[0]))
        if np.abs(corner - (k, 0, 0)).max() > OFF_GRID or not 0 <= k < grid.shape[0]:
            raise VerificationFailed("A frame of the SEG is not on a slice of the source.")
        labels[k][frame != 0] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return labels


def _frames(seg: Dataset) -> npt.NDArray[np.uint8]:
    """Return the frames; shape ``(frames, rows, columns)``, also for one frame."""
    frames: npt.NDArray[np.uint8] = pixel_array(seg).reshape(-1, int(seg.Rows), int(seg.Columns))
    return frames


def _containers(item: Dataset) -> list[Dataset]:
    inner = [found for child in item.get("ContentSequence", ()) for found in _containers(child)]
    return [item, *inner] if item.get("ValueType") == "CONTAINER" else inner


def _concept(item: Dataset) -> tuple[str, str]:
    names = item.get("ConceptNameCodeSequence")
    return (str(names[0].CodeValue), str(names[0].CodingSchemeDesignator)) if names else ("", "")
