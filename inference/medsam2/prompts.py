"""A prompt as the network takes it: for each object, what was drawn on which slice."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from domain.errors import EngineFailed
from domain.prompt import ObjectPrompt, Position, Prompt
from inference.medsam2.tracker import SlicePrompt

INSIDE, OUTSIDE, FIRST_CORNER, SECOND_CORNER = 1, 0, 2, 3
ALONG_AXIS = (0.25, 0.5, 0.75)
"""A long axis becomes points inside the object here between its ends: the ends themselves lie on the border."""


def slice_prompts(prompt: Prompt, rows: int, columns: int) -> list[dict[int, SlicePrompt]]:
    """Return what was drawn for each object, by slice.

    Parameters
    ----------
    prompt
        On the grid (``Prompt.on``). Positions are handed to the network as index / size, as the original does: no
        half pixel is added, and nothing is rounded.

    Raises
    ------
    EngineFailed
        The network cannot take it: two boxes, or a mask and something else, for one object on one slice.
    """
    return [_of(item, number, rows, columns) for number, item in enumerate(prompt.objects, start=1)]


def _of(item: ObjectPrompt, number: int, rows: int, columns: int) -> dict[int, SlicePrompt]:
    drawn: defaultdict[int, list[tuple[Position, int]]] = defaultdict(list)
    for box in item.boxes:
        (k, row0, column0), (_, row1, column1) = box.corners
        if drawn[int(k)]:
            raise EngineFailed(f"Object {number} has two boxes on one slice; the engine takes one.")
        low, high = (k, min(row0, row1), min(column0, column1)), (k, max(row0, row1), max(column0, column1))
        drawn[int(k)] += [(low, FIRST_CORNER), (high, SECOND_CORNER)]
    for axis in item.long_axes:
        first, second = np.array(axis.ends)
        for share in ALONG_AXIS:
            k, row, column = (first + share * (second - first)).tolist()
            drawn[int(k)].append(((k, row, column), INSIDE))
    for point in item.points:
        drawn[int(point.at[0])].append((point.at, INSIDE if point.positive else OUTSIDE))
    prompts = {k: _points(entries, rows, columns) for k, entries in drawn.items()}
    for mask in item.masks:
        if mask.slice in prompts:
            raise EngineFailed(f"Object {number} has a mask and another prompt on one slice; the engine takes one.")
        prompts[mask.slice] = SlicePrompt(points=np.zeros((0, 2)), labels=(), mask=mask.pixels)
    return prompts


def _points(entries: list[tuple[Position, int]], rows: int, columns: int) -> SlicePrompt:
    points = np.array([(column / columns, row / rows) for (_, row, column), _ in entries])
    return SlicePrompt(points=points, labels=tuple(label for _, label in entries))
