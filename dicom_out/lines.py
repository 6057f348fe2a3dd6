"""What is drawn of a segment on a source image: where the engine measured, else the segment's long axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_out.codes import LONG_AXIS
from dicom_out.masks import Masks
from dicom_out.source import Source, SourceImage
from domain.codes import MILLIMETRE
from domain.findings import Measurement
from domain.image import Raster
from domain.ports import Result
from volume.diameters import long_axis

Point = tuple[float, float]
"""Column and row; 0 is the corner of the first pixel (PS3.3 C.18.6.1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line on one source image, and what it measures."""

    points: tuple[Point, ...]
    image: SourceImage
    slice_index: int
    measured: Measurement | None
    """``None`` where the image has no scale: then the line is the rectangle around the segment."""


def lines_of(
    result: Result, source: Source, masks: Masks | None, fullest: Mapping[int, int]
) -> dict[int, tuple[Line, ...]]:
    """Return the lines of each segment that has any, by segment number.

    Parameters
    ----------
    fullest
        Slice where each segment that has voxels covers most pixels.
    """
    lines = {}
    for number, segment in enumerate(result.findings.segments, start=1):
        drawn = drawn_lines(result, source, segment.key)
        if not drawn and masks is not None and number in fullest:
            drawn = (_shown(result, source, masks, number, fullest[number]),)
        if drawn:
            lines[number] = drawn
    return lines


def drawn_lines(result: Result, source: Source, segment: str | None) -> tuple[Line, ...]:
    """Return the lines along which the engine measured a segment, or (``None``) the whole series."""
    return tuple(
        _drawn(measurement, source)
        for measurement in result.findings.measurements
        if measurement.segment == segment and measurement.points
    )


def _drawn(measurement: Measurement, source: Source) -> Line:
    k = round(measurement.points[0][0])
    points = tuple((column + 0.5, row + 0.5) for _, row, column in measurement.points)  # from centres to corners
    return Line(points=points, image=source.images[k], slice_index=k, measured=measurement)


def _shown(result: Result, source: Source, masks: Masks, number: int, k: int) -> Line:
    """Return the long axis of a segment on a slice, or the rectangle around it where there is no scale."""
    mask, scale = masks.mask(number, k), scale_mm(result)
    if scale is None:
        return Line(points=_rectangle(mask), image=source.images[k], slice_index=k, measured=None)
    axis = long_axis(mask, scale)
    key = result.findings.segments[number - 1].key
    length = Measurement(segment=key, concept=LONG_AXIS, value=axis.length_mm, unit=MILLIMETRE)
    return Line(points=axis.ends, image=source.images[k], slice_index=k, measured=length)


def scale_mm(result: Result) -> tuple[float, float] | None:
    """Return mm between rows, then columns, in the patient.

    ``None`` where nothing says it: at the detector of a projection the patient is magnified.
    """
    grid = result.grid
    if not isinstance(grid, Raster):
        return grid.spacing_mm[1], grid.spacing_mm[2]
    return None if grid.spacing_origin == "ImagerPixelSpacing" else grid.spacing_mm


def _rectangle(mask: npt.NDArray[np.bool_]) -> tuple[Point, ...]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rectangle(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def rectangle(x0: float, y0: float, x1: float, y1: float) -> tuple[Point, ...]:
    """Return the closed line around a box."""
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)
