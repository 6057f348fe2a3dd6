"""Which line shows a segment: its long axis, on the slice where it covers most pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicom_out.frames import Frame, slices_of
from dicom_out.groups import Line
from dicom_out.masks import Masks
from dicom_out.source import Source
from domain.image import Raster
from domain.ports import Result
from volume.diameters import long_axis


def lines_of(result: Result, source: Source, masks: Masks | None, frames: Sequence[Frame]) -> dict[int, Line]:
    """Return the long axis of each segment with voxels, by segment number; lengths need patient coordinates."""
    if masks is None or isinstance(result.grid, Raster):
        return {}
    _, row_mm, column_mm = result.patient_grid.spacing_mm
    lines = {}
    for number, slices in slices_of(frames).items():
        areas = [np.count_nonzero(masks.mask(number, k)) for k in slices]
        k = slices[int(np.argmax(areas))]
        axis = long_axis(masks.mask(number, k), (row_mm, column_mm))
        lines[number] = Line(axis=axis, image=source.images[k])
    return lines
