"""A slice whose place in the patient is completely known (PS3.3 C.7.6.2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import RefusalCode
from volume.numbers import instance_numbers, listed

ORIENTATION_TOLERANCE = 1e-3
"""On direction cosines: three decimals, 0.06 degrees, a quarter of a millimetre over half of a 500 mm image."""

PIXEL_SPACING_TOLERANCE = 1e-4
"""Relative: 0.05 mm over a 500 mm image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Position and extent of one slice; nothing is missing. Lengths in mm, LPS."""

    header: Header = field(repr=False)
    position_mm: tuple[float, float, float]
    """Centre of the first pixel."""
    orientation: tuple[float, float, float, float, float, float]
    """Direction along a row, then along a column."""
    pixel_spacing_mm: tuple[float, float]
    """Between rows, then between columns."""
    rows: int
    columns: int
    frame_of_reference_uid: str = field(repr=False)


def planes_of(headers: Sequence[Header]) -> list[Plane]:
    """Return the planes of ``headers``, in order.

    Raises
    ------
    AssemblyError
        An attribute is missing, or the slices do not share orientation, frame of reference, matrix or pixel spacing.
    """
    planes = [_plane_of(header) for header in headers]
    for code, said in _MISSING.items():
        offenders = [header for header, plane in zip(headers, planes, strict=True) if plane is code]
        if offenders:
            raise AssemblyError(code, f"{said} ({listed(offenders)}).", instance_numbers(offenders))
    known = [plane for plane in planes if isinstance(plane, Plane)]
    for agreement in _AGREEMENTS:
        _check_agreement(known, *agreement)
    return known


def same_orientation(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether two slices are parallel and turned alike, within ``ORIENTATION_TOLERANCE``."""
    return one == other or all(abs(a - b) <= ORIENTATION_TOLERANCE for a, b in zip(one, other, strict=True))


def _plane_of(header: Header) -> Plane | RefusalCode:
    """Return the plane, or the code of the first thing that it lacks."""
    orientation, position = header.image_orientation, header.image_position_mm
    spacing = header.pixel_spacing_mm
    if orientation is None or not all(map(math.isfinite, orientation)):
        return RefusalCode.NO_ORIENTATION
    if position is None or not all(map(math.isfinite, position)):
        return RefusalCode.NO_POSITION
    if spacing is None or not all(map(math.isfinite, spacing)) or min(spacing) <= 0:
        return RefusalCode.NO_PIXEL_SPACING
    if not header.frame_of_reference_uid:
        return RefusalCode.NO_FRAME_OF_REFERENCE
    if not header.rows or not header.columns:
        return RefusalCode.UNSUPPORTED_PIXELS
    return Plane(
        header=header,
        position_mm=position,
        orientation=orientation,
        pixel_spacing_mm=spacing,
        rows=header.rows,
        columns=header.columns,
        frame_of_reference_uid=header.frame_of_reference_uid,
    )


def _check_agreement(
    planes: Sequence[Plane],
    value: Callable[[Plane], Hashable],
    agree: Callable[[Plane, Plane], bool],
    code: RefusalCode,
    said: str,
) -> None:
    counts = Counter(map(value, planes))
    if len(counts) == 1:
        return
    usual = max(planes, key=lambda plane: counts[value(plane)])
    offenders = [plane.header for plane in planes if not agree(plane, usual)]
    if offenders:
        raise AssemblyError(code, f"{said} ({listed(offenders)} differ from the rest).", instance_numbers(offenders))


def _same_pixel_spacing(one: Plane, other: Plane) -> bool:
    pairs = zip(one.pixel_spacing_mm, other.pixel_spacing_mm, strict=True)
    return all(abs(a - b) <= PIXEL_SPACING_TOLERANCE * b for a, b in pairs)


_MISSING = {
    RefusalCode.NO_ORIENTATION: (
        "ImageOrientationPatient is missing or unreadable, so it is unknown how the slices lie in the patient"
    ),
    RefusalCode.NO_POSITION: (
        "ImagePositionPatient is missing or unreadable, so it is unknown where the slices lie in the patient"
    ),
    RefusalCode.NO_PIXEL_SPACING: (
        "PixelSpacing is missing or not positive, so sizes are unknown; ImagerPixelSpacing is measured at the "
        "detector and does not replace it"
    ),
    RefusalCode.NO_FRAME_OF_REFERENCE: (
        "FrameOfReferenceUID is missing, so a result could not be placed on the images"
    ),
    RefusalCode.UNSUPPORTED_PIXELS: "Rows or Columns are missing or zero",
}

_AGREEMENTS: tuple[
    tuple[Callable[[Plane], Hashable], Callable[[Plane, Plane], bool], RefusalCode, str],
    ...,
] = (
    (
        lambda p: p.orientation,
        lambda a, b: same_orientation(a.orientation, b.orientation),
        RefusalCode.MIXED_ORIENTATION,
        "The slices are not parallel: ImageOrientationPatient differs. Send each orientation as a series of its own",
    ),
    (
        lambda p: p.header.study_instance_uid,
        lambda a, b: a.header.study_instance_uid == b.header.study_instance_uid,
        RefusalCode.MIXED_STUDY,
        "StudyInstanceUID differs between the slices, so they may show different patients. Give each study a series "
        "of its own",
    ),
    (
        lambda p: p.frame_of_reference_uid,
        lambda a, b: a.frame_of_reference_uid == b.frame_of_reference_uid,
        RefusalCode.MIXED_FRAME_OF_REFERENCE,
        "FrameOfReferenceUID differs between the slices, so their positions cannot be compared (the patient may have "
        "been repositioned). Send each as a series of its own",
    ),
    (
        lambda p: (p.rows, p.columns),
        lambda a, b: (a.rows, a.columns) == (b.rows, b.columns),
        RefusalCode.MIXED_MATRIX,
        "Rows or Columns differ between the slices. Send images of different size as series of their own",
    ),
    (
        lambda p: p.pixel_spacing_mm,
        _same_pixel_spacing,
        RefusalCode.MIXED_PIXEL_SPACING,
        "PixelSpacing differs between the slices. Send each reconstruction as a series of its own",
    ),
)
