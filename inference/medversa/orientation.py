"""The order in which the network sees the axes of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from domain.errors import NotApplicable
from domain.volume import Grid
from inference.medversa.settings import Orientation

T = TypeVar("T", bound=np.generic)

LEAST_COSINE = 0.9
"""An axis that leans by more than 26 degrees lies along none of the patient's."""
_AWAY = {"LPS": (1.0, 1.0, 1.0), "RAS": (1.0, -1.0, -1.0)}
"""Signs along z, y, x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """How arrays of one grid are turned to axes z, y, x of the patient and back; both give views."""

    order: tuple[int, int, int]
    """Index axis that lies along z, y, x."""
    flipped: tuple[bool, bool, bool]

    def to_model(self, voxels: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return ``(slices, rows, columns)`` as ``(z, y, x)``."""
        return voxels.transpose(self.order)[self._steps()]

    def to_source(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return ``(z, y, x)`` as ``(slices, rows, columns)``."""
        back = np.argsort(self.order)
        return array[self._steps()].transpose(int(back[0]), int(back[1]), int(back[2]))

    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flipped)


def turned(grid: Grid, orientation: Orientation) -> Turned:
    """Return how a grid's arrays are turned.

    Raises
    ------
    NotApplicable
        The volume lies obliquely in the patient: the network has only seen arrays along the patient's axes.
    """
    cosines = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    # Row 0, 1, 2 of the affine is x, y, z.
    along = [int(np.argmax(np.abs(cosines[axis]))) for axis in (2, 1, 0)]
    values = [float(cosines[axis, index]) for axis, index in zip((2, 1, 0), along, strict=True)]
    if len(set(along)) != 3 or min(map(abs, values)) < LEAST_COSINE:
        raise NotApplicable("The volume lies obliquely; MedVersa takes volumes along the patient's axes.")
    flips = [value * sign < 0 for value, sign in zip(values, _AWAY[orientation], strict=True)]
    return Turned(order=(along[0], along[1], along[2]), flipped=(flips[0], flips[1], flips[2]))
