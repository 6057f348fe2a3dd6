"""Where the findings of a result lie: on the source's images, or on the regular grid that was made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dicom_out.frames import Slice
from dicom_out.masks import Masks, masks_of
from dicom_out.source import Source, SourceImage, written_position
from domain.findings import Findings
from domain.image import Raster
from domain.ports import Result
from domain.volume import Grid

_ON_SLICE = 1e-3
"""Share of a slice distance, or of a pixel, that counts as none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Findings on one grid; without slots, since the masks are computed when they are first asked for."""

    findings: Findings
    grid: Grid | Raster
    slices: tuple[Slice, ...] = field(repr=False)
    """What is behind each slice of the grid, in order."""
    images: tuple[SourceImage, ...] = field(repr=False)
    """The images of the source that were used."""
    is_resampled: bool = False

    @cached_property
    def masks(self) -> Masks | None:
        """Where the segments are; ``None`` where the engine gives no masks."""
        return masks_of(self.findings)

    @property
    def instances(self) -> list[tuple[str, str]]:
        """SOP Class and Instance UID of the images."""
        return [(image.sop_class_uid, image.sop_instance_uid) for image in self.images]


def on_source(result: Result, source: Source) -> Placement:
    """Return the findings on the source's images.

    The position is the one the source wrote, so that position and reference name the same slice to the last digit;
    only that of a tile of a mosaic is computed.
    Findings on images without patient coordinates lie on the first of them, whatever its header says of a place.
    """
    images = source.images[: result.grid.shape[0]]
    is_placed = not isinstance(result.grid, Raster)
    return Placement(
        findings=result.findings,
        grid=result.grid,
        slices=tuple(Slice(position=image.position if is_placed else None, images=(image,)) for image in images),
        images=images,
    )


def on_regular(result: Result, source: Source) -> Placement:
    """Return the findings of a resampled result where the engine made them."""
    analysed, stack = result.analysed, result.patient_grid
    if analysed is None:
        raise ValueError("only what was resampled has a regular grid of its own")
    images = source.images[: stack.shape[0]]
    return Placement(
        findings=analysed.findings,
        grid=analysed.grid,
        slices=tuple(_regular_slices(analysed.grid, stack, images)),
        images=images,
        is_resampled=True,
    )


def _regular_slices(grid: Grid, stack: Grid, images: tuple[SourceImage, ...]) -> Iterator[Slice]:
    """Yield the slices of the regular grid: in the plane of a source slice, or between the two it was made from."""
    corners = grid.to_lps([(k, 0, 0) for k in range(grid.shape[0])])
    depths = (corners - stack.to_lps((0, 0, 0))) @ stack.normal
    for corner, at in zip(corners, np.interp(depths, stack.along_mm, np.arange(len(images))), strict=True):
        below = int(at + _ON_SLICE)
        share = float(at) - below
        between = (below, below + 1) if share <= 0.5 else (below + 1, below)
        behind = (below,) if share <= _ON_SLICE else between
        shift_mm = float(np.linalg.norm(corner - stack.to_lps((below, 0, 0))))
        is_copy = (
            len(behind) == 1 and shift_mm <= _ON_SLICE * min(stack.spacing_mm) and grid.shape[1:] == stack.shape[1:]
        )
        yield Slice(
            position=written_position(corner), images=tuple(images[k] for k in behind), is_resampled=not is_copy
        )
