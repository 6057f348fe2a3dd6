"""Outlines of masks as polygons."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Polygon = npt.NDArray[np.float64]
"""Shape ``(points, 2)``: columns and rows, 0\\0 at the top left corner of the first pixel; the first point again at
the end."""


def outlines(mask: npt.NDArray[np.bool_]) -> list[Polygon]:
    """Return the boundaries of a mask along the sides of its pixels, holes among them.

    Filled by the even-odd rule they give the mask again, exactly. Where two pixels touch at a corner only, the
    boundary may go either way round it.
    """
    following = _edges(mask)
    width = mask.shape[1] + 1
    found = []
    while following:
        start = next(iter(following))
        corners, here = [start], _take(following, start)
        while here != start:
            corners.append(here)
            here = _take(following, here)
        ring = np.array([*corners, start])
        found.append(_straightened(np.column_stack([ring % width, ring // width]).astype(float)))
    return found


def _edges(mask: npt.NDArray[np.bool_]) -> dict[int, list[int]]:
    """Return where the boundary goes from each corner, the mask at its right."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    width = mask.shape[1] + 1
    sides = (  # neighbour that is not set, then where the side begins and ends, as (row, column)
        (padded[:-2, 1:-1], (0, 0), (0, 1)),
        (padded[1:-1, 2:], (0, 1), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (1, 0)),
        (padded[1:-1, :-2], (1, 0), (0, 0)),
    )
    following: dict[int, list[int]] = {}
    for neighbour, begin, end in sides:
        rows, columns = np.nonzero(inner & ~neighbour)
        starts = (rows + begin[0]) * width + columns + begin[1]
        ends = (rows + end[0]) * width + columns + end[1]
        for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
            following.setdefault(first, []).append(last)
    return following


def _take(following: dict[int, list[int]], corner: int) -> int:
    ends = following[corner]
    end = ends.pop()
    if not ends:
        del following[corner]
    return end


def _straightened(ring: Polygon) -> Polygon:
    """Return a ring without the corners at which it goes straight on."""
    steps = np.sign(np.diff(ring, axis=0))
    turns = np.any(steps != np.roll(steps, 1, axis=0), axis=1)
    kept = ring[:-1][turns]
    return np.concatenate([kept, kept[:1]])


def smoothed(ring: Polygon) -> Polygon:
    """Return a ring through the middles of the pixel sides: the same shape without its stairs, for looking at."""
    points = []
    for (x0, y0), (x1, y1) in pairwise(ring):
        count = round(abs(x1 - x0) + abs(y1 - y0))
        along = (np.arange(count) + 0.5) / count
        points.append(np.column_stack([x0 + (x1 - x0) * along, y0 + (y1 - y0) * along]))
    every = np.concatenate(points)
    return np.concatenate([every, every[:1]])
