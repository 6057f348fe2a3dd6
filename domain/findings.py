"""What an engine found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from domain.codes import Code

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDescription:
    """Coded meaning of one segment (PS3.3 C.8.20.4); part of an engine's manifest."""

    key: str
    """Stable name inside the engine, e.g. ``left_lung``; measurements refer to it."""
    label: str
    category: Code
    """CID 7150."""
    type: Code
    type_modifiers: tuple[Code, ...] = ()
    """Laterality of paired structures goes here."""
    anatomic_region: Code | None = None
    colour_rgb: tuple[int, int, int] = (200, 200, 200)
    """Recommended display colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its unit, about one segment or all."""

    segment: str | None
    """Key of the segment; ``None`` for the whole series."""
    concept: Code
    value: float
    unit: Code
    """UCUM."""
    derivation: Code | None = None
    """(121401, DCM, Derivation), e.g. Mean, Standard Deviation."""
    label: str = ""
    """For tables and logs, e.g. ``Volume``."""
    points: tuple[tuple[float, float, float], ...] = ()
    """Where it was taken, e.g. the ends of a diameter: indices ``(slice, row, column)`` of the grid, 0 at the
    *centre* of the first voxel, all on one slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A coded or textual statement about a segment, e.g. that it is incompletely imaged."""

    segment: str | None
    """Key of the segment; ``None`` for the whole series."""
    concept: Code
    value: Code | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Something found in an image, with a box around it."""

    key: str
    """Stable name inside the result, e.g. ``lesion 1``."""
    label: str
    category: Code
    """CID 7150."""
    type: Code
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1: columns and rows; 0 is the *corner* of the first pixel, as in SCOORD (PS3.3 C.18.6.1.2)."""
    image: int = 0
    """Which image of the case, from 0; in a volume or a cine the slice or frame, from 0."""
    probability: float | None = None
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """Everything an engine says about one case. Masks lie on the source grid.

    Attributes
    ----------
    labels
        uint8, shape ``(slices, rows, columns)`` of the source volume; 0 is background, ``n`` is
        ``segments[n - 1]``. ``None`` when the engine gives no masks.
    segments
        In segment-number order. A segment without a voxel is an answer ("nothing found").
    masks
        In place of ``labels`` where segments overlap: bool, one for each segment, each of the labels' shape.
    probabilities
        Beside ``labels`` or ``masks``, on demand: float32 from 0 to 1, one for each segment, of the same shape.
    narrative
        What a model wrote; its findings where it also gives an ``impression`` of its own.
    """

    labels: npt.NDArray[np.uint8] | None
    segments: tuple[SegmentDescription, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    narrative: str = field(default="", repr=False)
    impression: str = field(default="", repr=False)
    detections: tuple[Detection, ...] = ()
    masks: tuple[npt.NDArray[np.bool_], ...] = ()
    probabilities: tuple[npt.NDArray[np.float32], ...] = ()

    def __post_init__(self) -> None:
        keys = {segment.key for segment in self.segments}
        if len(keys) != len(self.segments):
            raise ValueError("segment keys must differ")
        if self.labels is not None:
            _check_labels(self.labels, len(self.segments))
            self.labels.setflags(write=False)
            if self.masks:
                raise ValueError("labels and masks exclude each other")
        for arrays in (self.masks, self.probabilities):
            _check_each(arrays, len(self.segments))
        if not all(math.isfinite(m.value) for m in self.measurements):
            raise ValueError("a measurement is not a finite number")
        for key in [item.segment for item in self.measurements] + [item.segment for item in self.evaluations]:
            if key is not None and key not in keys:
                raise ValueError(f"no segment called {key!r}")
        if len({detection.key for detection in self.detections}) != len(self.detections):
            raise ValueError("detection keys must differ")

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the masks; ``None`` where there are none."""
        if self.labels is not None:
            return self.labels.shape
        return self.masks[0].shape if self.masks else None


def _check_each(arrays: Sequence[npt.NDArray[np.generic]], segments: int) -> None:
    if arrays and (len(arrays) != segments or len({array.shape for array in arrays}) > 1):
        raise ValueError("one array of the same shape is needed for each segment")
    for array in arrays:
        array.setflags(write=False)


def _check_labels(labels: npt.NDArray[np.uint8], segments: int) -> None:
    if labels.ndim != 3:
        raise ValueError(f"labels must have 3 axes, not {labels.ndim}")
    if labels.dtype != "uint8":
        raise ValueError(f"labels must be uint8, not {labels.dtype}")
    if labels.size and int(labels.max()) > segments:
        raise ValueError("a label has no segment")
