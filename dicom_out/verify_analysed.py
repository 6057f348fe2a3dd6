"""The check of masks that were brought back from a resampled volume: they show what the engine found, where it did.

Places are compared in patient millimetres by the two grids alone; nothing here uses the code that moved the masks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_out.verify_seg import check_measured_volume
from domain.errors import VerificationFailed
from domain.findings import Findings
from domain.ports import Analysed, Result
from domain.volume import Grid

BoolArray = npt.NDArray[np.bool_]


def check_analysed(result: Result) -> None:
    """Compare the masks on the source's slices with those on the regular grid, segment by segment.

    Every voxel on a source slice must lie within one voxel of the same segment on the regular grid (along the normal,
    within half the widest gap of the source), and no segment may get lost or appear. Numbers are compared with the
    regular grid, on which they were measured; sizes may differ by the outermost voxels.

    Raises
    ------
    VerificationFailed
        They differ.
    """
    analysed = result.analysed
    if analysed is None:
        return
    source = result.patient_grid
    if source.frame_of_reference_uid != analysed.grid.frame_of_reference_uid:
        raise VerificationFailed("The regular grid is not in the source's frame of reference.")
    if result.findings.measurements and not _same_numbers(result.findings, analysed.findings):
        raise VerificationFailed("The measurements are not those of the regular grid.")
    for number in range(1, len(result.findings.segments) + 1):
        found, here = _mask(analysed.findings, number), _mask(result.findings, number)
        if found is not None and here is not None:
            _check_segment(number, found, here, analysed, result)


def _mask(findings: Findings, number: int) -> BoolArray | None:
    if findings.labels is not None:
        return np.equal(findings.labels, number)
    return findings.masks[number - 1] if findings.masks else None


def _same_numbers(one: Findings, other: Findings) -> bool:
    return [(m.segment, m.concept, m.value, m.unit) for m in one.measurements] == [
        (m.segment, m.concept, m.value, m.unit) for m in other.measurements
    ]


def _check_segment(number: int, found: BoolArray, here: BoolArray, analysed: Analysed, result: Result) -> None:
    if found.any() != here.any():
        raise VerificationFailed(f"Segment {number} is not on the source's slices as the engine found it.")
    if not found.any():
        return
    source, regular = result.patient_grid, analysed.grid
    widest = float(np.diff(source.along_mm).max()) / regular.spacing_mm[0]
    near = _widened(found, (1 + int(np.ceil(widest / 2)), 1, 1))
    if not all(_lies_in(near, np.argwhere(plane), k, source, regular) for k, plane in enumerate(here)):
        raise VerificationFailed(f"Segment {number} on the source's slices lies where the engine found none.")
    volume_ml = int(np.count_nonzero(found)) * regular.voxel_volume_ml
    check_measured_volume(number, volume_ml, analysed.findings, slack_ml=8 * regular.voxel_volume_ml)
    own_ml = float(np.count_nonzero(here, axis=(1, 2)) @ source.voxel_volumes_ml)
    slack_ml = _shell_ml(found, regular) * max(1.0, widest) + 8 * float(source.voxel_volumes_ml.max())
    if abs(own_ml - volume_ml) > slack_ml:
        raise VerificationFailed(f"Segment {number} does not have its size on the source's slices.")


def _lies_in(near: BoolArray, pixels: npt.NDArray[np.int_], k: int, source: Grid, regular: Grid) -> bool:
    """Tell whether pixels ``(row, column)`` of a source slice lie where ``near`` is set."""
    positions = source.to_lps(np.column_stack([np.full(len(pixels), k), pixels]))
    index = np.rint(regular.to_index(positions)).astype(int)
    inside = ((index >= 0) & (index < near.shape)).all(axis=1)
    return bool(inside.all()) and bool(near[tuple(index.T)].all())


def _shell_ml(mask: BoolArray, grid: Grid) -> float:
    return int(np.count_nonzero(mask & ~_eroded(mask))) * grid.voxel_volume_ml


def _eroded(mask: BoolArray) -> BoolArray:
    eroded: BoolArray = ndimage.binary_erosion(mask)  # type: ignore[attr-defined]
    return eroded


def _widened(mask: BoolArray, by: tuple[int, int, int]) -> BoolArray:
    size = tuple(2 * n + 1 for n in by)
    widened = ndimage.maximum_filter(mask.view(np.uint8), size=size, mode="constant")  # type: ignore[attr-defined]
    return np.asarray(widened, np.bool_)
