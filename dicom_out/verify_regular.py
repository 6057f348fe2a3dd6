"""What a segmentation on the regular grid of a resampled result is compared with.

The places are those of ``Result.analysed``; which images a frame may name follows from the source files' positions.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dicom_out.kind import Check
from dicom_out.verify_groups import Image
from dicom_out.verify_seg import TOLERANCE_MM, Slices
from domain.errors import VerificationFailed
from domain.ports import Result
from domain.volume import Grid
from volume.spacing import tolerance_mm

if TYPE_CHECKING:
    from dicom_out.verify import SourceSlices

FloatArray = npt.NDArray[np.float64]


def placed(check: Check) -> tuple[Result, Slices]:
    """Return the findings on the grid that the destination gets them on, and the slices there.

    Raises
    ------
    VerificationFailed
        The regular grid is not one that the source's slices can be brought onto.
    """
    result, analysed = check.result, check.result.analysed
    if check.options.grid == "source" or analysed is None:
        return result, check.slices
    _check_grid(analysed.grid, result.patient_grid)
    regular = replace(result, findings=analysed.findings, grid=analysed.grid, analysed=None)
    return regular, RegularSlices(source=check.slices, stack=result.patient_grid, grid=analysed.grid)


def _check_grid(regular: Grid, source: Grid) -> None:
    """The regular grid has the source's rows and columns, a rectangular shape, and room for every source pixel."""
    reach = np.abs(regular.affine[:3, 1:3] - source.affine[:3, 1:3]).max(axis=0) * regular.shape[1:]
    steps = regular.affine[:3, 0]
    if reach.max() > TOLERANCE_MM or regular.positions_mm is not None:
        raise VerificationFailed("The regular grid does not have the rows and columns of the source's slices.")
    if np.linalg.norm(np.cross(steps, regular.normal)) * regular.shape[0] > TOLERANCE_MM:
        raise VerificationFailed("The slices of the regular grid do not lie straight above one another.")
    _, rows, columns = source.shape
    ends = [(k, j, i) for k in (0, source.shape[0] - 1) for j in (0, rows - 1) for i in (0, columns - 1)]
    index = regular.to_index(source.to_lps(ends))
    if (index < -0.5).any() or (index > np.array(regular.shape) - 0.5).any():
        raise VerificationFailed("The regular grid does not cover the source's slices.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegularSlices:
    """The slices of a regular grid, in front of the source's."""

    source: SourceSlices
    stack: Grid
    grid: Grid

    @property
    def series_instance_uid(self) -> str:
        """Of the source."""
        return self.source.series_instance_uid

    @property
    def frame_of_reference_uid(self) -> str:
        """Of the source."""
        return self.source.frame_of_reference_uid

    @property
    def count(self) -> int:
        """How many slices there are."""
        return self.grid.shape[0]

    @property
    def positions_mm(self) -> FloatArray:
        """Where the first pixel of each slice must be."""
        return self.grid.to_lps([(k, 0, 0) for k in range(self.grid.shape[0])])

    def instances(self, count: int) -> Set[str]:
        """Every image of the source was used."""
        return self.source.instances(self.stack.shape[0])

    def accounts_for(self, k: int, images: tuple[Image, ...], *, is_resampled: bool) -> bool:
        """Tell whether slice ``k`` lies on the image that is named, or between the two, the nearer one first.

        Only of an image whose very pixels it has may it say that they are where they were.
        """
        behind = [i for image in images for i in range(self.stack.shape[0]) if self.source.image(i) == image]
        if not behind or len(behind) != len(images):
            return False
        position, places = self.positions_mm[k], self.source.positions_mm
        off = (places[behind] - position) @ self.stack.normal
        slack = tolerance_mm(float(np.diff(self.stack.along_mm).min()))
        if len(behind) == 1:
            is_copy = (
                self.grid.shape[1:] == self.stack.shape[1:] and np.linalg.norm(places[behind[0]] - position) < slack
            )
            return bool(abs(off[0]) <= slack and (is_resampled or is_copy))
        is_between = abs(behind[0] - behind[1]) == 1 and off.min() <= slack and off.max() >= -slack
        return bool(len(behind) == 2 and is_between and is_resampled and abs(off[0]) <= abs(off[1]) + slack)
