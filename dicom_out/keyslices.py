"""Which slices tell most about a result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domain.findings import Findings

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

_LEAST_GAIN = 0.02
"""A further picture must show that much more, as a share of everything that was found."""


def mask_on(findings: Findings, number: int, k: int) -> BoolArray | None:
    """Return the mask of segment ``number``, from 1, on slice ``k``; ``None`` where the result has no masks."""
    if findings.labels is not None:
        on_slice: BoolArray = findings.labels[k] == number
        return on_slice
    return findings.masks[number - 1][k] if findings.masks else None


def areas(findings: Findings) -> FloatArray:
    """Return the pixels of each segment on each slice, shape ``(slices, segments)``."""
    count = len(findings.segments)
    if findings.labels is not None:
        return np.array([np.bincount(plane.ravel(), minlength=count + 1)[1:] for plane in findings.labels], float)
    return np.stack([mask.sum(axis=(1, 2)) for mask in findings.masks], axis=1).astype(float)


@dataclass(frozen=True, slots=True, eq=False)
class _Shares:
    """How much of each finding each slice shows: 1 on its best slice. Shape ``(slices, findings)``."""

    values: FloatArray

    @classmethod
    def of(cls, findings: Findings, slices: int) -> _Shares:
        columns = []
        if findings.shape is not None and findings.segments:
            pixels = areas(findings)
            columns += [pixels[:, n] / pixels[:, n].max() for n in range(pixels.shape[1]) if pixels[:, n].any()]
        marked = [detection.image for detection in findings.detections]
        marked += [round(m.points[0][0]) for m in findings.measurements if m.points]
        for k in marked:
            if 0 <= k < slices:
                columns.append(np.eye(1, slices, k)[0])
        return cls(np.stack(columns, axis=1) if columns else np.zeros((slices, 0)))


def key_slices(findings: Findings, slices: int, most: int) -> tuple[int, ...]:
    """Return at most ``most`` slices, ascending: together they show each finding where it is large, and are spread.

    Nothing located gives no slice.
    """
    shares = _Shares.of(findings, slices).values
    if not shares.size:
        return ()
    chosen: list[int] = []
    while len(chosen) < min(most, slices):
        gain = _gain(shares, chosen)
        best = int(gain.argmax())
        if gain[best] < _LEAST_GAIN:
            break
        chosen.append(best)
    return tuple(sorted(chosen))


def _gain(shares: FloatArray, chosen: list[int]) -> FloatArray:
    """Return for each slice what it adds: findings not yet shown well, and distance from the slices so far."""
    if not chosen:
        first: FloatArray = shares.mean(axis=1)
        return first
    shown = shares[chosen].max(axis=0)
    new = np.maximum(shares - shown, 0).mean(axis=1)
    used = np.flatnonzero(shares.any(axis=1))
    extent = max(1, int(used[-1] - used[0]))
    distance = np.abs(np.arange(len(shares))[:, None] - np.array(chosen)).min(axis=1) / extent
    gain: FloatArray = np.where(distance > 0, new + distance * shares.mean(axis=1), 0)
    return gain
