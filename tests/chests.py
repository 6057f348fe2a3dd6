"""Chest volumes with a known answer, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.context import StudyContext
from domain.engine import Case
from domain.findings import Findings
from domain.volume import Grid, Volume
from gateway.anatomy import Coordinates, chest
from inference.registry import Registry

Voxels = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]
ORIGIN_MM = (-217.5, -217.5, -152.0)


@dataclass(frozen=True, slots=True, eq=False)
class ChestVolume:
    """A volume and the masks that were painted into it; ``at`` has the voxel centres along z, y and x."""

    volume: Volume
    left: Mask
    right: Mask
    at: Coordinates

    def changed(self, change: Callable[[Voxels], object]) -> Volume:
        """Return the volume after ``change`` was applied to a copy of its voxels."""
        voxels = self.volume.voxels.astype(np.int16)
        change(voxels)
        return volume_of(voxels, self.volume.grid.affine)


def volume_of(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> Volume:
    """Return a CT volume in HU on the grid that ``affine`` spans."""
    slices, rows, columns = voxels.shape
    return Volume(
        voxels=np.ascontiguousarray(voxels),
        grid=Grid(shape=(slices, rows, columns), affine=affine.copy(), frame_of_reference_uid="2.25.1"),
        sop_instance_uids=tuple(f"2.25.{number + 1}" for number in range(slices)),
        unit="HU",
    )


@lru_cache(maxsize=2)
def chest_volume(slices: int = 72, rows: int = 108) -> ChestVolume:
    """Return the phantom's chest on a coarse axial grid, with noise and without files."""
    shape, spacing = (slices, rows, rows), (288 / slices, 435 / rows, 435 / rows)
    z, y, x = (
        np.asarray(start + (np.arange(length) + 0.5) * step, np.float32)
        for start, length, step in zip(ORIGIN_MM[::-1], shape, spacing, strict=True)
    )
    at = Coordinates(z[:, None, None], y[None, :, None], x[None, None, :])
    random = np.random.default_rng(1)
    made = chest(at, random)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]]
    affine[:3, 3] = x[0], y[0], z[0]
    voxels = np.clip(made.hu + random.normal(0, 18, shape), -1024, 3071).astype(np.int16)
    return ChestVolume(volume_of(voxels, affine), made.left, made.right, at)


def lungs_in(volume: Volume, context: StudyContext | None = None) -> Findings:
    """Return what the engine ``lungs`` finds."""
    return Registry({}).engine("lungs").run(Case(volume=volume, context=context or StudyContext()))


def millilitres(findings: Findings, volume: Volume) -> dict[str, float]:
    """Return the volume of each segment's mask by its key."""
    assert findings.labels is not None
    return {
        segment.key: float(np.count_nonzero(findings.labels == number)) * volume.grid.voxel_volume_ml
        for number, segment in enumerate(findings.segments, start=1)
    }


def dice(mask: Mask, truth: Mask) -> float:
    """Return twice the overlap over the sum."""
    return float(2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth)))
