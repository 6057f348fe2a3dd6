"""Geometry in words that a radiographer uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domain.image import Raster
from domain.volume import FloatArray, Grid

_PLANES = ("sagittal", "coronal", "axial")
_TOWARDS = (("right", "left"), ("front", "back"), ("feet", "head"))
"""Along -x and +x, -y and +y, -z and +z of LPS (PS3.3 C.7.6.2.1.1)."""
_STRAIGHT_DEG = 0.5


def orientation_in_words(grid: Grid) -> str:
    """Return e.g. ``axial, feet to head`` or ``coronal tilted 12 degrees, front to back``: plane and slice order."""
    normal = np.cross(grid.affine[:3, 2], grid.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    axis = int(np.abs(normal).argmax())
    degrees = float(np.degrees(np.arccos(min(1.0, abs(float(normal[axis]))))))
    tilt = f" tilted {degrees:.0f} degrees" if degrees >= _STRAIGHT_DEG else ""
    return f"{_PLANES[axis]}{tilt}, {_direction(grid.affine[:3, 0])}"


def size_in_words(grid: Grid) -> str:
    """Return columns, rows and slices with the distances between them in mm."""
    slices, rows, columns = grid.shape
    slice_mm, row_mm, column_mm = grid.spacing_mm
    return f"{columns} x {rows} x {slices}, {column_mm:.4g} x {row_mm:.4g} x {slice_mm:.4g} mm"


def raster_in_words(raster: Raster) -> str:
    """Return columns and rows, frames, and, where known, the distances in mm with the attribute that says so."""
    frames, rows, columns = raster.shape
    size = f"{columns} x {rows} pixels" + (f", {frames} frames" if frames > 1 else "")
    if raster.spacing_mm is None:
        return size
    row_mm, column_mm = raster.spacing_mm
    at_detector = ", at the detector" if raster.spacing_origin == "ImagerPixelSpacing" else ""
    return f"{size}, {column_mm:.4g} x {row_mm:.4g} mm ({raster.spacing_origin}{at_detector})"


def stacks_in_words(names: Sequence[str]) -> str:
    """Return one name for many stacks, from the first to the last of them.

    ``300 stacks, axial, acquisition 1 to acquisition 300``: what the ends have in common is said once.
    """
    first, last = names[0].split(", "), names[-1].split(", ")
    same = next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return f"{len(names)} stacks, {names[0]} to {', '.join(last[same:])}"


def _direction(step: FloatArray) -> str:
    axis = int(np.abs(step).argmax())
    start, end = _TOWARDS[axis] if step[axis] > 0 else reversed(_TOWARDS[axis])
    return f"{start} to {end}"
