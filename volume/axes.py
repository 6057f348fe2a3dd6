"""How a grid's index axes follow the patient."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from domain.volume import Grid

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Axes:
    """How the index axes of a grid follow the patient.

    ``order`` permutes them to (z, y, x), then ``reverse`` flips them, so that indices ascend towards the head, the
    back and the patient's left (LPS, PS3.3 C.7.6.2.1.1).
    """

    order: tuple[int, int, int]
    reverse: tuple[bool, bool, bool]

    @classmethod
    def of(cls, grid: Grid) -> Axes:
        """Return the assignment whose directions agree best with the patient's."""
        directions = grid.affine[:3, :3] / np.asarray(grid.spacing_mm)

        def agreement(order: tuple[int, ...]) -> float:
            return float(sum(abs(directions[2 - place, axis]) for place, axis in enumerate(order)))

        z, y, x = max(itertools.permutations(range(3)), key=agreement)
        return cls((z, y, x), (directions[2, z] < 0, directions[1, y] < 0, directions[0, x] < 0))

    def view(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return ``array`` in the patient's (z, y, x) order; shares memory."""
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.reverse)
        return array.transpose(self.order)[z, y, x]
