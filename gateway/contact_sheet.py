"""A picture of everything that was found: one numbered row of views a stack, and no other text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from domain.errors import GatewayError
from gateway.inspection import StackReport
from volume.assembly import assemble
from volume.axes import Axes
from volume.display import Picture, read_picture, volume_brightness

TILE_PX = 160
VIEWS = 3
"""Axial, coronal and sagittal of a volume; first, middle and last of anything else."""


def write_contact_sheet(reports: Sequence[tuple[int, StackReport]], path: Path) -> None:
    """Write a PNG; a stack whose pixels cannot be read has an empty row.

    One stack is in memory at a time. At the left stands its number in the table.
    """
    sheet = Image.new("RGB", (TILE_PX * VIEWS, TILE_PX * max(1, len(reports))))
    pen = ImageDraw.Draw(sheet)
    for row, (number, report) in enumerate(reports):
        top = row * TILE_PX
        for place, tile in enumerate(_views(report)):
            image = Image.fromarray(tile)
            image.thumbnail((TILE_PX, TILE_PX))
            left = place * TILE_PX + (TILE_PX - image.width) // 2
            sheet.paste(image, (left, top + (TILE_PX - image.height) // 2))
        pen.text((3, top + 2), str(number), fill=(255, 220, 0))
    temporary = path.with_name(f".{path.name}.part")
    sheet.save(temporary, format="PNG")
    os.replace(temporary, path)  # noqa: PTH105  # atomic, and says so


def _views(report: StackReport) -> list[Picture]:
    try:
        return _planes(report) if report.grid is not None else _images(report)
    except GatewayError:
        return []


def _planes(report: StackReport) -> list[Picture]:
    """Return the middle axial, coronal and sagittal plane, the patient's right at the left, as radiologists look."""
    volume = assemble(report.stack, report.paths, report.resample)
    axes = Axes.of(volume.grid)
    voxels = axes.view(volume.voxels)
    z, y, x = (volume.grid.spacing_mm[axis] for axis in axes.order)
    k, j, i = (length // 2 for length in voxels.shape)
    bright = volume_brightness(volume)
    planes: list[tuple[npt.NDArray[Any], float]] = [
        (voxels[k], y / x),
        (voxels[::-1, j], z / x),
        (voxels[::-1, :, i], z / y),
    ]
    return [_shown(bright(plane.astype(np.float64)), aspect) for plane, aspect in planes]


def _shown(plane: npt.NDArray[np.float64], aspect: float) -> Picture:
    grey = np.rint(plane * 255).astype(np.uint8)
    height = plane.shape[0] * aspect
    scale = TILE_PX / max(height, plane.shape[1])
    size = (max(1, round(plane.shape[1] * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(grey).convert("RGB").resize(size), np.uint8)


def _images(report: StackReport) -> list[Picture]:
    frames = [
        (header, frame)
        for header in report.stack.headers
        if header.has_pixel_data
        for frame in range(1, (header.number_of_frames or 1) + 1)
    ]
    chosen = sorted({0, len(frames) // 2, len(frames) - 1}) if frames else []
    return [read_picture(frames[n][0], report.paths[frames[n][0].sop_instance_uid], frames[n][1]) for n in chosen]
