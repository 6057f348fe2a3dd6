"""``voxgate run --preview``: one PNG of what was found, a row of key images for each result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dicom_out.keyimages import key_images
from domain.job import ResultObject
from domain.ports import Result, ResultWriter
from volume.display import Picture

TILE_PX = 768
MOST_ROWS = 32
"""Results beyond these are not shown: a picture of hundreds of rows is none to look at."""


class Preview:
    """Collects pictures of what a writer has written and proven to be right."""

    def __init__(self) -> None:
        self._rows: list[list[Picture]] = []

    def around(self, writer: ResultWriter) -> ResultWriter:
        """Return a writer that does what ``writer`` does, and adds a row for each result."""
        return _Drawing(writer, self)

    def add(self, result: Result) -> None:
        """Add a row; a result in which nothing is located has none."""
        row = [_tile(image.picture) for image in key_images(result)] if len(self._rows) < MOST_ROWS else []
        if row:
            self._rows.append(row)

    def save(self, path: Path) -> bool:
        """Write the picture whole or not at all; ``False`` where there is nothing to show."""
        if not self._rows:
            return False
        columns = max(map(len, self._rows))
        heights = [max(tile.shape[0] for tile in row) for row in self._rows]
        sheet = np.zeros((sum(heights), columns * TILE_PX, 3), np.uint8)
        top = 0
        for row, height in zip(self._rows, heights, strict=True):
            for place, tile in enumerate(row):
                left = place * TILE_PX
                sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
            top += height
        temporary = path.with_name(f".{path.name}.part")
        Image.fromarray(sheet).save(temporary, format="PNG")
        os.replace(temporary, path)  # noqa: PTH105  # atomic, and says so
        return True


class _Drawing:
    """A ``ResultWriter``."""

    def __init__(self, writer: ResultWriter, preview: Preview) -> None:
        self._writer = writer
        self._preview = preview

    def write(self, result: Result, folder: Path) -> tuple[ResultObject, ...]:
        return self._writer.write(result, folder)

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        self._writer.verify(result, objects)
        self._preview.add(result)


def _tile(picture: Picture) -> Picture:
    image = Image.fromarray(picture)
    image.thumbnail((TILE_PX, 2 * TILE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8)
