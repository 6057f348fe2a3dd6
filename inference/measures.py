"""What engines measure in a segment, with the codes for it (PS3.16 CID 218, 7469, 7470)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from domain.codes import MILLILITRE, MILLIMETRE, Code
from domain.findings import Measurement
from domain.volume import Grid
from volume.diameters import LongAxis, long_axis, short_axis

VOLUME = Code("118565006", "SCT", "Volume")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
AREA = Code("42798000", "SCT", "Area")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
PIXELS = Code("{pixels}", "UCUM", "pixels")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MINIMUM = Code("255605001", "SCT", "Minimum")
MAXIMUM = Code("56851009", "SCT", "Maximum")

Mask = npt.NDArray[np.bool_]


def volume_ml(segment: str, voxels: int, grid: Grid) -> Measurement:
    """Return the volume of so many voxels."""
    return Measurement(
        segment=segment, concept=VOLUME, value=voxels * grid.voxel_volume_ml, unit=MILLILITRE, label="Volume"
    )


def intensities(segment: str, values: npt.NDArray[np.floating], concept: Code, unit: Code) -> Iterator[Measurement]:
    """Yield mean, standard deviation, minimum and maximum of the values inside a segment; at least one is needed."""
    exact = values.astype(np.float64, copy=False)
    for derivation, value, label in (
        (MEAN, exact.mean(), "Mean"),
        (STANDARD_DEVIATION, exact.std(), "Standard deviation"),
        (MINIMUM, exact.min(), "Minimum"),
        (MAXIMUM, exact.max(), "Maximum"),
    ):
        yield Measurement(
            segment=segment, concept=concept, value=float(value), unit=unit, derivation=derivation, label=label
        )


def diameters(segment: str, mask: Mask, spacing_mm: tuple[float, float]) -> Iterator[Measurement]:
    """Yield the longest diameter within a slice, and the longest at right angles to it on the same slice.

    Nothing of an empty mask. Of equally long ones the first slice has it.

    Parameters
    ----------
    mask
        Shape ``(slices, rows, columns)``.
    spacing_mm
        Between rows, then between columns.
    """
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return
    axes = {int(k): long_axis(mask[k], spacing_mm) for k in slices}
    k = max(axes, key=lambda index: (round(axes[index].length_mm, 6), -index))
    yield _line(segment, k, axes[k], LONG_AXIS, "Longest diameter")
    yield _line(segment, k, short_axis(mask[k], spacing_mm, axes[k]), SHORT_AXIS, "Perpendicular diameter")


def _line(segment: str, k: int, axis: LongAxis, concept: Code, label: str) -> Measurement:
    # Measurement.points count from the centre of the first voxel, a LongAxis from its corner
    points = tuple((float(k), y - 0.5, x - 0.5) for x, y in axis.ends)
    return Measurement(
        segment=segment, concept=concept, value=axis.length_mm, unit=MILLIMETRE, label=label, points=points
    )
