"""Which frame of which file each slice or image of a result is, and how it lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from domain.image import Raster
from domain.instance import Tile
from domain.ports import Result
from domain.volume import Grid

_LPS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Letters of PatientOrientation towards and against each axis (PS3.3 C.7.6.1.1.1)."""
_NOTEWORTHY = 0.25
"""A direction cosine beside the largest that is worth a letter: about 15 degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One slice or image."""

    path: Path
    frame: int | None
    """From 1; ``None`` where it is the whole instance."""
    spacing_mm: tuple[float, float] | None
    """Between rows, then between columns."""
    is_magnified: bool = False
    """The spacing is the detector's, not the patient's."""
    tile: Tile | None = None
    """Set where it is a tile of a mosaic."""
    position: str = field(default="", repr=False)
    """E.g. ``H 12.5 mm``; empty without patient coordinates."""


def places_of(result: Result) -> tuple[Place, ...]:
    """Return the places of a result: one for each slice, frame or image, as ``Detection.image`` counts them."""
    if isinstance(result.grid, Grid):
        grid = result.grid
        frames = result.source_frames or (None,) * len(result.source_paths)
        tiles = result.tiles or (None,) * len(result.source_paths)
        spacing = grid.spacing_mm[1:]
        return tuple(
            Place(path=path, frame=frame, tile=tile, spacing_mm=spacing, position=_position(grid, k))
            for k, (path, frame, tile) in enumerate(zip(result.source_paths, frames, tiles, strict=True))
        )
    raster = result.grid
    return tuple(_image(result, raster, k) for k in range(max(len(result.source_paths), raster.shape[0])))


def _image(result: Result, raster: Raster, k: int) -> Place:
    one_file = len(result.source_paths) == 1
    path = result.source_paths[0 if one_file else k]
    frame = result.source_frames[k] if k < len(result.source_frames) else None
    if one_file and raster.shape[0] > 1:
        frame = k + 1
    known = k < raster.shape[0]
    return Place(
        path=path,
        frame=frame,
        spacing_mm=raster.spacing_mm if known else None,
        is_magnified=raster.spacing_origin == "ImagerPixelSpacing",
    )


def _position(grid: Grid, k: int) -> str:
    """Return where the middle of a slice lies along the axis that the slices mostly follow."""
    normal = np.cross(grid.affine[:3, 2], grid.affine[:3, 1])
    axis = int(np.abs(normal).argmax())
    middle = grid.to_lps((k, (grid.shape[1] - 1) / 2, (grid.shape[2] - 1) / 2))[axis]
    return f"{_LPS[axis][0 if middle >= 0 else 1]} {abs(middle):.1f} mm"


Letters = tuple[str, str, str, str]
"""At the left, right, top and bottom border; empty where unknown."""


def letters_of(grid: Grid | Raster, header: Dataset) -> Letters:
    """Return the orientation letters of the borders, by the grid or by PatientOrientation."""
    if isinstance(grid, Grid):
        right, bottom = _letters(grid.affine[:3, 2]), _letters(grid.affine[:3, 1])
    else:
        said = header.get("PatientOrientation") or ()
        values = [str(value).strip().upper() for value in (said if not isinstance(said, str) else [said])]
        right, bottom = values if len(values) == 2 else ("", "")
    return _opposite(right), right, _opposite(bottom), bottom


def _letters(direction: npt.NDArray[np.float64]) -> str:
    cosines = direction / np.linalg.norm(direction)
    order = [axis for axis in np.argsort(-np.abs(cosines)) if abs(cosines[axis]) > _NOTEWORTHY]
    return "".join(_LPS[axis][0 if cosines[axis] > 0 else 1] for axis in order)


_TURNED = str.maketrans({a: b for pair in _LPS for a, b in (pair, pair[::-1])})


def _opposite(letters: str) -> str:
    return letters.translate(_TURNED) if set(letters) <= set("LRAPHF") else ""
