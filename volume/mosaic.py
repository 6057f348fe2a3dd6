"""Takes the slices of a Siemens mosaic apart, where everything that says how they lie goes together.

A mosaic holds the slices of one volume as tiles of one image, row by row. Its ImagePositionPatient is that of a slice
as large as the whole image with the same centre: the first slice's corner lies half the difference of the two sizes
further in (https://nipy.org/nibabel/dicom/dicom_mosaic.html; dcm2niix and SPM do the same).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from domain.instance import Header, Mosaic, Tile
from domain.volume import FloatArray
from volume.geometry import normal_of
from volume.planes import ORIENTATION_TOLERANCE

WORD: Final = "MOSAIC"
"""Value of ImageType."""
_TOLERANCE_MM: Final = 0.01
"""By how much the protocol and the image may disagree: rounding of positions."""


class _Unproven(Exception):
    """A mosaic is not taken apart; the text is the cause, a whole sentence."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layout:
    """A proven division. Lengths in mm, LPS."""

    count: int
    across: int
    """Tiles in a row of the mosaic, and rows of tiles."""
    rows: int
    columns: int
    first_mm: FloatArray
    """Centre of the first pixel of the first tile."""
    step_mm: FloatArray
    """From tile to tile."""
    along_rows_mm: FloatArray
    """From one pixel to the next along a row."""
    along_columns_mm: FloatArray


def tiles_of(header: Header) -> tuple[Header, ...]:
    """Return one header for each slice of a mosaic, in the order of its tiles; none where that is not proven."""
    try:
        layout = _layout(header)
    except _Unproven:
        return ()
    return tuple(_tile(header, layout, k) for k in range(layout.count))


def cause(header: Header) -> str:
    """Return why a mosaic is not taken apart, as a sentence; empty where it is."""
    try:
        _layout(header)
    except _Unproven as error:
        return str(error)
    return ""


def _tile(header: Header, layout: _Layout, k: int) -> Header:
    x, y, z = (float(value) for value in layout.first_mm + k * layout.step_mm)
    tile = Tile(
        number=k + 1,
        row=k // layout.across * layout.rows,
        column=k % layout.across * layout.columns,
        rows=layout.rows,
        columns=layout.columns,
        image_rows=layout.rows * layout.across,
        image_columns=layout.columns * layout.across,
        count=layout.count,
    )
    return replace(
        header,
        mosaic=None,
        tile=tile,
        frame_number=k + 1,
        rows=layout.rows,
        columns=layout.columns,
        image_position_mm=(x, y, z),
    )


def _layout(header: Header) -> _Layout:
    said = header.mosaic
    if said is None and header.frame_number is not None:
        raise _Unproven("How the tiles lie in the frames of an enhanced image is not known.")
    if said is None or said.fault:
        why = "it was not kept when the image came" if said is None else said.fault
        raise _Unproven(f"The private CSA header that says how they lie cannot be used: {why}.")
    if not said.images:
        raise _Unproven("NumberOfImagesInMosaic in the private CSA header is missing.")
    across = math.isqrt(said.images - 1) + 1
    if not header.rows or not header.columns or header.rows % across or header.columns % across:
        raise _Unproven(f"Rows and Columns cannot be divided by {across}, as {said.images} images would need.")
    row, column, spacing = _in_plane(header)
    normal = normal_of(np.concatenate([row, column])) * _direction(row, column, said)
    rows, columns = header.rows // across, header.columns // across
    layout = _Layout(
        count=said.images,
        across=across,
        rows=rows,
        columns=columns,
        first_mm=np.asarray(header.image_position_mm)
        + row * spacing[1] * (header.columns - columns) / 2
        + column * spacing[0] * (header.rows - rows) / 2,
        step_mm=normal * _distance_mm(said, normal),
        along_rows_mm=row * spacing[1],
        along_columns_mm=column * spacing[0],
    )
    _check_plan(said, layout)
    return layout


def _in_plane(header: Header) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """Return the directions of rows and columns, and the pixel spacing."""
    position, orientation, spacing = header.image_position_mm, header.image_orientation, header.pixel_spacing_mm
    if position is None or orientation is None or spacing is None:
        raise _Unproven("ImagePositionPatient, ImageOrientationPatient or PixelSpacing is missing or unreadable.")
    if not all(map(math.isfinite, (*position, *orientation))) or not all(0 < x < math.inf for x in spacing):
        raise _Unproven("ImagePositionPatient, ImageOrientationPatient or PixelSpacing is no place.")
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    faults = (float(row @ row) - 1, float(column @ column) - 1, float(row @ column))
    if max(map(abs, faults)) > ORIENTATION_TOLERANCE:
        raise _Unproven("The two directions of ImageOrientationPatient are not perpendicular unit vectors.")
    return row, column, spacing


def _direction(row: FloatArray, column: FloatArray, said: Mosaic) -> float:
    """Return 1 where the slices ascend along ``row x column``, -1 where they descend."""
    if said.normal is None:
        raise _Unproven("SliceNormalVector in the private CSA header is missing, so their order is unknown.")
    if said.is_renumbered:
        raise _Unproven("The protocol numbers the images in another order than it plans the slices.")
    normal = np.cross(row, column)
    for sign in (1.0, -1.0):
        if np.abs(sign * normal - said.normal).max() <= ORIENTATION_TOLERANCE:
            return sign
    raise _Unproven("SliceNormalVector in the private CSA header is not the normal of ImageOrientationPatient.")


def _distance_mm(said: Mosaic, normal: FloatArray) -> float:
    """Return the distance between slices: SpacingBetweenSlices, or else as planned."""
    distance = said.spacing_mm
    if distance is None and len(said.planned_mm) > 1:
        first, last = np.asarray(said.planned_mm[0]), np.asarray(said.planned_mm[-1])
        distance = float((last - first) @ normal) / (len(said.planned_mm) - 1)
    if distance is None or not 0 < distance < math.inf:
        raise _Unproven("SpacingBetweenSlices is missing or not positive, and no protocol says where the slices lie.")
    return distance


def _check_plan(said: Mosaic, layout: _Layout) -> None:
    """Compare with the slices that the protocol plans, where it is there.

    How far the middle of an image is from the centre of the plan depends on the reconstruction: up to a pixel.
    """
    if not said.planned_mm:
        return
    if len(said.planned_mm) != layout.count:
        raise _Unproven("The protocol in the private CSA header plans another number of slices.")
    middle = layout.along_columns_mm * (layout.rows // 2) + layout.along_rows_mm * (layout.columns // 2)
    expected = layout.first_mm + np.arange(layout.count)[:, None] * layout.step_mm + middle
    off = np.asarray(said.planned_mm) - expected
    normal = layout.step_mm / np.linalg.norm(layout.step_mm)
    across_mm, down_mm = (float(np.linalg.norm(x)) for x in (layout.along_rows_mm, layout.along_columns_mm))
    is_aside = float(np.linalg.norm(off[0] - off[0] @ normal * normal)) > max(across_mm, down_mm)
    is_elsewhere = np.abs(off @ normal).max() > _TOLERANCE_MM
    is_uneven = np.linalg.norm(off - off[0], axis=1).max() > _TOLERANCE_MM
    if is_aside or is_elsewhere or is_uneven:
        raise _Unproven(
            "The slices that the protocol in the private CSA header plans lie elsewhere than ImagePositionPatient, "
            "SliceNormalVector and SpacingBetweenSlices say."
        )
    _check_extent(said, (layout.columns * across_mm, layout.rows * down_mm), max(across_mm, down_mm))


def _check_extent(said: Mosaic, tile_mm: tuple[float, float], pixel_mm: float) -> None:
    """Compare the size of a tile with the field of view; phase may run along rows or columns."""
    extent = said.planned_extent_mm
    if extent is None:
        return
    if all(
        max(abs(a - b) for a, b in zip(extent, size, strict=True)) > pixel_mm for size in (tile_mm, tile_mm[::-1])
    ):
        raise _Unproven("The field of view of the protocol in the private CSA header is not the size of a tile.")
