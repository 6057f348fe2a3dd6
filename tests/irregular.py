"""A CT of a ball whose slices are sheared or unevenly spaced: a phantom of known place and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from factories import ct_slice
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

INSIDE_HU, OUTSIDE_HU = 100, -1000
EDGE_HU = (INSIDE_HU + OUTSIDE_HU) / 2
SPACING_MM = (0.9, 0.8)
"""Between rows, between columns."""


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """The slices, in order, and the truth."""

    series: list[Dataset]
    centre_mm: npt.NDArray[np.float64]
    radius_mm: float

    @property
    def volume_ml(self) -> float:
        return 4 / 3 * np.pi * self.radius_mm**3 / 1000


def phantom(
    along_mm: Sequence[float],
    *,
    tilt_deg: float = 0.0,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    radius_mm: float = 15.0,
    off_centre_mm: Sequence[float] = (0.0, 0.0, 0.0),
    size: tuple[int, int] = (64, 60),
) -> Phantom:
    """Return a ball in the middle of slices at ``along_mm`` along their normal, sheared along the columns."""
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    normal = np.cross(row, column)
    study, series_uid, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    shear = np.tan(np.radians(tilt_deg))
    first = np.array([-20.0, -30.0, 40.0])
    along = np.asarray(along_mm, float)
    places = first + np.outer(along, normal) + np.outer(along * shear, column)
    middle = (places[0] + places[-1]) / 2
    centre = middle + row * SPACING_MM[1] * (size[1] - 1) / 2 + column * SPACING_MM[0] * (size[0] - 1) / 2
    centre = centre + np.asarray(off_centre_mm)
    down, across = np.meshgrid(np.arange(size[0]) * SPACING_MM[0], np.arange(size[1]) * SPACING_MM[1], indexing="ij")
    series = []
    for number, place in enumerate(places, start=1):
        pixels = place + down[..., None] * column + across[..., None] * row
        depth = radius_mm - np.linalg.norm(pixels - centre, axis=-1)
        share = np.clip(depth / SPACING_MM[1] + 0.5, 0, 1)  # partial volume at the edge
        voxels = np.rint(OUTSIDE_HU + share * (INSIDE_HU - OUTSIDE_HU)).astype(np.int16)
        series.append(
            ct_slice(
                voxels=voxels,
                position_mm=place,
                orientation=orientation,
                spacing_mm=SPACING_MM,
                number=number,
                study_instance_uid=study,
                series_instance_uid=series_uid,
                frame_of_reference_uid=frame_of_reference,
            )
        )
    return Phantom(series=series, centre_mm=centre, radius_mm=radius_mm)


def evenly(count: int, distance_mm: float) -> list[float]:
    """Return equal steps."""
    return [k * distance_mm for k in range(count)]


def by_gaps(gaps_mm: Sequence[float]) -> list[float]:
    """Return places with these gaps between them."""
    return [0.0, *np.cumsum(gaps_mm).tolist()]
