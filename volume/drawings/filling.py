"""From the outline of a region to its pixels: those whose centres lie inside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from domain.volume import FloatArray

Pixels = npt.NDArray[np.bool_]

_STRAIGHT = 0.01
"""Pixels by which the sides of a rectangle may be askew: coordinates are written as decimal text, or in 32 bits."""


def filled(outline: FloatArray, shape: tuple[int, int]) -> Pixels:
    """Return the pixels within a closed polygon, by the even-odd rule: what is enclosed twice is a hole.

    So a keyhole (PS3.3 C.8.8.6.3: an inner and an outer contour joined by a channel without width) leaves its hole. A
    centre on the outline is inside on its left and upper side only, and two regions side by side share no pixel.

    Parameters
    ----------
    outline
        Row and column of the vertices; 0 is the centre of the first pixel.
    """
    row, column = outline.T
    after_row, after_column = np.roll(row, -1), np.roll(column, -1)
    # Rows whose centres a side crosses, its lower end not counted: a vertex then belongs to one of two sides
    first = np.ceil(np.minimum(row, after_row)).clip(0, shape[0]).astype(np.int64)
    last = np.ceil(np.maximum(row, after_row)).clip(0, shape[0]).astype(np.int64)
    crossed = last - first
    side = np.repeat(np.arange(len(row)), crossed)
    at = first[side] + np.arange(len(side)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
    share = (at - row[side]) / (after_row - row)[side]
    reached = np.ceil(column[side] + share * (after_column - column)[side]).clip(0, shape[1]).astype(np.int64)
    crossings = np.zeros((shape[0], shape[1] + 1), np.int64)
    np.add.at(crossings, (at, reached), 1)
    inside: Pixels = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside


def joined(regions: Iterable[Pixels], shape: tuple[int, int]) -> Pixels | None:
    """Return what contours of one slice mean together: one within another is a hole, one within that an island.

    What was drawn twice counts once. ``None`` where contours cross: their sum, or what only one of them has.
    """
    innermost = np.zeros(shape, np.int64)
    sizes, is_inside = [-1], [False]  # of what lies around everything, then of each region
    for region in sorted(regions, key=np.count_nonzero, reverse=True):
        around = np.unique(innermost[region])
        if len(around) > 1:
            return None
        size = int(np.count_nonzero(region))
        if size and size != sizes[around[0]]:
            innermost[region] = len(sizes)
            sizes.append(size)
            is_inside.append(not is_inside[around[0]])
    inside: Pixels = np.array(is_inside)[innermost]
    return inside


def filled_ellipse(centre: FloatArray, half_axes: FloatArray, shape: tuple[int, int]) -> Pixels:
    """Return the pixels within an ellipse.

    Parameters
    ----------
    centre
        Row and column.
    half_axes
        Shape ``(2, 2)``: row and column from the centre to the end of one axis, and of the other. They need not be at
        right angles in pixels, which may be oblong.
    """
    offsets = np.moveaxis(np.indices(shape), 0, -1) - centre
    if not abs(np.linalg.det(half_axes)) > 0:
        return np.zeros(shape, np.bool_)
    inside: Pixels = ((offsets @ np.linalg.inv(half_axes)) ** 2).sum(axis=-1) <= 1
    return inside


def is_rectangle(outline: FloatArray) -> bool:
    """Tell whether a polygon is a rectangle along rows and columns, as viewers draw it: a box, not a shape."""
    corners = outline[:-1] if len(outline) == 5 and np.abs(outline[0] - outline[-1]).max() < _STRAIGHT else outline
    if len(corners) != 4:
        return False
    along = np.abs(np.roll(corners, -1, axis=0) - corners) < _STRAIGHT
    return bool((along.any(axis=1)).all() and (along[:, 0] == np.roll(along[:, 1], -1)).all())
