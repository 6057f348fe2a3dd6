"""Which air is right lung and which is left."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from domain.errors import NotApplicable
from inference.lungs.body import Body
from inference.lungs.morphology import ComponentGrid, components, distance_mm, places
from inference.lungs.working import BoolGrid, FloatGrid, LabelGrid, WorkingGrid

LEFT, RIGHT = 1, 2
"""Segment numbers, in the manifest's order."""
CROSSING = 0.1
"""Part of a component beyond the middle above which it may be two lungs that touch."""
NECK_STEP_MM = 1.0
WIDEST_NECK_MM = 15.0
"""Lungs touch along the thin junction lines; a wider bridge is none."""
UNCERTAIN_MM = 15.0
"""A component whose centre is nearer to the middle belongs to neither side."""
STRAY = 0.05
"""Part of all lung that may be left out because its side is not certain."""


def divide(grid: WorkingGrid, body: Body, lung: BoolGrid) -> LabelGrid:
    """Return ``lung`` labelled ``LEFT`` and ``RIGHT`` of the patient.

    Raises
    ------
    NotApplicable
        A part too large to leave out cannot be assigned to a side.
    """
    numbers = _separated(grid, body, lung)
    sizes = np.bincount(numbers.ravel())
    centres = _centres_x(numbers, len(sizes))
    offset_mm = (centres - body.middle_x) * grid.spacing_mm[2]
    side = np.select([offset_mm > UNCERTAIN_MM, offset_mm < -UNCERTAIN_MM], [LEFT, RIGHT], 0).astype(np.uint8)
    side[0] = 0
    stray = int(sizes[1:][side[1:] == 0].sum())
    if stray > STRAY * sizes[1:].sum():
        raise NotApplicable(
            "The lungs cannot be told apart: a large part of them lies across the middle of the body."
        )
    labels: LabelGrid = side[numbers]
    return labels


def _separated(grid: WorkingGrid, body: Body, lung: BoolGrid) -> ComponentGrid:
    """Return the components of ``lung``, those that hold both lungs cut where these touch."""
    numbers, sizes = components(lung)
    beyond = _part_on_each_side(numbers, len(sizes), body.middle_x)
    boxes = places(numbers)
    for number in np.flatnonzero(beyond.min(axis=0) > CROSSING):
        place = boxes[number - 1]
        mask = numbers[place] == number
        divided = _cut(grid, mask, body.middle_x - place[2].start)
        numbers[place][divided == 2] = numbers.max() + 1
    return numbers


def _part_on_each_side(numbers: ComponentGrid, count: int, middle_x: float) -> npt.NDArray[np.float64]:
    """Return, for each component, its part to the right and its part to the left of the middle; shape (2, count)."""
    column = int(np.ceil(middle_x))
    right = np.bincount(numbers[:, :, :column].ravel(), minlength=count)
    left = np.bincount(numbers[:, :, column:].ravel(), minlength=count)
    parts: npt.NDArray[np.float64] = np.stack([right, left]) / np.maximum(right + left, 1)
    parts[:, 0] = 0
    return parts


def _cut(grid: WorkingGrid, lung: BoolGrid, middle_x: float) -> ComponentGrid:
    """Return 1 for the right and 2 for the left of two lungs that touch, cut at the neck between them.

    The lung is eroded step by step until it falls into a right and a left half; from these, watershed on the distance
    to the border meets again at the neck.
    """
    depth = distance_mm(~lung, grid.spacing_mm)
    for step in np.arange(NECK_STEP_MM, WIDEST_NECK_MM, NECK_STEP_MM):
        halves = _halves(depth > step, lung, middle_x)
        if halves is not None:
            return _watershed(depth, halves, lung)
    raise NotApplicable("The lungs cannot be told apart: the air on both sides of the body is one.")


def _halves(inner: BoolGrid, lung: BoolGrid, middle_x: float) -> ComponentGrid | None:
    """Return markers 1 and 2 when the largest parts of ``inner`` lie on the two sides of the middle."""
    numbers, sizes = components(inner)
    if len(sizes) < 3:
        return None
    first, second = np.argsort(-sizes[1:], kind="stable")[:2] + 1
    if sizes[second] < CROSSING * np.count_nonzero(lung):
        return None
    beyond = _part_on_each_side(numbers, len(sizes), middle_x)[:, [first, second]]
    if beyond.min(axis=0).max() > CROSSING or beyond.argmax(axis=0).tolist() not in ([0, 1], [1, 0]):
        return None
    right, left = (first, second) if beyond[0, 0] > beyond[0, 1] else (second, first)
    return np.where(numbers == right, 1, np.where(numbers == left, 2, 0)).astype(np.int32)


def _watershed(depth: FloatGrid, markers: ComponentGrid, lung: BoolGrid) -> ComponentGrid:
    divided = sitk.MorphologicalWatershedFromMarkers(  # type: ignore[no-untyped-call]
        sitk.GetImageFromArray(-np.where(lung, depth, 0)),
        sitk.GetImageFromArray(markers.astype(np.uint8)),
        markWatershedLine=False,
        fullyConnected=False,
    )
    result: ComponentGrid = np.where(lung, sitk.GetArrayFromImage(divided), 0).astype(np.int32)
    return result


def _centres_x(numbers: ComponentGrid, count: int) -> npt.NDArray[np.float64]:
    total = np.zeros(count)
    for column in range(numbers.shape[2]):
        total += column * np.bincount(numbers[:, :, column].ravel(), minlength=count)
    centres: npt.NDArray[np.float64] = total / np.maximum(np.bincount(numbers.ravel(), minlength=count), 1)
    return centres
