"""From the headers of a stack to a proven grid, or to the reason why there is none. No pixels are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import RESAMPLABLE, RefusalCode, Resample, Stack
from domain.volume import FloatArray, Grid
from volume.numbers import instance_numbers
from volume.pixel_format import check_pixel_format
from volume.planes import ORIENTATION_TOLERANCE, Plane, planes_of
from volume.spacing import check_lattice, median


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackGeometry:
    """A stack that is proven to be a regular volume, or one that can be resampled to one.

    Attributes
    ----------
    grid
        Where its voxels lie.
    resample
        What keeps ``grid`` from being regular; empty where it is. ``volume.resample`` then makes the volume.
    headers
        One instance a slice, in slice order of ``grid``.
    deviation_mm
        Largest distance between an ImagePositionPatient and its place on ``grid``.
    """

    grid: Grid
    headers: tuple[Header, ...] = field(repr=False)
    deviation_mm: float
    resample: frozenset[Resample] = frozenset()


def geometry(stack: Stack, allowed: Collection[Resample] = ()) -> StackGeometry:
    """Prove that a stack is a regular volume, by its headers alone.

    The order and the spacing of slices come from ImagePositionPatient projected on the normal of
    ImageOrientationPatient (PS3.3 C.7.6.2.1.1); InstanceNumber, SliceLocation, SliceThickness and
    SpacingBetweenSlices decide nothing. The result does not depend on the order of ``stack.headers``.

    Parameters
    ----------
    allowed
        What a stack may have that makes it irregular, to be resampled. A regular stack stays as it is.

    Raises
    ------
    AssemblyError
        The stack is no regular volume; code, sentence and instance numbers say why. A stack that was refused before
        is refused again for the same reason.
    """
    if stack.refusal is not None and RESAMPLABLE.get(stack.refusal.code) not in allowed:
        raise AssemblyError(stack.refusal.code, stack.refusal.reason, stack.refusal.instance_numbers)
    if not stack.headers:
        raise ValueError("a stack has at least one instance")
    planes = planes_of(stack.headers)
    check_pixel_format(stack.headers)
    orientation = common_orientation([plane.orientation for plane in planes])
    _check_orthonormal(orientation, stack.headers)
    if len(planes) == 1:
        raise AssemblyError(
            RefusalCode.SINGLE_SLICE,
            "There is one slice only. How much of the patient it stands for is unknown (SliceThickness is not a "
            "distance between slices), so it is no volume. Send the whole series.",
            instance_numbers(stack.headers),
        )
    return _on_lattice(planes, orientation, allowed)


def common_orientation(orientations: Sequence[Sequence[float]]) -> FloatArray:
    """Return the median of ImageOrientationPatient, shape ``(6,)``: what all agree on within tolerance."""
    return median(np.asarray(orientations, np.float64))


def normal_of(orientation: FloatArray) -> FloatArray:
    """Return the unit normal ``row direction x column direction`` of the slices."""
    normal: FloatArray = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def _on_lattice(planes: Sequence[Plane], orientation: FloatArray, allowed: Collection[Resample]) -> StackGeometry:
    row, column, normal = orientation[:3], orientation[3:], normal_of(orientation)
    positions = np.array([plane.position_mm for plane in planes], np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    positions, headers = positions[order], tuple(planes[k].header for k in order)
    resample = check_lattice(positions, normal, row, headers, allowed)

    count, first = len(headers), planes[order[0]]
    index = np.arange(count) - (count - 1) / 2
    step = index @ positions / (index @ index)  # least squares: the rounding of single positions averages out
    between_rows, between_columns = first.pixel_spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column * between_rows  # the next row lies along the column direction
    affine[:3, 2] = row * between_columns
    affine[:3, 3] = positions.mean(axis=0) - step * (count - 1) / 2
    grid = Grid(
        shape=(count, first.rows, first.columns),
        affine=affine,
        frame_of_reference_uid=first.frame_of_reference_uid,
        positions_mm=positions if Resample.VARIABLE_SPACING in resample else None,
    )
    corners = grid.to_lps([(k, 0, 0) for k in range(count)])
    deviation = float(np.linalg.norm(corners - positions, axis=1).max())
    return StackGeometry(grid=grid, headers=headers, deviation_mm=deviation, resample=resample)


def _check_orthonormal(orientation: FloatArray, headers: Sequence[Header]) -> None:
    """Raise ``AssemblyError`` unless row and column direction are perpendicular unit vectors (PS3.3 C.7.6.2.1.1)."""
    row, column = orientation[:3], orientation[3:]
    faults = (float(row @ row) - 1, float(column @ column) - 1, float(row @ column))
    if max(map(abs, faults)) > ORIENTATION_TOLERANCE:
        raise AssemblyError(
            RefusalCode.ORIENTATION_NOT_ORTHONORMAL,
            "The two directions of ImageOrientationPatient are not perpendicular unit vectors, so positions cannot "
            "be computed from them. Send the original images, not a processed copy.",
            instance_numbers(headers),
        )
