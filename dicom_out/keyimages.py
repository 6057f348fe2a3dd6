"""The key images of a result: which slices, which window, what is drawn and written."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_out import wording
from dicom_out.keyslices import key_slices, mask_on
from dicom_out.picture import GREY, WARNING, Colour, Line, Mark, Sheet, draw, mark_of_mask
from dicom_out.places import Place, letters_of, places_of
from domain.findings import Detection, Findings
from domain.ports import Result
from volume.display import Picture
from volume.screen import Frame, Window, ct_window, read_frame, shown, window_of

MOST = 4
"""Key images of one result: a few that tell, not a second series."""
_PALETTE: tuple[Colour, ...] = (
    (255, 210, 0), (0, 210, 255), (255, 90, 160), (120, 255, 120), (255, 140, 40), (170, 130, 255),
)  # fmt: skip
_LEAST_SATURATION, _LEAST_BRIGHTNESS = 0.25, 0.5
"""Below, a colour is not told from grey tissue."""
_CALLIPER: Colour = (255, 255, 120)
_NUMBERS_EACH = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyImage:
    """One picture, and the slice it shows."""

    index: int
    """Slice, frame or image of the result, from 0."""
    place: Place
    picture: Picture = field(repr=False)


def chosen(result: Result) -> tuple[int, ...]:
    """Return the slices that get a key image; none where the engine located nothing."""
    return key_slices(result.findings, len(places_of(result)), MOST)


def key_images(result: Result) -> list[KeyImage]:
    """Return the key images of a result, in slice order.

    Raises
    ------
    StorageError
        A source file cannot be read again.
    """
    indices = chosen(result)
    return [KeyImage(index=k, place=place, picture=draw(sheet)) for k, place, sheet in sheets(result, indices)]


def plain_image(result: Result) -> KeyImage | None:
    """Return the first image of a result without anything located, for reports; ``None`` for a volume."""
    places = places_of(result)
    if len(places) != 1:
        return None
    ((k, place, sheet),) = sheets(result, (0,))
    return KeyImage(index=k, place=place, picture=draw(sheet))


def sheets(result: Result, indices: Sequence[int]) -> Iterator[tuple[int, Place, Sheet]]:
    """Yield what is to be drawn for each of the slices."""
    places = places_of(result)
    frames = [read_frame(places[k].path, places[k].frame, places[k].tile) for k in indices]
    found = [_found(result.findings, k, frame) for k, frame in zip(indices, frames, strict=True)]
    for number, (k, frame) in enumerate(zip(indices, frames, strict=True), start=1):
        window = None if frame.is_colour else _window(frames, found, number - 1)
        yield k, places[k], _sheet(result, places, k, frame, window, f"Key image {number} of {len(indices)}")


def _window(frames: Sequence[Frame], found: Sequence[npt.NDArray[Any]], number: int) -> Window:
    """Return the window of one of the frames: its own in CT, where it goes by tissue; else the same for all."""
    if frames[number].modality == "CT":
        return ct_window(found[number], frames[number])
    alike = [frame for frame in frames if frame.values.shape == frames[number].values.shape]
    return window_of(alike, np.concatenate(found))


def _found(findings: Findings, k: int, frame: Frame) -> npt.NDArray[Any]:
    """Return the values of everything that masks cover on a slice."""
    inside = np.zeros(frame.values.shape[:2], bool)
    for number in range(1, len(findings.segments) + 1):
        mask = mask_on(findings, number, k) if _has_masks(findings, k) else None
        if mask is not None:
            inside |= mask
    return frame.values[inside].ravel()


def _has_masks(findings: Findings, k: int) -> bool:
    return findings.shape is not None and k < findings.shape[0]


def _sheet(result: Result, places: Sequence[Place], k: int, frame: Frame, window: Window | None, which: str) -> Sheet:
    findings, place = result.findings, places[k]
    present = [
        number
        for number in range(1, len(findings.segments) + 1)
        if _has_masks(findings, k) and (mask := mask_on(findings, number, k)) is not None and mask.any()
    ]
    boxes = [detection for detection in findings.detections if detection.image == k]
    marks = [*_mask_marks(findings, present, k), *_box_marks(findings, boxes), *_calliper_marks(findings, k)]
    return Sheet(
        image=shown(frame, window),
        spacing_mm=place.spacing_mm,
        aspect=_aspect(frame),
        is_magnified=place.is_magnified,
        letters=letters_of(result.grid, frame.header),
        marks=marks,
        head=[*_head(result), *_where(frame, places, k, window, which)],
        legend=_legend(findings, present, boxes),
        foot=_foot(result),
    )


def _aspect(frame: Frame) -> float:
    """Return PixelAspectRatio, vertical over horizontal (PS3.3 C.7.6.3.1.7); 1 where the header has none."""
    said = frame.header.get("PixelAspectRatio") or (1, 1)
    try:
        vertical, horizontal = (float(value) for value in said)
    except (TypeError, ValueError):
        return 1.0
    return vertical / horizontal if vertical > 0 and horizontal > 0 else 1.0


def colour_of(findings: Findings, number: int) -> Colour:
    """Return the colour of segment ``number``, from 1: its own, where it stands out from grey values."""
    own = findings.segments[number - 1].colour_rgb
    _, saturation, brightness = colorsys.rgb_to_hsv(*(value / 255 for value in own))
    if saturation >= _LEAST_SATURATION and brightness >= _LEAST_BRIGHTNESS:
        return own
    return _PALETTE[(number - 1) % len(_PALETTE)]


def colour_of_box(findings: Findings, detection: Detection) -> Colour:
    """Return the colour of a detection: one for each type."""
    types = list(dict.fromkeys(item.type for item in findings.detections))
    return _PALETTE[(types.index(detection.type) + len(findings.segments)) % len(_PALETTE)]


def _mask_marks(findings: Findings, present: Sequence[int], k: int) -> Iterator[Mark]:
    for number in present:
        mask = mask_on(findings, number, k)
        if mask is not None:
            yield mark_of_mask(mask, colour_of(findings, number))


def _box_marks(findings: Findings, boxes: Sequence[Detection]) -> Iterator[Mark]:
    for detection in boxes:
        x0, y0, x1, y1 = detection.box
        ring = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], float)
        caption = f"{detection.label} {wording.probability(detection.probability)}".rstrip()
        yield Mark(colour=colour_of_box(findings, detection), polygons=(ring,), caption=caption)


def _calliper_marks(findings: Findings, k: int) -> Iterator[Mark]:
    """Yield the lines along which something was measured on this slice."""
    for measurement in findings.measurements:
        points = measurement.points
        if len(points) == 2 and all(round(point[0]) == k for point in points):
            first, last = ((column + 0.5, row + 0.5) for _, row, column in points)  # from centres to corners
            yield Mark(colour=_CALLIPER, lines=((first, last),))


def _head(result: Result) -> list[Line]:
    manifest = result.manifest
    return [
        Line(text=f"AI: {manifest.title}", size=21, bold=True),
        Line(text=wording.NOT_FOR_DIAGNOSIS, size=19, bold=True, colour=WARNING),
        Line(text=f"Model {manifest.name} {manifest.version}, {manifest.manufacturer}", size=15, colour=GREY),
    ]


def _where(frame: Frame, places: Sequence[Place], k: int, window: Window | None, which: str) -> list[Line]:
    what = "Slice" if places[k].position else ("Frame" if places[k].frame is not None else "Image")
    text = f"{what} {k + 1} of {len(places)}"
    number = frame.header.get("InstanceNumber")
    if number is not None and what == "Slice" and places[k].frame is None:
        text += f" (image number {int(number)})"
    lines = [Line(text=text, size=17)]
    if places[k].position:
        lines.append(Line(text=f"Position {places[k].position}", size=17))
    if window is not None and frame.modality == "CT":
        lines.append(Line(text=f"W {window.width:.0f} / L {window.centre:.0f} HU", size=15, colour=GREY))
    return [*lines, Line(text=which, size=15, colour=GREY), Line(text=" ", size=8)]


def _legend(findings: Findings, present: Sequence[int], boxes: Sequence[Detection]) -> list[Line]:
    each = _NUMBERS_EACH if len(present) <= 4 else 1
    lines: list[Line] = []
    for number in present:
        segment = findings.segments[number - 1]
        lines.append(Line(text=segment.label, swatch=colour_of(findings, number)))
        lines += _numbers(findings, segment.key, each)
    for detection in boxes:
        text = f"{detection.label} {wording.probability(detection.probability)}".rstrip()
        lines.append(Line(text=text, swatch=colour_of_box(findings, detection)))
    elsewhere = [n for n in range(1, len(findings.segments) + 1) if n not in present]
    if elsewhere and len(elsewhere) <= 6:
        named = ", ".join(findings.segments[number - 1].label for number in elsewhere)
        lines.append(Line(text=f"Not on this image: {named}", size=15, colour=GREY))
    whole = _numbers(findings, None, _NUMBERS_EACH)
    return [*lines, *([Line(text=" ", size=8), *whole] if whole else [])]


def _numbers(findings: Findings, key: str | None, most: int) -> list[Line]:
    indent = 30 if key is not None else 0
    own = [item for item in findings.measurements if item.segment == key]
    return [
        Line(text=f"{wording.name(item)}: {wording.measured(item)}", size=15, indent=indent) for item in own[:most]
    ]


def _foot(result: Result) -> list[Line]:
    when = result.started_at.strftime("%Y-%m-%d %H:%M UTC")
    return [
        Line(text=f"Analysed {when}", size=13, colour=GREY),
        Line(text=result.manifest.intended_use, size=13, colour=GREY),
    ]
