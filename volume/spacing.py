"""Whether sorted slices lie on a regular lattice, and what is wrong where they do not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import RefusalCode, Resample
from domain.volume import FloatArray
from volume.numbers import between, counted, instance_numbers, listed

POSITION_TOLERANCE_MM = 0.01
"""Rounding that ImagePositionPatient shows in practice: two or three decimals. Closer slices are at one position."""

POSITION_TOLERANCE = 0.02
"""Share of the slice spacing by which one slice may be off its place; partial-volume effects are larger."""

SHEAR_TOLERANCE = 2e-3
"""Tangent of the angle between slice step and normal (0.1 degree) that three-decimal direction cosines explain.

The affine keeps the step as it is, so a tolerated shear is still mapped exactly."""

_RUN = 3
"""So many equal wide gaps in a row are another spacing, not slices that got lost."""

LARGEST_TILT_DEG = 35.0
"""Gantries tilt to 30 degrees; more is another fault."""

LARGEST_GAP = 3.0
"""Largest gap that may be resampled, as a multiple of the smallest; between them nothing was measured."""

LARGEST_GAP_MM = 10.0

_SMOOTH = 1.5
"""Neighbouring gaps whose ratio is below this vary smoothly; above it one spacing ends and another begins."""


def median(values: FloatArray) -> FloatArray:
    """Return the median along the first axis; numpy's own imports masked arrays when it is first called."""
    ordered = np.sort(values, axis=0)
    middle: FloatArray = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return middle


def tolerance_mm(spacing_mm: float) -> float:
    """Return by how much a distance between two slices, each within tolerance of its place, may be off."""
    return 2.0 * max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE * spacing_mm)


def check_lattice(
    positions_mm: FloatArray,
    normal: FloatArray,
    row: FloatArray,
    headers: Sequence[Header],
    allowed: Collection[Resample] = (),
) -> frozenset[Resample]:
    """Raise ``AssemblyError`` unless the slices lie at equal steps along their normal, or as ``allowed``.

    Returns what has to be resampled, which is empty for a regular stack.

    Parameters
    ----------
    positions_mm
        ImagePositionPatient, shape ``(slices, 3)``, at least two, ascending along ``normal``.
    normal, row
        Unit vectors: of the slices' normal, and along a row.
    headers
        In the same order.
    allowed
        Which deviations are taken, as far as they can be resampled.
    """
    offsets = positions_mm - positions_mm.mean(axis=0)
    along = offsets @ normal
    gaps = np.diff(along)
    _check_distinct(gaps, headers)
    spacing = float(median(gaps))
    in_plane = offsets - np.outer(along, normal)
    slope = along @ in_plane / (along @ along)
    if np.linalg.norm(in_plane - np.outer(along, slope), axis=1).max() > tolerance_mm(spacing):
        _refuse_shifted(along, in_plane, spacing, headers)
    found = set()
    if _is_sheared(slope, row, headers, allowed):
        found.add(Resample.GANTRY_TILT)
    if not _is_regular(along, gaps, spacing):
        if Resample.VARIABLE_SPACING not in allowed or not _can_be_evened(gaps):
            _refuse_gaps(gaps, headers)
        found.add(Resample.VARIABLE_SPACING)
    return frozenset(found)


def _where(mask: npt.NDArray[np.bool_]) -> list[int]:
    return [int(k) for k in np.flatnonzero(mask)]


def _check_distinct(gaps: FloatArray, headers: Sequence[Header]) -> None:
    close = gaps < POSITION_TOLERANCE_MM
    if close.any():
        pairs = [h for k in _where(close) for h in (headers[k], headers[k + 1])]
        raise AssemblyError(
            RefusalCode.DUPLICATE_POSITION,
            f"Several slices lie at the same position ({listed(pairs)}) and nothing tells which of them belongs to "
            "the volume. Remove the repeated images, or send repetitions and phases as series of their own.",
            instance_numbers(pairs),
        )


def _is_sheared(slope: FloatArray, row: FloatArray, headers: Sequence[Header], allowed: Collection[Resample]) -> bool:
    """Tell whether the slices are sheared as by a tilted gantry; raise unless that is allowed."""
    tangent = float(np.linalg.norm(slope))
    if tangent <= SHEAR_TOLERANCE:
        return False
    degrees = float(np.degrees(np.arctan(tangent)))
    # A gantry tilts about the patient's left-right axis, which in its slices is the row direction.
    along_columns = abs(float(slope @ row)) <= max(SHEAR_TOLERANCE, 0.02 * tangent)
    is_ct = any(h.modality == "CT" for h in headers)
    if Resample.GANTRY_TILT in allowed and is_ct and along_columns and degrees <= LARGEST_TILT_DEG:
        return True
    if any(h.gantry_detector_tilt_deg for h in headers) or (is_ct and along_columns):
        raise AssemblyError(
            RefusalCode.GANTRY_TILT,
            f"The gantry was tilted: each slice is shifted against the one before, {degrees:.1f} degrees off the "
            "slices' normal. Have the scanner or a workstation reconstruct the series without tilt (orthogonal "
            "slices) and send that.",
            instance_numbers(headers),
        )
    raise AssemblyError(
        RefusalCode.IN_PLANE_DRIFT,
        f"ImagePositionPatient drifts sideways from slice to slice, {degrees:.1f} degrees off the slices' normal. "
        "Send a series whose slices lie straight above one another.",
        instance_numbers(headers),
    )


def _refuse_shifted(along: FloatArray, in_plane: FloatArray, spacing_mm: float, headers: Sequence[Header]) -> None:
    """Raise the error that names the slices off the common line, which medians find whatever single slices do."""
    slope = median(np.diff(in_plane, axis=0)) / spacing_mm
    deviations = in_plane - np.outer(along, slope)
    off = np.linalg.norm(deviations - median(deviations), axis=1) > tolerance_mm(spacing_mm)
    offenders = [headers[k] for k in _where(off)]
    raise AssemblyError(
        RefusalCode.IN_PLANE_DRIFT,
        f"Slices are shifted sideways against the others ({listed(offenders)}), so that rows and columns do not "
        "meet. Send a series reconstructed with one and the same field of view.",
        instance_numbers(offenders),
    )


def _is_regular(along: FloatArray, gaps: FloatArray, spacing_mm: float) -> bool:
    """Tell whether each gap is like the others and small deviations do not add up along the stack."""
    allowed = tolerance_mm(spacing_mm)
    index = np.arange(len(along)) - (len(along) - 1) / 2
    straight = index * (index @ along / (index @ index))
    return bool(np.abs(gaps - spacing_mm).max() <= allowed and np.abs(along - straight).max() <= allowed)


def _can_be_evened(gaps: FloatArray) -> bool:
    """Tell whether gaps vary smoothly or in steps, within limits; a lone wide gap is a hole, whatever its width."""
    if gaps.max() > min(LARGEST_GAP * gaps.min(), LARGEST_GAP_MM) + tolerance_mm(float(gaps.min())):
        return False
    multiples = _lost(gaps)
    ratios = np.maximum(gaps[1:] / gaps[:-1], gaps[:-1] / gaps[1:])
    steps = np.flatnonzero(ratios > _SMOOTH) + 1
    runs = np.diff(np.concatenate([[0], steps, [len(gaps)]]))
    return multiples is None and (len(steps) == 0 or int(runs.min()) >= _RUN)


def _lost(gaps: FloatArray) -> npt.NDArray[np.int_] | None:
    """Return each gap as a multiple of the spacing where that shows slices that got lost, else ``None``."""
    multiples = np.rint(gaps / gaps.min()).astype(int)
    unit = float(gaps.sum() / multiples.sum())
    is_multiple = bool(np.abs(gaps - multiples * unit).max() <= tolerance_mm(unit))
    longest = max((len(list(run)) for value, run in groupby(multiples) if value > 1), default=0)
    return multiples if is_multiple and 0 < longest < _RUN else None


def _refuse_gaps(gaps: FloatArray, headers: Sequence[Header]) -> None:
    """Raise the error that fits gaps which are known to be irregular."""
    multiples = _lost(gaps)
    if multiples is not None:
        _refuse_missing(multiples, headers)
    spacing = float(median(gaps))
    off = _where(np.abs(gaps - spacing) > tolerance_mm(spacing))
    offenders = [h for k in off for h in (headers[k], headers[k + 1])] or list(headers)
    raise AssemblyError(
        RefusalCode.VARIABLE_SPACING,
        f"The distance between slices is not constant: it goes from {gaps.min():.3g} to {gaps.max():.3g} mm "
        f"({listed(offenders)}). Send the parts with different spacing as series of their own, or a reconstruction "
        "with one spacing; if images were lost on the way, send the whole series again.",
        instance_numbers(offenders),
    )


def _refuse_missing(multiples: npt.NDArray[np.int_], headers: Sequence[Header]) -> None:
    holes = _where(multiples > 1)
    count = int((multiples - 1).sum())
    places = [f"{multiples[k] - 1} {between(headers[k], headers[k + 1])}" for k in holes]
    said = ", ".join(places[:6]) + (f" and at {len(places) - 6} more places" if len(places) > 6 else "")
    raise AssemblyError(
        RefusalCode.MISSING_SLICES,
        f"{counted(count, 'slice')} missing: {said}. Send the whole series again; images that are stored already "
        "are kept.",
        instance_numbers(h for k in holes for h in (headers[k], headers[k + 1])),
    )
