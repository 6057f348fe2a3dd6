"""From slices that are sheared or unevenly spaced to a regular volume, where a route allows that.

The output slices are parallel to the source's, with its pixel spacing, straight above one another. Without
``variable_spacing`` they lie in the very planes of the source, so that every value comes from one source slice and is
interpolated along its columns (and rows) only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from domain.prompt import ObjectPrompt, Position, Prompt, SliceMask, Space
from domain.series import Resample
from domain.volume import FloatArray, Grid
from volume.geometry import StackGeometry

Voxels = npt.NDArray[np.int16] | npt.NDArray[np.float32]

_ON_SLICE = 1e-3
"""Share of a slice distance, or of a pixel, that counts as none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampling:
    """How a source grid and the regular grid made from it lie to each other.

    Attributes
    ----------
    source, regular
        In the same frame of reference, with the same directions of rows and columns and the same pixel spacing.
    resample
        What was taken out.
    shift
        Row and column of ``regular`` at which the first pixel of each source slice lies; shape ``(slices, 2)``.
    """

    source: Grid
    regular: Grid
    resample: frozenset[Resample]
    shift: FloatArray

    @property
    def source_at(self) -> FloatArray:
        """Return the (fractional) source slice of each regular slice."""
        places: FloatArray = np.interp(
            self.regular.along_mm, self.source.along_mm, np.arange(self.source.shape[0], dtype=float)
        )
        return places

    @property
    def regular_at(self) -> FloatArray:
        """Return the (fractional) regular slice of each source slice."""
        places: FloatArray = self.source.along_mm / self.regular.spacing_mm[0]
        return places.clip(0, self.regular.shape[0] - 1)

    @property
    def nearest_source(self) -> npt.NDArray[np.int_]:
        """Return the source slice that is nearest to each regular slice."""
        distances = np.abs(self.regular.along_mm[:, None] - self.source.along_mm[None])
        nearest: npt.NDArray[np.int_] = distances.argmin(axis=1)
        return nearest

    @property
    def tilt_deg(self) -> float:
        """Angle between the slices' normal and the line through their first pixels; 0 where they are not sheared."""
        offset = self.source.to_lps((self.source.shape[0] - 1, 0, 0)) - self.source.to_lps((0, 0, 0))
        cosine = float(offset @ self.source.normal / np.linalg.norm(offset))
        return float(np.degrees(np.arccos(min(1.0, cosine))))


def resampling_of(proven: StackGeometry) -> Resampling:
    """Return the regular grid for a stack that ``volume.geometry.geometry`` let pass with ``resample``.

    It covers everything that the source covers. Its slice distance is that of the source; where that varies, the
    smallest one, or so much less that first and last slice stay where they are.
    """
    source = proven.grid
    count, rows, columns = source.shape
    along = source.along_mm
    distance = source.slice_distance_mm
    if distance is None:
        count = round(float(np.ceil(along[-1] / np.diff(along).min() - _ON_SLICE))) + 1
        distance = float(along[-1]) / (count - 1)
    first = source.to_lps([(k, 0, 0) for k in range(source.shape[0])])
    in_plane = first - first[0] - np.outer(along, source.normal)
    shift = in_plane @ np.linalg.pinv(source.affine[:3, 1:3]).T
    low, extent = shift.min(axis=0), np.ceil(np.ptp(shift, axis=0) - _ON_SLICE).astype(int)
    affine = source.affine.copy()
    affine[:3, 0] = source.normal * distance
    affine[:3, 3] = first[0] + source.affine[:3, 1:3] @ low
    regular = Grid(
        shape=(count, rows + int(extent[0]), columns + int(extent[1])),
        affine=affine,
        frame_of_reference_uid=source.frame_of_reference_uid,
    )
    return Resampling(source=source, regular=regular, resample=proven.resample, shift=shift - low)


def resampled(voxels: Voxels, plan: Resampling, fill: float) -> Voxels:
    """Return the voxels on the regular grid, by linear interpolation; ``fill`` where the source has none."""
    out: Voxels = np.empty(plan.regular.shape, voxels.dtype)
    straightened: dict[int, npt.NDArray[np.float32]] = {}
    last = plan.source.shape[0] - 1
    for place, k in enumerate(plan.source_at):
        below = min(int(k + _ON_SLICE), last)
        weight = float(k) - below
        needed = (below,) if weight <= _ON_SLICE else (below, below + 1)
        straightened = {
            n: straightened[n] if n in straightened else _straight(voxels[n], plan, n, fill) for n in needed
        }
        plane = straightened[below]
        if len(needed) == 2:
            plane = plane * np.float32(1 - weight) + straightened[below + 1] * np.float32(weight)
        out[place] = np.rint(plane) if out.dtype == np.int16 else plane
    return out


def _straight(plane: Voxels, plan: Resampling, k: int, fill: float) -> npt.NDArray[np.float32]:
    """Return one source slice on the rows and columns of the regular grid."""
    moved = plane.astype(np.float32)
    for axis in (0, 1):
        moved = _moved(moved, float(plan.shift[k, axis]), plan.regular.shape[1 + axis], axis, fill)
    return moved


def _moved(
    plane: npt.NDArray[np.float32], shift: float, length: int, axis: int, fill: float
) -> npt.NDArray[np.float32]:
    """Return ``plane`` moved by ``shift`` pixels along ``axis``, which gets ``length`` pixels."""
    if abs(shift) <= _ON_SLICE and length == plane.shape[axis]:
        return plane
    at = np.arange(length) - shift
    inside = (at >= -0.5) & (at <= plane.shape[axis] - 0.5)
    at = at.clip(0, plane.shape[axis] - 1)
    low = np.floor(at).astype(int)
    share = (at - low).astype(np.float32)
    share, inside = (np.expand_dims(x, 1 - axis) for x in (share, inside))
    high = np.minimum(low + 1, plane.shape[axis] - 1)
    mixed = np.take(plane, low, axis) * (1 - share) + np.take(plane, high, axis) * share
    return np.where(inside, mixed, np.float32(fill))


def prompt_on_regular(prompt: Prompt, plan: Resampling) -> Prompt:
    """Return in voxels of the regular grid what points at the source's slices.

    Raises
    ------
    NotApplicable
        See ``Prompt.on``.
    """
    placed = prompt.on(plan.source)
    regular_at = plan.regular_at

    def moved(position: Position) -> Position:
        k, row, column = position
        shift = plan.shift[round(k)]
        return float(np.rint(regular_at[round(k)])), row + float(shift[0]), column + float(shift[1])

    return Prompt(
        objects=tuple(_moved_object(item, moved, plan) for item in placed.objects),
        space=Space.VOXEL,
        drawing=prompt.drawing,
    )


def _moved_object(item: ObjectPrompt, moved: Callable[[Position], Position], plan: Resampling) -> ObjectPrompt:
    return replace(
        item,
        boxes=tuple(replace(box, corners=_pair(box.corners, moved)) for box in item.boxes),
        long_axes=tuple(replace(axis, ends=_pair(axis.ends, moved)) for axis in item.long_axes),
        points=tuple(replace(point, at=moved(point.at)) for point in item.points),
        masks=tuple(_moved_mask(mask, plan) for mask in item.masks),
    )


def _pair(pair: tuple[Position, Position], moved: Callable[[Position], Position]) -> tuple[Position, Position]:
    return moved(pair[0]), moved(pair[1])


def _moved_mask(mask: SliceMask, plan: Resampling) -> SliceMask:
    pixels = np.zeros(plan.regular.shape[1:], np.bool_)
    row, column = np.rint(plan.shift[mask.slice]).astype(int)
    rows, columns = mask.pixels.shape
    pixels[row : row + rows, column : column + columns] = mask.pixels
    return replace(mask, slice=round(float(plan.regular_at[mask.slice])), pixels=pixels)
