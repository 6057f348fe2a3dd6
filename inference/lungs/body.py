"""The patient's body and the air that it encloses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domain.errors import NotApplicable
from inference.lungs.morphology import ComponentGrid, components, eroded, opened, select
from inference.lungs.working import BoolGrid, WorkingGrid

AIR_BELOW_HU = -400.0
"""Between lung (about -850) and chest wall (about 40); a voxel that is half of each is on the border."""
COUCH_SHELL_MM = 5.0
"""Half the thickness of what counts as body: shells of couches, tubes and head holders are thinner."""
LUNG_HU = (-960.0, -500.0)
"""Aerated lung after averaging; gas in bowel, couch and trachea lies below, foam mostly too."""
CUT_LUNG_ML = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """Masks of the working grid's shape, and the patient's middle."""

    trunk: BoolGrid
    """Soft tissue and bone of the largest thick object: couch, tubes and cushions are left out."""
    enclosed: BoolGrid
    """Air that the trunk surrounds: lungs, airways, bowel gas."""
    middle_x: float
    """Column of the mid-sagittal plane."""
    area_voxels: npt.NDArray[np.int64]
    """Voxels of trunk and enclosed air in each axial slice."""


def find_body(grid: WorkingGrid) -> Body:
    """Return the body in ``grid``.

    Raises
    ------
    NotApplicable
        There is none, or the field of view cuts through the chest.
    """
    tissue = grid.hu >= AIR_BELOW_HU
    trunk = _largest(opened(tissue, grid.spacing_mm, COUCH_SHELL_MM))
    sides = _sides_with_trunk(trunk)
    hollow, outside = _hollow_and_outside(tissue)
    _refuse_cut_chest(grid, outside & (sides >= 3))
    enclosed = _mostly(hollow, sides == 4)
    inside = trunk | enclosed
    columns = np.arange(inside.shape[2])
    return Body(
        trunk=trunk,
        enclosed=enclosed,
        middle_x=float((inside.sum(axis=(0, 1)) * columns).sum() / inside.sum()),
        area_voxels=inside.sum(axis=(1, 2)),
    )


def _largest(mask: BoolGrid) -> BoolGrid:
    numbers, sizes = components(mask)
    if len(sizes) < 2:
        raise NotApplicable("There is no body in the volume.")
    return np.equal(numbers, 1 + int(np.argmax(sizes[1:])))


def _sides_with_trunk(trunk: BoolGrid) -> npt.NDArray[np.uint8]:
    """Return on how many of four sides (front, back, right, left; in its slice) a voxel has trunk."""
    sides = np.zeros(trunk.shape, np.uint8)
    for axis in (1, 2):
        sides += np.logical_or.accumulate(trunk, axis=axis)
        sides += np.flip(np.logical_or.accumulate(np.flip(trunk, axis), axis=axis), axis)
    return sides


def _hollow_and_outside(tissue: BoolGrid) -> tuple[ComponentGrid, BoolGrid]:
    """Return the numbered pockets of air that are closed off inside their axial slice, and all other air.

    Slice by slice, because in three dimensions the lungs are open to the outside: through the trachea and the nose,
    or through the first or last slice.
    """
    numbers, sizes = components(~tissue, in_plane=True)
    edges = (numbers[:, 0], numbers[:, -1], numbers[:, :, 0], numbers[:, :, -1])
    reaches_edge = np.zeros(len(sizes), bool)
    reaches_edge[np.concatenate([edge.ravel() for edge in edges])] = True
    reaches_edge[0] = False
    outside = select(numbers, reaches_edge)
    numbers[outside] = 0
    return numbers, outside


def _mostly(pockets: ComponentGrid, condition: BoolGrid) -> BoolGrid:
    """Return the pockets of which more than half fulfils ``condition``.

    The inside of a hollow couch has the patient on one side only; in a lung, a few voxels may look past a thin wall.
    """
    every = np.bincount(pockets.ravel())
    fulfilling = np.bincount(pockets[condition], minlength=len(every))
    chosen = 2 * fulfilling > every
    chosen[0] = False
    return select(pockets, chosen)


def _refuse_cut_chest(grid: WorkingGrid, open_bays: BoolGrid) -> None:
    """Refuse a field of view that cuts a lung at its sides: it cannot be told from the air around a patient."""
    lung = open_bays & (grid.hu > LUNG_HU[0]) & (grid.hu < LUNG_HU[1])
    inner = eroded(lung, grid.spacing_mm, 2 * max(grid.spacing_mm[1:]))
    if np.count_nonzero(inner) * grid.voxel_ml > CUT_LUNG_ML:
        raise NotApplicable("The field of view cuts through the chest: the sides of a lung are not imaged.")
