"""A regularly sampled image in patient space."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from domain.voi import Voi

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
    positions_mm
        Centre of the first voxel of each slice, shape ``(slices, 3)``, where the slices are not at equal steps;
        ``None`` everywhere else, and in every ``Volume``. The first column of ``affine`` is then the mean step.
        Between slices, positions are interpolated. Read-only.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    frame_of_reference_uid: str
    positions_mm: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.affine.shape != (4, 4):
            raise ValueError(f"affine must be 4 x 4, not {self.affine.shape}")
        self.affine.setflags(write=False)
        if self.positions_mm is not None:
            if self.positions_mm.shape != (self.shape[0], 3) or self.shape[0] < 2:
                raise ValueError("one position is needed for each of at least two slices")
            self.positions_mm.setflags(write=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along the slice, row and column index axes."""
        dk, dj, di = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(dk), float(dj), float(di)

    @property
    def normal(self) -> FloatArray:
        """Unit normal of the slices, ``row direction x column direction``."""
        normal: FloatArray = np.cross(self.affine[:3, 2], self.affine[:3, 1])
        return normal / np.linalg.norm(normal)

    @property
    def along_mm(self) -> FloatArray:
        """Place of each slice along the normal, from the first; shape ``(slices,)``."""
        if self.positions_mm is None:
            step: FloatArray = np.arange(self.shape[0]) * (self.affine[:3, 0] @ self.normal)
            return step
        along: FloatArray = (self.positions_mm - self.positions_mm[0]) @ self.normal
        return along

    @property
    def slice_distance_mm(self) -> float | None:
        """Distance between neighbouring slices along their normal; ``None`` where it varies.

        In a sheared grid it is less than ``spacing_mm[0]``.
        """
        return None if self.positions_mm is not None else float(self.affine[:3, 0] @ self.normal)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel; where slices are not at equal steps, the mean of all voxels."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def voxel_volumes_ml(self) -> FloatArray:
        """Volume of one voxel of each slice, which reaches half-way to its neighbours; shape ``(slices,)``."""
        if self.positions_mm is None:
            return np.full(self.shape[0], self.voxel_volume_ml)
        _, between_rows, between_columns = self.spacing_mm
        gaps = np.diff(self.along_mm)
        reach = np.concatenate([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
        volumes: FloatArray = reach * between_rows * between_columns / 1000.0
        return volumes

    def to_lps(self, index: npt.ArrayLike) -> FloatArray:
        """Return LPS positions in mm of indices ``(slice, row, column)``; shape ``(..., 3)`` in and out."""
        at = np.asarray(index, float)
        if self.positions_mm is None:
            position: FloatArray = at @ self.affine[:3, :3].T + self.affine[:3, 3]
            return position
        return _interpolated(self.positions_mm, at[..., 0]) + at[..., 1:] @ self.affine[:3, 1:3].T

    def to_index(self, position_mm: npt.ArrayLike) -> FloatArray:
        """Return (fractional) indices ``(slice, row, column)`` of LPS positions in mm; the inverse of ``to_lps``."""
        position = np.asarray(position_mm, np.float64)
        if self.positions_mm is None:
            index: FloatArray = (position - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T
            return index
        along, places = (position - self.positions_mm[0]) @ self.normal, self.along_mm
        before = np.clip(np.searchsorted(places, along, side="right") - 1, 0, len(places) - 2)
        k = before + (along - places[before]) / (places[before + 1] - places[before])
        inside = (position - _interpolated(self.positions_mm, k)) @ np.linalg.pinv(self.affine[:3, 1:3]).T
        return np.concatenate([np.expand_dims(k, -1), inside], axis=-1)


def _interpolated(positions_mm: FloatArray, k: FloatArray) -> FloatArray:
    """Return the position at (fractional) indices; beyond the ends by their last step."""
    before = np.clip(np.floor(k).astype(int), 0, len(positions_mm) - 2)
    step = positions_mm[before + 1] - positions_mm[before]
    found: FloatArray = positions_mm[before] + np.expand_dims(k - before, -1) * step
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """Voxels on a grid, with the instance behind each slice.

    Attributes
    ----------
    voxels
        Shape ``grid.shape``; int16 or float32. For CT in Hounsfield units, i.e. after the Modality LUT
        (PS3.3 C.11.1); padding replaced by ``padding_value``. Read-only.
    sop_instance_uids
        Source instance of each slice, in slice order; of the nearest slice where the volume was resampled.
    frame_numbers
        Frame of that instance, from 1; ``None`` where the slice is the whole instance. Empty where all are.
    unit
        ``HU``, or what RescaleType (in PET Units) says, or empty for arbitrary units.
    padding_value
        What stands where the source had padding (PS3.3 C.7.5.1.1.2); ``None`` where no voxel was padding.
    suv_body_weight_factor
        In PET: what to multiply voxels by for the standardised uptake value by body weight (g/ml); ``None`` where
        the headers do not give it beyond doubt.
    voi
        How the source wants slices shown, for pictures: one for all where they agree, else one a slice (that of the
        nearest where the volume was resampled); empty where it says nothing. See ``voi_of``.
    photometric_interpretation
        ``MONOCHROME2``, or ``MONOCHROME1`` where low values are to be shown bright; the voxels are not inverted.
    """

    voxels: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    grid: Grid
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    unit: str = ""
    padding_value: float | None = None
    frame_numbers: tuple[int | None, ...] = ()
    suv_body_weight_factor: float | None = None
    voi: tuple[Voi, ...] = field(default=(), repr=False)
    photometric_interpretation: str = "MONOCHROME2"

    def __post_init__(self) -> None:
        if self.voxels.shape != self.grid.shape:
            raise ValueError(f"voxels {self.voxels.shape} are not on the grid {self.grid.shape}")
        if self.grid.positions_mm is not None:
            raise ValueError("a volume has slices at equal steps")
        if len(self.sop_instance_uids) != self.grid.shape[0]:
            raise ValueError("one source instance is needed for each slice")
        if self.frame_numbers and len(self.frame_numbers) != self.grid.shape[0]:
            raise ValueError("one frame number is needed for each slice")
        if len(self.voi) > 1 and len(self.voi) != self.grid.shape[0]:
            raise ValueError("one way of showing is needed for each slice, or for all")
        self.voxels.setflags(write=False)

    def voi_of(self, index: int) -> Voi:
        """Return how the source wants a slice shown, from 0; empty where it does not say."""
        return self.voi[index if len(self.voi) > 1 else 0] if self.voi else Voi()
