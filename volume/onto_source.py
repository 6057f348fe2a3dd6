"""Findings on a resampled volume, brought back to the slices that they were made from.

Numbers stay as the engine measured them, on the regular grid; masks, points and boxes move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from domain.codes import Code
from domain.findings import Detection, Evaluation, Findings, Measurement
from domain.series import Resample
from volume.resample import Resampling

Labels = npt.NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)

COMMENT = Code("121106", "DCM", "Comment")
_ON_SLICE = 1e-3


def findings_on_source(findings: Findings, plan: Resampling) -> Findings:
    """Return findings whose masks lie on the grid ``plan.source``, with a statement of what was computed where.

    A mask on a source slice that lies between two regular slices has the outline half-way between theirs, by distance
    to it. What shows on none of the source's slices is put on the nearest one: a finding does not get lost.
    """
    labels = None if findings.labels is None else _labels_on_source(findings.labels, plan)
    return replace(
        findings,
        labels=labels,
        masks=tuple(_labels_on_source(mask.view(np.uint8), plan).view(np.bool_) for mask in findings.masks),
        probabilities=tuple(_probabilities_on_source(array, plan) for array in findings.probabilities),
        measurements=tuple(replace(item, points=_points(item, plan)) for item in findings.measurements),
        detections=tuple(_detection(item, plan) for item in findings.detections),
        evaluations=(*findings.evaluations, Evaluation(segment=None, concept=COMMENT, value=said_of(plan))),
    )


def said_of(plan: Resampling) -> str:
    """Return what a report says about the grid on which everything was measured."""
    causes = []
    if Resample.GANTRY_TILT in plan.resample:
        causes.append(f"were acquired with the gantry tilted by {plan.tilt_deg:.1f} degrees")
    if Resample.VARIABLE_SPACING in plan.resample:
        gaps = np.diff(plan.source.along_mm)
        causes.append(f"lie {gaps.min():.3g} to {gaps.max():.3g} mm apart")
    slice_mm, row_mm, column_mm = plan.regular.spacing_mm
    return (
        f"The source images {' and '.join(causes)}. The analysis and its measurements were made on a regular grid "
        f"interpolated from them, with voxels of {column_mm:.4g} x {row_mm:.4g} x {slice_mm:.4g} mm; the masks were "
        "brought back from there to the source images."
    )


def _labels_on_source(labels: Labels, plan: Resampling) -> Labels:
    found = np.zeros(plan.source.shape, np.uint8)
    for k, place in enumerate(plan.regular_at):
        below = min(int(place + _ON_SLICE), plan.regular.shape[0] - 1)
        weight = float(place) - below
        plane = _between(labels[below], labels[below + 1], weight, plan) if weight > _ON_SLICE else labels[below]
        found[k] = _cut(plane, plan, k)
    lost = np.setdiff1d(np.unique(labels), np.unique(found))
    if lost.size:
        _keep(lost, labels, found, plan)
    return found


def _cut(plane: npt.NDArray[T], plan: Resampling, k: int) -> npt.NDArray[T]:
    """Return the part of a regular slice where source slice ``k`` has its pixels, each the nearest one."""
    _, rows, columns = plan.source.shape
    row, column = np.rint(plan.shift[k]).astype(int)
    return plane[row : row + rows, column : column + columns]


def _between(one: Labels, other: Labels, weight: float, plan: Resampling) -> Labels:
    """Return labels at ``weight`` between two slices; an object that only one of them shows ends half-way."""
    nearest = one if weight < 0.5 else other
    result = np.where(np.isin(nearest, np.intersect1d(one, other)), 0, nearest).astype(np.uint8)
    best = np.zeros(one.shape)
    for label in np.setdiff1d(np.intersect1d(one, other), [0]):
        near = _around((one == label) | (other == label))
        depth = (1 - weight) * _depth(one[near] == label, plan) + weight * _depth(other[near] == label, plan)
        inside = depth > best[near]
        result[near][inside], best[near][inside] = label, depth[inside]
    return result


def _around(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of a mask and one more on each side, which decide all depths inside it."""
    ends = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    rows, columns = (slice(max(int(first) - 1, 0), int(last) + 2) for first, last in ends)
    return rows, columns


def _depth(mask: npt.NDArray[np.bool_], plan: Resampling) -> npt.NDArray[np.float64]:
    """Return the distance in mm from the outline, positive inside."""
    sampling = plan.regular.spacing_mm[1:]
    inside = ndimage.distance_transform_edt(mask, sampling)  # type: ignore[attr-defined]
    outside = ndimage.distance_transform_edt(~mask, sampling)  # type: ignore[attr-defined]
    depth: npt.NDArray[np.float64] = inside - outside
    return depth


def _keep(lost: npt.NDArray[np.uint8], labels: Labels, found: Labels, plan: Resampling) -> None:
    """Put labels that show nowhere on the nearest source slices."""
    nearest = plan.nearest_source
    for label in lost:
        for place in np.flatnonzero((labels == label).any(axis=(1, 2))):
            k = int(nearest[place])
            found[k][_cut(labels[place], plan, k) == label] = label


def _probabilities_on_source(values: npt.NDArray[np.float32], plan: Resampling) -> npt.NDArray[np.float32]:
    found = np.zeros(plan.source.shape, np.float32)
    last = plan.regular.shape[0] - 1
    for k, place in enumerate(plan.regular_at):
        below = min(int(place + _ON_SLICE), last)
        weight = np.float32(max(float(place) - below, 0.0))
        above = min(below + 1, last)
        found[k] = _cut(values[below], plan, k) * (1 - weight) + _cut(values[above], plan, k) * weight
    return found


def _points(measurement: Measurement, plan: Resampling) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(k), row, column) for k, row, column in map(_mover(plan), measurement.points))


def _detection(item: Detection, plan: Resampling) -> Detection:
    x0, y0, x1, y1 = item.box
    k, row, column = _mover(plan)((float(item.image), 0.0, 0.0))
    return replace(item, image=int(k), box=(x0 + column, y0 + row, x1 + column, y1 + row))


def _mover(plan: Resampling) -> Callable[[Sequence[float]], tuple[int, float, float]]:
    nearest = plan.nearest_source

    def moved(point: Sequence[float]) -> tuple[int, float, float]:
        k = int(nearest[min(max(round(point[0]), 0), len(nearest) - 1)])
        return k, point[1] - float(plan.shift[k, 0]), point[2] - float(plan.shift[k, 1])

    return moved
