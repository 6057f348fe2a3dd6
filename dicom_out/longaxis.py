"""The long axis of a segment: the line by which viewers show where a finding lies."""

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
