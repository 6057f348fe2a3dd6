"""Left and right lung in a CT volume."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from domain.errors import NotApplicable
from domain.volume import Volume
from inference.lungs.airways import find_airways
from inference.lungs.body import AIR_BELOW_HU, LUNG_HU, Body, find_body
from inference.lungs.morphology import BoolVector, ComponentGrid, closed, components, dilated, eroded, places, select
from inference.lungs.sides import LEFT, RIGHT, divide
from inference.lungs.working import BoolGrid, LabelGrid, WorkingGrid, to_source, working_grid

SMALLEST_PART_ML = 5.0
AERATED = 0.3
"""Least part of a component's inside that has the density of lung; gas in stomach and bowel has less."""
MINOR = 0.15
"""A component smaller than this part of the largest must lie level with the largest, not below it as the colon."""
VESSEL_MM = 7.5
"""Vessels, nodules and fissures up to twice this wide are closed: they belong to the lung."""
LEAST_CROSS_SECTION = 0.12
"""Of the body's, in the axial slice where the lungs are largest; the bowel of an abdomen stays below it."""


def segment_lungs(volume: Volume) -> LabelGrid:
    """Return labels ``LEFT`` and ``RIGHT`` on the grid of ``volume``, whose voxels are in Hounsfield units.

    Raises
    ------
    NotApplicable
        There are no lungs in the volume, or not so that left and right can be told with certainty.
    """
    grid = working_grid(volume)
    body = find_body(grid)
    airways = find_airways(grid, body)
    labels = divide(grid, body, _aerated(grid, body.enclosed & ~airways))
    _require_lungs(body, labels)
    labels = _closed(grid, labels, airways)
    return _on_source(grid, volume, labels, body.enclosed & (labels == 0) | airways)


def _aerated(grid: WorkingGrid, air: BoolGrid) -> BoolGrid:
    """Return the components of ``air`` that are lung by size, density and place."""
    numbers, sizes = components(air)
    volume_ml = sizes * grid.voxel_ml
    inner = np.where(eroded(air, grid.spacing_mm, min(grid.spacing_mm)), numbers, 0)
    dense = (grid.hu > LUNG_HU[0]) & (grid.hu < LUNG_HU[1])
    aerated = np.bincount(inner[dense], minlength=len(sizes)) / np.maximum(
        np.bincount(inner.ravel(), minlength=len(sizes)), 1
    )
    lung = (volume_ml >= SMALLEST_PART_ML) & (aerated >= AERATED)
    lung[0] = False
    if not lung.any():
        raise NotApplicable("There is no lung in the volume.")
    lung &= _level_with_largest(numbers, np.where(lung, sizes, 0))
    return select(numbers, lung)


def _level_with_largest(numbers: ComponentGrid, sizes: npt.NDArray[np.int64]) -> BoolVector:
    """Return, for each component, whether it is large itself or lies level with the largest."""
    boxes = places(numbers)
    largest = int(np.argmax(sizes))
    reach = boxes[largest - 1][0]
    lowest = reach.start + (reach.stop - reach.start) / 4
    level: BoolVector = sizes >= MINOR * sizes[largest]
    for number in np.flatnonzero(~level[1:]) + 1:
        level[number] = (boxes[number - 1][0].start + boxes[number - 1][0].stop) / 2 > lowest
    return level


def _require_lungs(body: Body, labels: LabelGrid) -> None:
    area = (labels != 0).sum(axis=(1, 2)) / np.maximum(body.area_voxels, 1)
    if area.max() < LEAST_CROSS_SECTION:
        raise NotApplicable("There is no lung in the volume, or only the edge of one.")


def _closed(grid: WorkingGrid, labels: LabelGrid, airways: BoolGrid) -> LabelGrid:
    """Return the lungs with vessels, nodules and fissures filled; where both claim a gap, it stays open."""
    lungs = {side: closed(labels == side, grid.spacing_mm, VESSEL_MM) & ~airways for side in (LEFT, RIGHT)}
    gap = labels == 0
    result = labels.copy()
    result[airways] = 0
    for side, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        result[lungs[side] & gap & ~lungs[other]] = side
    return result


def _on_source(grid: WorkingGrid, volume: Volume, labels: LabelGrid, other_air: BoolGrid) -> LabelGrid:
    """Return ``labels`` on the source grid: filled inside, by the source voxel's own value at the border."""
    step = max(grid.spacing_mm)
    certain, possible = np.zeros_like(labels), labels.copy()
    for side in (LEFT, RIGHT):
        lung = labels == side
        certain[eroded(lung, grid.spacing_mm, step)] = side
        possible[dilated(lung, grid.spacing_mm, step) & (labels == 0) & ~other_air] = side
    return to_source(grid, volume, certain, possible, AIR_BELOW_HU)
