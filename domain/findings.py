"""What an engine found."""

from __future__ import annotations

import math
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
    """One number about one segment, with its unit."""

    segment: str
    """Key of the segment."""
    concept: Code
    value: float
    unit: Code
    """UCUM."""
    derivation: Code | None = None
    """(121401, DCM, Derivation), e.g. Mean, Standard Deviation."""
    label: str = ""
    """For tables and logs, e.g. ``Volume``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A coded or textual statement about a segment, e.g. that it is incompletely imaged."""

    segment: str | None
    """Key of the segment; ``None`` for the whole series."""
    concept: Code
    value: Code | str


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
    """

    labels: npt.NDArray[np.uint8] | None
    segments: tuple[SegmentDescription, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    narrative: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        keys = {segment.key for segment in self.segments}
        if len(keys) != len(self.segments):
            raise ValueError("segment keys must differ")
        if self.labels is not None:
            _check_labels(self.labels, len(self.segments))
            self.labels.setflags(write=False)
        if not all(math.isfinite(m.value) for m in self.measurements):
            raise ValueError("a measurement is not a finite number")
        named = [m.segment for m in self.measurements] + [
            e.segment for e in self.evaluations if e.segment is not None
        ]
        for key in named:
            if key not in keys:
                raise ValueError(f"no segment called {key!r}")


def _check_labels(labels: npt.NDArray[np.uint8], segments: int) -> None:
    if labels.ndim != 3:
        raise ValueError(f"labels must have 3 axes, not {labels.ndim}")
    if labels.dtype != "uint8":
        raise ValueError(f"labels must be uint8, not {labels.dtype}")
    if labels.size and int(labels.max()) > segments:
        raise ValueError("a label has no segment")
