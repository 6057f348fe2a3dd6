"""The working grid: the case in axial LPS order at 2 to 3 mm, and the way back to the source grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.volume import Volume
from volume.axes import Axes

WORKING_SPACING_MM = 2.5
AIR_HU = -1024
"""Padding below air (a GE scanner writes -3024) would pull block means down."""

FloatGrid = npt.NDArray[np.float32]
BoolGrid = npt.NDArray[np.bool_]
LabelGrid = npt.NDArray[np.uint8]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class WorkingGrid:
    """Block means of a volume.

    Attributes
    ----------
    hu
        Mean of each block, shape ``(z, y, x)`` in the patient's order, not below ``AIR_HU``.
    spacing_mm
        Of the blocks, along (z, y, x).
    blocks
        Source voxels in a block along (z, y, x); the last block of an axis may hold fewer.
    axes
        From the source grid to the patient's order.
    """

    hu: FloatGrid
    spacing_mm: Triple
    blocks: tuple[int, int, int]
    axes: Axes

    @property
    def voxel_ml(self) -> float:
        """Volume of a whole block."""
        return float(np.prod(self.spacing_mm)) / 1000


def working_grid(volume: Volume) -> WorkingGrid:
    """Return ``volume`` averaged over blocks of about ``WORKING_SPACING_MM``.

    The patient's order comes first and the blocks second: the same picture stored along other axes gives the same
    blocks, and hence the same lungs.
    """
    axes = Axes.of(volume.grid)
    source = axes.view(volume.voxels)
    z, y, x = (volume.grid.spacing_mm[axis] for axis in axes.order)
    blocks = (_block(z), _block(y), _block(x))
    return WorkingGrid(
        hu=_block_means(source, blocks),
        spacing_mm=(z * blocks[0], y * blocks[1], x * blocks[2]),
        blocks=blocks,
        axes=axes,
    )


def _block(spacing_mm: float) -> int:
    return max(1, round(WORKING_SPACING_MM / spacing_mm))


def _block_means(source: npt.NDArray[Any], blocks: tuple[int, int, int]) -> FloatGrid:
    """Return block means, one slab of slices at a time: the source is large, and is read once."""
    starts = [np.arange(0, length, block) for length, block in zip(source.shape, blocks, strict=True)]
    in_plane = np.outer(
        np.diff(np.append(starts[1], source.shape[1])), np.diff(np.append(starts[2], source.shape[2]))
    )
    means = np.empty([len(start) for start in starts], np.float32)
    kind = np.float32 if source.dtype.kind == "f" else np.int32
    for index, start in enumerate(starts[0]):
        slab = source[start : start + blocks[0]]
        total = np.maximum(slab, AIR_HU).sum(axis=0, dtype=kind)
        total = np.add.reduceat(np.add.reduceat(total, starts[1], axis=0), starts[2], axis=1)
        means[index] = total / (in_plane * len(slab))
    return means


def to_source(
    grid: WorkingGrid, volume: Volume, certain: LabelGrid, possible: LabelGrid, below_hu: float
) -> LabelGrid:
    """Return labels on the source grid whose border follows the source image.

    A source voxel takes the label of its block in ``certain``; where that is 0, it takes the one in ``possible`` if
    the voxel itself is below ``below_hu``.
    """
    labels = np.zeros(volume.grid.shape, np.uint8)
    target, source = grid.axes.view(labels), grid.axes.view(volume.voxels)
    z, y, x = grid.blocks
    rows, columns = source.shape[1:]
    for block in np.flatnonzero(possible.any(axis=(1, 2)) | certain.any(axis=(1, 2))):
        sure, maybe = (
            plane[block].repeat(y, axis=0)[:rows].repeat(x, axis=1)[:, :columns] for plane in (certain, possible)
        )
        inside = sure != 0
        for index in range(block * z, min((block + 1) * z, source.shape[0])):
            target[index] = np.where(inside, sure, maybe * (source[index] < below_hu))
    return labels
