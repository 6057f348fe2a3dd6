"""Diameters of a segment on one slice: its long axis, by which viewers show where a finding lies, and across it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform


@dataclass(frozen=True, slots=True, kw_only=True)
class LongAxis:
    """The longest line between two points of a mask on one slice.

    ``ends`` are ``(column, row)`` in pixels as SCOORD counts them: 0\\0 is the top left corner of the first pixel,
    its centre is 0.5\\0.5 (PS3.3 C.18.6.1.2).
    """

    ends: tuple[tuple[float, float], tuple[float, float]]
    length_mm: float


def long_axis(mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float]) -> LongAxis:
    """Return the long axis of a mask that is not empty.

    A pixel is taken to reach to the middle of each of its four sides, so that a run of n pixels measures n pixels.

    Parameters
    ----------
    mask
        Shape ``(rows, columns)``.
    spacing_mm
        Between rows, then between columns.
    """
    points = _side_middles(mask)
    metric = points * (spacing_mm[1], spacing_mm[0])
    hull = np.sort(ConvexHull(metric).vertices)
    distances = squareform(pdist(metric[hull]))
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    (x0, y0), (x1, y1) = points[hull[first]].tolist(), points[hull[second]].tolist()
    return LongAxis(ends=((x0, y0), (x1, y1)), length_mm=float(distances[first, second]))


def short_axis(mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float], along: LongAxis) -> LongAxis:
    """Return the longest line at right angles to a long axis, across the convex hull of a mask.

    Parameters
    ----------
    along
        What ``long_axis`` returned for the mask.
    """
    scale = np.array((spacing_mm[1], spacing_mm[0]))
    points = _side_middles(mask) * scale
    first, second = (np.array(end) * scale for end in along.ends)
    direction = (second - first) / np.linalg.norm(second - first)
    across = np.array((-direction[1], direction[0]))
    hull = points[ConvexHull(points).vertices]
    u, v = (hull - first) @ direction, (hull - first) @ across
    # The width of a convex polygon changes evenly between its corners, so that it is greatest at one of them.
    widths = [_crossing(u, v, at) for at in u]
    at, (low, high) = max(zip(u, widths, strict=True), key=lambda pair: pair[1][1] - pair[1][0])
    ends = [(first + at * direction + end * across) / scale for end in (low, high)]
    (x0, y0), (x1, y1) = (end.tolist() for end in ends)
    return LongAxis(ends=((x0, y0), (x1, y1)), length_mm=float(high - low))


def _crossing(u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], at: float) -> tuple[float, float]:
    """Return where a line ``u = at`` enters and leaves a convex polygon."""
    after_u, after_v = np.roll(u, -1), np.roll(v, -1)
    step = after_u - u
    flat = np.abs(step) < 1e-9
    share = (at - u) / np.where(flat, 1.0, step)
    hit = ~flat & (share >= -1e-9) & (share <= 1 + 1e-9)
    crossed = np.concatenate([(v + share * (after_v - v))[hit], v[np.abs(u - at) < 1e-9]])
    return float(crossed.min()), float(crossed.max())


def _side_middles(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the outermost side middles of every row and column, as (column, row)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, right = mask[rows].argmax(axis=1), mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    top, bottom = mask[:, columns].argmax(axis=0), mask.shape[0] - mask[::-1, columns].argmax(axis=0)
    return np.concatenate(
        [
            np.column_stack([left, rows + 0.5]),
            np.column_stack([right, rows + 0.5]),
            np.column_stack([columns + 0.5, top]),
            np.column_stack([columns + 0.5, bottom]),
        ]
    )
