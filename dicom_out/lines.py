"""Which line shows a segment: its long axis, on the slice where it covers most pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicom_out.frames import Frame, slices_of
from dicom_out.groups import Line
from dicom_out.longaxis import long_axis
from dicom_out.source import Source
from domain.ports import Result


def lines_of(result: Result, source: Source, frames: Sequence[Frame]) -> dict[int, Line]:
    """Return the long axis of each segment with voxels, by segment number."""
    labels = result.findings.labels
    if labels is None:
        return {}
    _, row_mm, column_mm = result.patient_grid.spacing_mm
    lines = {}
    for number, slices in slices_of(frames).items():
        areas = [np.count_nonzero(labels[k] == number) for k in slices]
        k = slices[int(np.argmax(areas))]
        axis = long_axis(labels[k] == number, (row_mm, column_mm))
        lines[number] = Line(axis=axis, image=source.images[k])
    return lines
