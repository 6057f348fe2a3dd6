"""From a drawing to a prompt on the grid of the images that it is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from domain.errors import DrawingRefused
from domain.instance import Header
from domain.prompt import Box, LongAxis, ObjectPrompt, Point, Position, Prompt, SliceMask
from domain.volume import FloatArray, Grid
from volume.drawings.filling import filled, filled_ellipse, is_rectangle, joined
from volume.drawings.sketch import Kind, Mask, Plane, Shape, Sketch, SketchedObject
from volume.planes import ORIENTATION_TOLERANCE

_HALF_SLICE = 0.5 + 1e-3
_AREAS = (Kind.OUTLINE, Kind.CIRCLE, Kind.ELLIPSE)

Contours = Literal["traced", "box", "mask"]
"""What closed shapes become. ``traced``: a contour that somebody traced, that is any polygon but a rectangle along
rows and columns, the mask of its pixels; circles and ellipses, which are put around things, the box. ``box``: all the
box. ``mask``: circles and ellipses a mask too."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slices:
    """A stack that drawings are placed on: its images in slice order, and their grid."""

    headers: tuple[Header, ...] = field(repr=False)
    grid: Grid
    _index: Mapping[tuple[str, int | None], int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # What names a mosaic counts its pixels from the corner of the mosaic, not of a slice
        index = {(h.sop_instance_uid, h.frame_number): k for k, h in enumerate(self.headers) if h.tile is None}
        object.__setattr__(self, "_index", index)

    def slice_of(self, sop_instance_uid: str, frame: int | None) -> int | None:
        """Return which slice an image is; a single-frame image may be called its frame 1."""
        exact = self._index.get((sop_instance_uid, frame))
        return exact if exact is not None or frame != 1 else self._index.get((sop_instance_uid, None))


def is_on(item: SketchedObject, sketch: Sketch, slices: Slices) -> bool:
    """Tell whether any part of an object was drawn on these images, or in their frame of reference."""
    images = [shape.image for shape in item.shapes] if item.mask is None else [item.mask.image]
    in_patient = slices.grid.frame_of_reference_uid in sketch.frames_of_reference
    return any(
        in_patient if image is None else slices.slice_of(image.sop_instance_uid, image.frame) is not None
        for image in images
    )


def prompt_on(
    sketch: Sketch, objects: Sequence[SketchedObject], slices: Slices, contours: Contours = "traced"
) -> Prompt:
    """Return the prompt that ``objects`` of a sketch make on a stack, in voxels.

    Of an object with closed shapes on several slices the slice with the largest area becomes the key slice, and its
    shapes there become a mask or the box that encloses them (``Contours``). Of several lines the longest is the long
    axis. A mask goes before closed shapes, these before lines, these before points.

    Raises
    ------
    DrawingRefused
        Something lies outside the images, or between or across their slices.
    """
    return Prompt(objects=tuple(_object(item, slices, contours) for item in objects), drawing=sketch.drawing)


def _object(item: SketchedObject, slices: Slices, contours: Contours) -> ObjectPrompt:
    placed = [] if item.mask is not None else [found for found in (_placed(s, slices) for s in item.shapes) if found]
    areas = [one for one in placed if one.kind in _AREAS]
    lines = [one for one in placed if one.kind is Kind.AXIS]
    points = [one for one in placed if one.kind is Kind.POINT]
    key, region = _largest(areas, slices.grid) if areas else (0, [])
    masks = _region(key, region, slices.grid, contours)
    return ObjectPrompt(
        boxes=(_box(key, region, slices.grid),) if areas and not masks else (),
        long_axes=(_longest(lines, slices.grid),) if lines and not areas else (),
        points=tuple(_point(one) for one in points) if not areas and not lines else (),
        masks=(_mask(item.mask, slices),) if item.mask is not None else masks,
        label=item.label,
        category=item.category,
        type=item.type,
        tracking_identifier=item.tracking_identifier,
        tracking_uid=item.tracking_uid,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Placed:
    kind: Kind
    slice: int
    points: FloatArray
    """Row and column of the grid; 0 is the centre of the first voxel."""


def _placed(shape: Shape, slices: Slices) -> _Placed | None:
    """Return a shape on its slice; ``None`` where it is on an image of another stack."""
    if shape.image is not None:
        k = slices.slice_of(shape.image.sop_instance_uid, shape.image.frame)
        # 0\0 is the corner of the first pixel, and its centre is index 0
        points = shape.points[:, ::-1] - 0.5
        return None if k is None else _inside(_Placed(kind=shape.kind, slice=k, points=points), slices.grid)
    index = slices.grid.to_index(shape.points)
    k = int(np.floor(index[:, 0].mean() + 0.5))
    if not -0.5 <= index[:, 0].mean() <= slices.grid.shape[0] - 0.5:
        raise DrawingRefused("It is drawn outside the images: beyond the first or the last slice.")
    if np.abs(index[:, 0] - k).max() > _HALF_SLICE:
        raise DrawingRefused("It is drawn across slices; a prompt must lie within one slice.")
    return _inside(_Placed(kind=shape.kind, slice=k, points=index[:, 1:]), slices.grid)


def _inside(found: _Placed, grid: Grid) -> _Placed:
    low, high = _extent(found, grid)
    if (high < -0.5).any() or (low > np.array(grid.shape[1:]) - 0.5).any():
        raise DrawingRefused("It is drawn outside the images: beside their pixels.")
    return found


def _extent(found: _Placed, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and largest row and column that a shape reaches."""
    points = found.points
    if found.kind is Kind.CIRCLE:
        # Round in the patient, as viewers draw it, also where pixels are not square
        spacing = np.array(grid.spacing_mm[1:])
        half: FloatArray = np.linalg.norm((points[1] - points[0]) * spacing) / spacing
        return points[0] - half, points[0] + half
    if found.kind is Kind.ELLIPSE:
        one, other = (points[1] - points[0]) / 2, (points[3] - points[2]) / 2
        half, centre = np.hypot(one, other), points.mean(axis=0)
        return centre - half, centre + half
    return points.min(axis=0), points.max(axis=0)


def _area(found: _Placed, grid: Grid) -> float:
    """Return the area of a closed shape in mm²."""
    points = found.points * grid.spacing_mm[1:]
    if found.kind is Kind.CIRCLE:
        return float(np.pi * np.sum((points[1] - points[0]) ** 2))
    if found.kind is Kind.ELLIPSE:
        return float(np.pi * np.linalg.norm(points[1] - points[0]) * np.linalg.norm(points[3] - points[2]) / 4)
    (y, x), (after_y, after_x) = points.T, np.roll(points, -1, axis=0).T
    return float(abs(np.sum(x * after_y - after_x * y)) / 2)


def _largest(areas: Sequence[_Placed], grid: Grid) -> tuple[int, list[_Placed]]:
    """Return the slice on which closed shapes are largest, with those on it."""
    sizes: defaultdict[int, float] = defaultdict(float)
    for one in areas:
        sizes[one.slice] += _area(one, grid)
    key = max(sorted(sizes), key=lambda k: sizes[k])
    if sizes[key] <= 0:
        raise DrawingRefused("What is drawn encloses nothing.")
    return key, [one for one in areas if one.slice == key]


def _box(key: int, region: Sequence[_Placed], grid: Grid) -> Box:
    """Return what encloses shapes of a slice, cut off at the edge of the image."""
    extents = [_extent(one, grid) for one in region]
    edge = np.array(grid.shape[1:]) - 0.5
    low = np.clip(np.min([low for low, _ in extents], axis=0), -0.5, edge)
    high = np.clip(np.max([high for _, high in extents], axis=0), -0.5, edge)
    return Box(corners=(_position(key, low), _position(key, high)))


def _region(key: int, region: Sequence[_Placed], grid: Grid, contours: Contours) -> tuple[SliceMask, ...]:
    """Return shapes of a slice as a mask, where all of them are meant as one and they have a pixel.

    A contour within another is a hole, as most makers of structure sets write it; where contours cross, nobody knows
    what is meant. Shapes of other kinds add up.
    """
    if not region or not all(_is_traced(one, contours) for one in region):
        return ()
    shape = grid.shape[1:]
    pixels = joined((filled(one.points, shape) for one in region if one.kind is Kind.OUTLINE), shape)
    if pixels is None:
        return ()
    for one in region:
        if one.kind is not Kind.OUTLINE:
            pixels |= filled_ellipse(*_axes(one, grid), shape)
    return (SliceMask(slice=key, pixels=pixels),) if pixels.any() else ()


def _is_traced(found: _Placed, contours: Contours) -> bool:
    if found.kind is Kind.OUTLINE:
        return contours != "box" and not is_rectangle(found.points)
    return contours == "mask"


def _axes(found: _Placed, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Return the centre of a circle or an ellipse and its half axes, in pixels."""
    points = found.points
    if found.kind is Kind.ELLIPSE:
        return points.mean(axis=0), np.array([points[1] - points[0], points[3] - points[2]]) / 2
    spacing = np.array(grid.spacing_mm[1:])
    return points[0], np.diag(np.linalg.norm((points[1] - points[0]) * spacing) / spacing)


def _longest(lines: Sequence[_Placed], grid: Grid) -> LongAxis:
    longest = max(lines, key=lambda one: float(np.linalg.norm((one.points[1] - one.points[0]) * grid.spacing_mm[1:])))
    edge = np.array(grid.shape[1:]) - 0.5
    first, second = np.clip(longest.points, -0.5, edge)
    return LongAxis(ends=(_position(longest.slice, first), _position(longest.slice, second)))


def _point(one: _Placed) -> Point:
    return Point(at=_position(one.slice, one.points[0]))


def _position(k: int, place: FloatArray) -> Position:
    return float(k), float(place[0]), float(place[1])


# -- Masks ----------------------------------------------------------------------------------------------------------


def _mask(mask: Mask, slices: Slices) -> SliceMask:
    """Return a mask on the slice of the grid that it lies on, pixel by pixel."""
    grid = slices.grid
    if mask.plane is None:
        return _on_image(mask, slices)
    k = _slice_of(mask, mask.plane, grid)
    rows, columns = grid.shape[1:]
    index = np.stack(np.meshgrid([k], np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)[0]
    place = np.rint(_in_plane(grid.to_lps(index), mask.plane)).astype(np.int64)
    known = ((place >= 0) & (place < mask.pixels.shape)).all(axis=-1)
    pixels = np.zeros((rows, columns), np.bool_)
    pixels[known] = mask.pixels[place[known][:, 0], place[known][:, 1]]
    if not pixels.any():
        raise DrawingRefused("The segmentation lies outside the images: beside their pixels.")
    return SliceMask(slice=k, pixels=pixels)


def _on_image(mask: Mask, slices: Slices) -> SliceMask:
    k = None if mask.image is None else slices.slice_of(mask.image.sop_instance_uid, mask.image.frame)
    if k is None or mask.pixels.shape != slices.grid.shape[1:]:
        raise DrawingRefused("The segmentation says neither where it lies nor on which image of the same size.")
    return SliceMask(slice=k, pixels=mask.pixels.copy())


def _slice_of(mask: Mask, plane: Plane, grid: Grid) -> int:
    orientation = np.array(plane.orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    axis = np.cross(grid.affine[:3, 2], grid.affine[:3, 1])
    cosine = abs(normal @ axis) / (np.linalg.norm(normal) * np.linalg.norm(axis) or 1.0)
    if not cosine > 1 - ORIENTATION_TOLERANCE:
        raise DrawingRefused("The segmentation lies across the slices; its frames must be parallel to them.")
    middle: FloatArray = (np.array(mask.pixels.shape) - 1) / 2 * plane.spacing_mm
    centre = np.array(plane.position_mm) + orientation[3:] * middle[0] + orientation[:3] * middle[1]
    along = float(grid.to_index(centre)[0])
    k = int(np.floor(along + 0.5))
    if not 0 <= k < grid.shape[0]:
        raise DrawingRefused("The segmentation lies outside the images: beyond the first or the last slice.")
    return k


def _in_plane(position_mm: FloatArray, plane: Plane) -> npt.NDArray[np.float64]:
    """Return row and column of the mask below positions in mm."""
    offset = position_mm - np.array(plane.position_mm)
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    return np.stack([offset @ column / plane.spacing_mm[0], offset @ row / plane.spacing_mm[1]], axis=-1)
