"""A regularly sampled image in patient space."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels of a volume lie.

    Attributes
    ----------
    shape
        ``(slices, rows, columns)``.
    affine
        4 x 4. Maps an index ``(slice, row, column, 1)`` to the *centre* of that voxel in LPS millimetres
        (PS3.3 C.7.6.2.1.1): +x to the patient's left, +y posterior, +z towards the head. Slices ascend along
        the normal ``row direction x column direction``, so the determinant of the 3 x 3 part in
        ``(column, row, slice)`` order is positive. Read-only.
    frame_of_reference_uid
        Grids are comparable only where this is equal.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    frame_of_reference_uid: str

    def __post_init__(self) -> None:
        if self.affine.shape != (4, 4):
            raise ValueError(f"affine must be 4 x 4, not {self.affine.shape}")
        self.affine.setflags(write=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the slice, row and column index axes."""
        dk, dj, di = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(dk), float(dj), float(di)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_lps(self, index: npt.ArrayLike) -> FloatArray:
        """Return LPS positions in mm of indices ``(slice, row, column)``; shape ``(..., 3)`` in and out."""
        position: FloatArray = np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return position

    def to_index(self, position_mm: npt.ArrayLike) -> FloatArray:
        """Return (fractional) indices ``(slice, row, column)`` of LPS positions in mm; the inverse of ``to_lps``."""
        offset = np.asarray(position_mm, np.float64) - self.affine[:3, 3]
        index: FloatArray = offset @ np.linalg.inv(self.affine[:3, :3]).T
        return index


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """Voxels on a grid, with the instance behind each slice.

    Attributes
    ----------
    voxels
        Shape ``grid.shape``; int16 or float32. For CT in Hounsfield units, i.e. after the Modality LUT
        (PS3.3 C.11.1); padding replaced by ``padding_value``. Read-only.
    sop_instance_uids
        Source instance of each slice, in slice order.
    frame_numbers
        Frame of that instance, from 1; ``None`` where the slice is the whole instance. Empty where all are.
    unit
        ``HU``, or what RescaleType (in PET Units) says, or empty for arbitrary units.
    padding_value
        What stands where the source had padding (PS3.3 C.7.5.1.1.2); ``None`` where no voxel was padding.
    suv_body_weight_factor
        In PET: what to multiply voxels by for the standardised uptake value by body weight (g/ml); ``None`` where
        the headers do not give it beyond doubt.
    """

    voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    grid: Grid
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    unit: str = ""
    padding_value: float | None = None
    frame_numbers: tuple[int | None, ...] = ()
    suv_body_weight_factor: float | None = None

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"voxels {self.voxels.shape} are not on the grid {self.grid.shape}")
        if len(self.sop_instance_uids) != self.grid.shape[0]:
            raise ValueError("one source instance is needed for each slice")
        if self.frame_numbers and len(self.frame_numbers) != self.grid.shape[0]:
            raise ValueError("one frame number is needed for each slice")
        self.voxels.setflags(write=False)
