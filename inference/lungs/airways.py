"""Trachea and main bronchi, which are not lung."""

from __future__ import annotations

import numpy as np

from inference.lungs.body import Body
from inference.lungs.morphology import components, dilated, places, select
from inference.lungs.working import BoolGrid, WorkingGrid

LUMEN_AREA_MM2 = (20.0, 900.0)
"""Cross-section of a trachea, from a child's to a widened one of an adult."""
LUMEN_HU = -600.0
"""Mean of a cross-section whose rim is half wall."""
LUMEN_CORE_HU = -940.0
"""Its darkest voxel; that of a small child's lung, which is as narrow, lies above."""
TRACHEA_OFF_CENTRE_MM = 50.0
TRACHEA_LENGTH_MM = 25.0
"""A shorter column of round cross-sections may be anything."""
GROWTH_HU = tuple(range(-990, -899, 10))
LEAK_ML = 40.0
"""Growth by one threshold step above which the region has broken through a bronchial wall into lung."""
AIRWAYS_ML = 160.0
"""Trachea and main bronchi of a large adult; more is a leak."""
WALL_MM = 2.5


def find_airways(grid: WorkingGrid, body: Body) -> BoolGrid:
    """Return trachea and main bronchi with their walls; empty where no trachea is seen.

    The trachea is the longest column of round air pockets near the middle. From there the region grows through ever
    denser air until it would break through a bronchial wall.
    """
    trachea = _trachea(grid, body)
    if not trachea.any():
        return trachea
    return dilated(_grown(grid, body, trachea), grid.spacing_mm, max(WALL_MM, min(grid.spacing_mm)))


def _trachea(grid: WorkingGrid, body: Body) -> BoolGrid:
    columns, _ = components(_round_pockets(grid, body))
    lengths = [0.0] + [(place[0].stop - place[0].start) * grid.spacing_mm[0] for place in places(columns)]
    best = int(np.argmax(lengths))
    if lengths[best] < TRACHEA_LENGTH_MM:
        return np.zeros_like(body.enclosed)
    return np.equal(columns, best)


def _round_pockets(grid: WorkingGrid, body: Body) -> BoolGrid:
    """Return the pockets of enclosed air that could be a cross-section of the trachea."""
    numbers, sizes = components(body.enclosed, in_plane=True)
    if len(sizes) < 2:
        return np.zeros_like(body.enclosed)
    _, dy, dx = grid.spacing_mm
    area = sizes * dy * dx
    mean = np.bincount(numbers.ravel(), weights=grid.hu.ravel()) / sizes
    dark = np.bincount(numbers[grid.hu < LUMEN_CORE_HU], minlength=len(sizes)) > 0
    chosen = (area >= LUMEN_AREA_MM2[0]) & (area <= LUMEN_AREA_MM2[1]) & (mean < LUMEN_HU) & dark
    chosen[0] = False
    for number, (_, rows, columns) in enumerate(places(numbers), start=1):
        height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
        centre = (columns.start + columns.stop - 1) / 2
        is_round = max(height, width) <= 2.5 * min(height, width)
        chosen[number] &= is_round and abs(centre - body.middle_x) * dx <= TRACHEA_OFF_CENTRE_MM
    return select(numbers, chosen)


def _grown(grid: WorkingGrid, body: Body, seed: BoolGrid) -> BoolGrid:
    region = seed
    for below in GROWTH_HU:
        grown = _connected(body.enclosed & (grid.hu < below) | seed, seed)
        added_ml = np.count_nonzero(grown & ~region) * grid.voxel_ml
        if added_ml > LEAK_ML or np.count_nonzero(grown) * grid.voxel_ml > AIRWAYS_ML:
            break
        region = grown
    return region


def _connected(mask: BoolGrid, seed: BoolGrid) -> BoolGrid:
    """Return the components of ``mask`` that hold a voxel of ``seed``."""
    numbers, sizes = components(mask)
    chosen = np.zeros(len(sizes), bool)
    chosen[numbers[seed]] = True
    return select(numbers, chosen)
