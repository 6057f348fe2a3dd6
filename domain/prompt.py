"""What somebody points at: boxes, points, masks and long axes of one or several objects, with their slices.

Where there are frames without coordinates in the patient, a slice is a frame, counted from 0 too. A prompt is
written in one space:

``VOXEL``
    Indices ``(slice, row, column)`` of the grid; 0 is the *centre* of the first voxel, as ``Grid.to_lps`` counts.
``LPS``
    Patient coordinates ``(x, y, z)`` in mm; of volumes only.
``FRACTION``
    ``(slice, row, column)`` from 0 to 1 across the grid, edge to edge: a route's default prompt fits every series.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from domain.codes import Code
from domain.errors import NotApplicable
from domain.image import Raster

if TYPE_CHECKING:
    from domain.volume import Grid

Position = tuple[float, float, float]


class Space(StrEnum):
    """What the numbers of a prompt mean."""

    VOXEL = "voxel"
    LPS = "lps"
    FRACTION = "fraction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point inside the object, or outside it."""

    at: Position
    positive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle on one slice, given by two opposite corners."""

    corners: tuple[Position, Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class LongAxis:
    """The longest diameter of the object on one slice (RECIST), given by its two ends."""

    ends: tuple[Position, Position]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceMask:
    """The object itself on one slice of the grid, whatever the prompt's space.

    Attributes
    ----------
    pixels
        Shape ``(rows, columns)`` of the grid. Read-only.
    """

    slice: int
    pixels: npt.NDArray[np.bool_] = field(repr=False)

    def __post_init__(self) -> None:
        self.pixels.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectPrompt:
    """Everything that was drawn for one object, on one or several slices."""

    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    long_axes: tuple[LongAxis, ...] = ()
    masks: tuple[SliceMask, ...] = ()
    label: str = field(default="", repr=False)
    """What it was called where it was drawn."""
    category: Code | None = None
    type: Code | None = None
    tracking_identifier: str = field(default="", repr=False)
    """As the drawing has it; the result keeps it."""
    tracking_uid: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not any(point.positive for point in self.points) and not (self.boxes or self.long_axes or self.masks):
            raise ValueError("an object needs a box, a positive point, a long axis or a mask")

    @property
    def in_words(self) -> str:
        """Say what it is made of, e.g. ``a box and points``."""
        parts = {"a mask": self.masks, "a box": self.boxes, "a long axis": self.long_axes, "points": self.points}
        return " and ".join(name for name, drawn in parts.items() if drawn)

    def positions(self) -> Iterator[Position]:
        """Yield every position."""
        for box in self.boxes:
            yield from box.corners
        for axis in self.long_axes:
            yield from axis.ends
        for point in self.points:
            yield point.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The received DICOM object in which somebody drew a prompt."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """The objects that are wanted; segment n of the result is object n."""

    objects: tuple[ObjectPrompt, ...]
    space: Space = Space.VOXEL
    drawing: Drawing | None = None
    """Where it was drawn; ``None`` where no person drew it in a DICOM object."""

    def __post_init__(self) -> None:
        if not self.objects:
            raise ValueError("a prompt needs an object")

    @property
    def digest(self) -> str:
        """Return 64 hex digits that differ where the prompts differ; part of a job's identity."""
        content = json.dumps([self.space.value, [_content(item) for item in self.objects]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def in_words(self) -> str:
        """Say what its objects are made of."""
        return ", ".join(dict.fromkeys(item.in_words for item in self.objects))

    def on(self, grid: Grid | Raster) -> Prompt:
        """Return the prompt in voxels of ``grid``, every position on a slice.

        A position belongs to the nearest slice, at most half a slice away from it.

        Raises
        ------
        NotApplicable
            Something lies outside the grid, or a box or a long axis does not lie on one slice; or the prompt is in
            patient coordinates, and a raster has none.
        """
        objects = tuple(_on_grid(item, grid, self.space, number) for number, item in enumerate(self.objects, start=1))
        return Prompt(objects=objects, space=Space.VOXEL, drawing=self.drawing)


def _on_grid(item: ObjectPrompt, grid: Grid | Raster, space: Space, number: int) -> ObjectPrompt:
    def moved(position: Position) -> Position:
        return _voxel(position, grid, space, number)

    def pair(positions: tuple[Position, Position], what: str) -> tuple[Position, Position]:
        first, second = moved(positions[0]), moved(positions[1])
        if first[0] != second[0]:
            raise NotApplicable(f"The {what} of object {number} does not lie on one slice.")
        return first, second

    for mask in item.masks:
        if not 0 <= mask.slice < grid.shape[0] or mask.pixels.shape != grid.shape[1:]:
            raise NotApplicable(f"The mask of object {number} is not on the grid of the series.")
        if not mask.pixels.any():
            raise NotApplicable(f"The mask of object {number} is empty.")
    return replace(
        item,
        boxes=tuple(Box(corners=pair(box.corners, "box")) for box in item.boxes),
        long_axes=tuple(LongAxis(ends=pair(axis.ends, "long axis")) for axis in item.long_axes),
        points=tuple(replace(point, at=moved(point.at)) for point in item.points),
    )


def _voxel(position: Position, grid: Grid | Raster, space: Space, number: int) -> Position:
    """Return a position in voxels, its slice a whole number."""
    index = np.asarray(position, np.float64)
    if space is Space.LPS:
        if isinstance(grid, Raster):
            raise NotApplicable(
                f"The prompt of object {number} is in patient coordinates, and the image has none; point at it in "
                "pixels, with the frame in place of the slice."
            )
        index = grid.to_index(index)
    elif space is Space.FRACTION:
        index = index * grid.shape - 0.5
    # Edges count as inside, with what rounding of mm adds; 0.5 of a fraction lies between two middle slices.
    if not np.all(np.isfinite(index)) or np.any(index < -0.501) or np.any(index > np.array(grid.shape) - 0.499):
        raise NotApplicable(f"The prompt of object {number} lies outside {_extent(grid)}.")
    k = min(max(int(np.floor(index[0] + 0.5)), 0), grid.shape[0] - 1)
    return float(k), float(index[1]), float(index[2])


def _extent(grid: Grid | Raster) -> str:
    """Say how large an image is: nobody sees by its header where frames begin to count."""
    frames, rows, columns = grid.shape
    if not isinstance(grid, Raster):
        return f"the series, which has {frames} slices, counted from 0, of {rows} rows and {columns} columns"
    counted = f"{frames} frames, counted from 0," if frames > 1 else "one frame, counted as 0,"
    return f"the image, which has {counted} of {rows} rows and {columns} columns"


def _content(item: ObjectPrompt) -> list[object]:
    codes = [[code.value, code.scheme] if code else None for code in (item.category, item.type)]
    return [
        [box.corners for box in item.boxes],
        [[point.at, point.positive] for point in item.points],
        [axis.ends for axis in item.long_axes],
        [
            [mask.slice, mask.pixels.shape, hashlib.sha256(np.packbits(mask.pixels).tobytes()).hexdigest()]
            for mask in item.masks
        ],
        item.label,
        codes,
    ]
