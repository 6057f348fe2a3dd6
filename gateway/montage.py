"""One picture of a result: axial slices and coronal views with the segments over them. It shows no text."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from domain.volume import Volume
from volume.axes import Axes
from volume.display import volume_brightness

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Brightness = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

WINDOW_HU = (-600.0, 1500.0)
"""Centre and width of the usual lung window."""
BRIGHTEST = 0.995
"""Where the values have no unit, white is this quantile of those above zero, and black is zero."""
COLUMNS, AXIAL, CORONAL = 6, 18, 6
TILE_PX = 240
OVERLAY = 0.3


def write_montage(
    volume: Volume, labels: npt.NDArray[np.uint8] | None, colours: Sequence[Colour], path: Path
) -> None:
    """Write a PNG of three rows of axial slices, head first, and one row of coronal ones, front first.

    Slices are spread over the labelled part. The patient's right is on the left of the picture, as radiologists look
    at it. The file appears under its name when it is whole.

    Parameters
    ----------
    labels
        On the grid of ``volume``; 0 is background. ``None`` shows the images alone.
    colours
        RGB of label 1, 2 and so on.
    """
    axes = Axes.of(volume.grid)
    voxels = axes.view(volume.voxels)
    seen = axes.view(np.zeros(volume.grid.shape, np.uint8) if labels is None else labels)
    z, y, x = (volume.grid.spacing_mm[axis] for axis in axes.order)
    brightness = _brightness(volume)
    tiles = [
        *(_tile(voxels[k], seen[k], y / x, colours, brightness) for k in _spread(seen, 0, AXIAL)[::-1]),
        *(_tile(voxels[::-1, j], seen[::-1, j], z / x, colours, brightness) for j in _spread(seen, 1, CORONAL)),
    ]
    rows = [np.concatenate(_same_height(tiles[i : i + COLUMNS]), axis=1) for i in range(0, len(tiles), COLUMNS)]
    temporary = path.with_name(f".{path.name}.part")
    Image.fromarray(np.concatenate(rows, axis=0)).save(temporary, format="PNG")
    os.replace(temporary, path)  # noqa: PTH105  # atomic, and says so


def _brightness(volume: Volume) -> Brightness:
    """Return what makes brightness of voxels: by the lung window, else as the source wants it, else from zero on."""
    if volume.unit == "HU":
        return _linear(*WINDOW_HU)
    if len(volume.voi) == 1:
        return volume_brightness(volume)
    sample = volume.voxels[::2, ::4, ::4]
    bright = sample[sample > 0]
    white = float(np.quantile(bright, BRIGHTEST)) if bright.size else 1.0
    return _linear(white / 2, white)


def _linear(centre: float, width: float) -> Brightness:
    return lambda values: np.clip((values - centre) / width + 0.5, 0, 1)


def _spread(labels: npt.NDArray[np.uint8], axis: int, count: int) -> list[int]:
    """Return ``count`` indices along ``axis``, evenly over the labelled part, or over everything."""
    others = tuple(other for other in range(3) if other != axis)
    used = np.flatnonzero(labels.any(axis=others))
    first, last = (used[0], used[-1]) if used.size else (0, labels.shape[axis] - 1)
    return [round(place) for place in np.linspace(first, last, count)]


def _tile(
    image: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    aspect: float,
    colours: Sequence[Colour],
    brightness: Brightness,
) -> Picture:
    """Return one view, ``TILE_PX`` wide; ``aspect`` is the height of a pixel in widths."""
    size = (TILE_PX, max(1, round(TILE_PX * aspect * image.shape[0] / image.shape[1])))
    grey = brightness(image.astype(np.float64)) * 255
    scaled = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize(size), np.float32)
    regions = np.asarray(Image.fromarray(np.ascontiguousarray(labels)).resize(size, Image.Resampling.NEAREST))
    picture = np.repeat(scaled[:, :, None], 3, axis=2)
    for number, colour in enumerate(colours, start=1):
        region = regions == number
        picture[region] = (1 - OVERLAY) * picture[region] + OVERLAY * np.asarray(colour)
        picture[_outline(region)] = colour
    return picture.astype(np.uint8)


def _outline(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of ``region`` with a neighbour outside it."""
    padded = np.pad(region, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inner


def _same_height(tiles: Sequence[Picture]) -> list[Picture]:
    height = max(tile.shape[0] for tile in tiles)
    return [np.pad(tile, ((0, height - tile.shape[0]), (0, 0), (0, 0))) for tile in tiles]
