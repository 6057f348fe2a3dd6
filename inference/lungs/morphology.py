"""Binary morphology in millimetres on the working grid.

Nothing is known beyond the faces of the array, so nothing is eroded from there: a lung that the stack cuts keeps its
cut face.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from inference.lungs.working import BoolGrid, FloatGrid, Triple

IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
"""Neighbours inside an axial slice only."""

ComponentGrid = npt.NDArray[np.int32]
BoolVector = npt.NDArray[np.bool_]


def components(mask: BoolGrid, *, in_plane: bool = False) -> tuple[ComponentGrid, npt.NDArray[np.int64]]:
    """Return face-connected components numbered from 1, and the voxels of each number (0 is background)."""
    numbers, _ = ndimage.label(mask, IN_PLANE if in_plane else None)  # type: ignore[attr-defined]
    return numbers, np.bincount(numbers.ravel())


def places(numbers: ComponentGrid) -> list[tuple[slice, slice, slice]]:
    """Return the bounding box of each component, the first being that of number 1."""
    boxes: list[tuple[slice, slice, slice]] = ndimage.find_objects(numbers)  # type: ignore[attr-defined]
    return boxes


def select(numbers: ComponentGrid, chosen: BoolVector) -> BoolGrid:
    """Return the voxels of the components that ``chosen`` names; its item 0 stands for the background."""
    mask: BoolGrid = chosen[numbers]
    return mask


def distance_mm(mask: BoolGrid, spacing_mm: Triple) -> FloatGrid:
    """Return each voxel's distance to the nearest voxel of ``mask`` (0 inside); infinite where ``mask`` is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing(spacing_mm[::-1])  # type: ignore[no-untyped-call]
    signed = sitk.SignedMaurerDistanceMap(  # type: ignore[no-untyped-call]
        image, squaredDistance=False, useImageSpacing=True
    )
    distance: FloatGrid = sitk.GetArrayFromImage(signed)
    return np.maximum(distance, 0, out=distance)


def dilated(mask: BoolGrid, spacing_mm: Triple, by_mm: float) -> BoolGrid:
    """Return the voxels within ``by_mm`` of ``mask``."""
    result = np.zeros_like(mask)
    if mask.any():
        box = _box(mask, spacing_mm, by_mm)
        result[box] = distance_mm(np.ascontiguousarray(mask[box]), spacing_mm) <= by_mm
    return result


def eroded(mask: BoolGrid, spacing_mm: Triple, by_mm: float) -> BoolGrid:
    """Return the voxels of ``mask`` that are farther than ``by_mm`` from its outside."""
    result = np.zeros_like(mask)
    if mask.any():
        box = _box(mask, spacing_mm, max(spacing_mm))
        result[box] = distance_mm(~mask[box], spacing_mm) > by_mm
    return result


def opened(mask: BoolGrid, spacing_mm: Triple, by_mm: float) -> BoolGrid:
    """Return ``mask`` without what is thinner than about twice ``by_mm``."""
    return dilated(eroded(mask, spacing_mm, by_mm), spacing_mm, by_mm) & mask


def closed(mask: BoolGrid, spacing_mm: Triple, by_mm: float) -> BoolGrid:
    """Return ``mask`` with gaps narrower than about twice ``by_mm``, and with cavities, filled."""
    return filled(eroded(dilated(mask, spacing_mm, by_mm), spacing_mm, by_mm) | mask)


def filled(mask: BoolGrid) -> BoolGrid:
    """Return ``mask`` with the cavities that do not reach a face of the array."""
    numbers, _ = components(~mask)
    open_to_a_face = np.unique(
        np.concatenate([numbers.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])
    )
    return mask | ~np.isin(numbers, open_to_a_face) & (numbers > 0)


def _box(mask: BoolGrid, spacing_mm: Triple, margin_mm: float) -> tuple[slice, slice, slice]:
    """Return the bounding box of a non-empty mask, widened by ``margin_mm``."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        (used,) = np.nonzero(mask.any(axis=others))
        margin = int(np.ceil(margin_mm / spacing_mm[axis])) + 1
        sides.append(slice(max(0, used[0] - margin), used[-1] + 1 + margin))
    return sides[0], sides[1], sides[2]
