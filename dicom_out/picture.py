"""A key image as RGB: the slice, what was found on it as outlines, and beside it what a reader must know.

Over the image there are only outlines, lines, orientation letters and the scale. Nothing names a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dicom_out.outline import Polygon, outlines, smoothed
from dicom_out.places import Letters
from volume.display import Picture

Colour = tuple[int, int, int]
Ends = tuple[tuple[float, float], tuple[float, float]]
"""(column, row), counted from the corner of the first pixel."""

LONG_SIDE, PANEL, LEAST_HEIGHT, MARGIN = 896, 400, 640, 16
"""Pixels: the image's longer side, the width of the text beside it, the least height of the whole."""
WHITE, GREY, WARNING, BLACK = (255, 255, 255), (170, 170, 170), (255, 200, 60), (0, 0, 0)
_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200)
_BAR_SHARE = 0.25
"""The scale bar is the longest round length below this share of the image's width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Where the image lies in the picture."""

    left: int
    top: int
    width: int
    height: int
    columns: int
    rows: int

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the picture for each column and row of the image."""
        return self.width / self.columns, self.height / self.rows


def placing(rows: int, columns: int, spacing_mm: tuple[float, float] | None, aspect: float = 1.0) -> Placing:
    """Return where an image goes: its longer side fills, its pixels have their true shape.

    Parameters
    ----------
    aspect
        Height of a pixel in widths where the spacing is not known (PS3.3 C.7.6.3.1.7).
    """
    tall = rows * (spacing_mm[0] / spacing_mm[1] if spacing_mm else aspect)
    zoom = LONG_SIDE / max(tall, columns)
    width, height = max(1, round(columns * zoom)), max(1, round(tall * zoom))
    top = max(0, (LEAST_HEIGHT - height) // 2)
    return Placing(left=0, top=top, width=width, height=height, columns=columns, rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mark:
    """Something found, as it is drawn."""

    colour: Colour
    polygons: tuple[Polygon, ...] = ()
    lines: tuple[Ends, ...] = ()
    caption: str = ""
    """Beside the mark, for boxes."""


def mark_of_mask(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]], colour: Colour) -> Mark:
    """Return the smoothed outlines of a mask."""
    return Mark(colour=colour, polygons=tuple(smoothed(ring) for ring in outlines(mask)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the text beside the image."""

    text: str
    size: int = 18
    colour: Colour = WHITE
    swatch: Colour | None = None
    indent: int = 0
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """Everything on one key image."""

    image: Picture = field(repr=False)
    spacing_mm: tuple[float, float] | None
    aspect: float = 1.0
    is_magnified: bool = False
    letters: Letters = ("", "", "", "")
    marks: Sequence[Mark] = ()
    head: Sequence[Line] = ()
    legend: Sequence[Line] = ()
    """Cut with a note where there is no room."""
    foot: Sequence[Line] = ()


def draw(sheet: Sheet) -> Picture:
    """Return the picture, uint8 ``(rows, columns, 3)``; the image lies in it where ``placing`` says."""
    rows, columns = sheet.image.shape[:2]
    place = placing(rows, columns, sheet.spacing_mm, sheet.aspect)
    canvas = Image.new("RGB", (place.width + PANEL, max(place.height, LEAST_HEIGHT)))
    resample = Image.Resampling.LANCZOS if place.width < columns else Image.Resampling.BICUBIC
    canvas.paste(Image.fromarray(sheet.image).resize((place.width, place.height), resample), (place.left, place.top))
    pen = ImageDraw.Draw(canvas)
    pen.fontmode = "L"
    _draw_letters(pen, sheet.letters, place)
    _draw_scale(pen, sheet, place)
    for mark in sheet.marks:
        _draw_caption(pen, mark, place)
    for mark in sheet.marks:  # over all writing, so that nothing hides what was found
        _draw_mark(pen, mark, place)
    _draw_panel(pen, sheet, place.width + MARGIN, canvas.height)
    return np.asarray(canvas, np.uint8)


def _draw_mark(pen: ImageDraw.ImageDraw, mark: Mark, place: Placing) -> None:
    for polygon in mark.polygons:
        pen.line(_on_canvas(polygon, place), fill=mark.colour, width=2)
    for ends in mark.lines:
        first, last = _on_canvas(np.asarray(ends, float), place)
        pen.line([first, last], fill=mark.colour, width=2)
        _draw_caps(pen, first, last, mark.colour)


def _draw_caption(pen: ImageDraw.ImageDraw, mark: Mark, place: Placing) -> None:
    if mark.caption and mark.polygons:
        corners = np.asarray(_on_canvas(mark.polygons[0], place))
        font = fitted(17, bold=True)
        x = min(
            max(place.left + 2, float(corners[:, 0].min())), place.left + place.width - font.getlength(mark.caption)
        )
        y = float(corners[:, 1].min()) - 24
        y = y if y > place.top else float(corners[:, 1].max()) + 4
        pen.text((x, y), mark.caption, font=font, fill=mark.colour, stroke_width=2, stroke_fill=BLACK)


def _on_canvas(points: Polygon, place: Placing) -> list[tuple[float, float]]:
    """Return points of the image, counted from the corner of its first pixel, as pixels that Pillow draws."""
    placed = points * place.scale + (place.left - 0.5, place.top - 0.5)
    return [(float(x), float(y)) for x, y in placed]


def _draw_caps(
    pen: ImageDraw.ImageDraw, first: tuple[float, float], last: tuple[float, float], colour: Colour
) -> None:
    """Draw short bars across both ends, as callipers have them."""
    along = np.subtract(last, first)
    across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6) * 6
    for end in (first, last):
        pen.line([tuple(np.add(end, across)), tuple(np.subtract(end, across))], fill=colour, width=2)


def _draw_letters(pen: ImageDraw.ImageDraw, letters: Letters, place: Placing) -> None:
    centre_x, centre_y = place.left + place.width / 2, place.top + place.height / 2
    right, bottom = place.left + place.width, place.top + place.height
    spots = (
        (place.left + 6, centre_y, "lm"),
        (right - 6, centre_y, "rm"),
        (centre_x, place.top + 6, "ma"),
        (centre_x, bottom - 6, "md"),
    )
    for letter, (x, y, anchor) in zip(letters, spots, strict=True):
        if letter:
            pen.text((x, y), letter, font=fitted(22), fill=WHITE, anchor=anchor, stroke_width=2, stroke_fill=BLACK)


def _draw_scale(pen: ImageDraw.ImageDraw, sheet: Sheet, place: Placing) -> None:
    if sheet.spacing_mm is None:
        return
    per_mm = place.scale[0] / sheet.spacing_mm[1]
    lengths = [mm for mm in _BARS_MM if mm * per_mm <= place.width * _BAR_SHARE]
    if not lengths:
        return
    length = lengths[-1] * per_mm
    x, y = place.left + place.width - 20, place.top + place.height - 20
    for width, colour in ((6, BLACK), (2, WHITE)):
        pen.line([(x - length, y), (x, y)], fill=colour, width=width)
        for end in (x - length, x):
            pen.line([(end, y - 6), (end, y + 6)], fill=colour, width=width)
    text = f"{lengths[-1]} mm" + (" at the detector" if sheet.is_magnified else "")
    pen.text((x, y - 10), text, font=fitted(17), fill=WHITE, anchor="rd", stroke_width=2, stroke_fill=BLACK)


def _draw_panel(pen: ImageDraw.ImageDraw, sheet: Sheet, left: int, height: int) -> None:
    head, foot = (_wrapped(lines) for lines in (sheet.head, sheet.foot))
    top = _draw_lines(pen, head, left, MARGIN)
    foot_top = height - MARGIN - sum(_height(line) for line in foot)
    _draw_lines(pen, foot, left, foot_top)
    legend = _wrapped(sheet.legend)
    room = foot_top - MARGIN - top
    if sum(_height(line) for line in legend) > room:
        more = Line(text="More is in the report.", size=15, colour=GREY)
        room -= _height(more)
        while sum(_height(line) for line in legend) > room:
            legend.pop()
        legend.append(more)
    _draw_lines(pen, legend, left, top)


def _height(line: Line) -> int:
    return round(line.size * 1.45)


def _draw_lines(pen: ImageDraw.ImageDraw, lines: Sequence[Line], left: int, top: int) -> int:
    for line in lines:
        x = left + line.indent
        if line.swatch is not None:
            middle = top + line.size * 0.62
            pen.line([(x, middle), (x + 20, middle)], fill=line.swatch, width=5)
        if line.swatch is not None:
            x += 30
        pen.text((x, top), line.text, font=fitted(line.size, bold=line.bold), fill=line.colour)
        top += _height(line)
    return top


def _wrapped(lines: Sequence[Line]) -> list[Line]:
    """Return lines that fit the panel; what is not in the font becomes a question mark."""
    fitting = []
    for line in lines:
        font = fitted(line.size, bold=line.bold)
        room = PANEL - 2 * MARGIN - line.indent - (30 if line.swatch is not None else 0)
        for number, text in enumerate(wrapped(printable(line.text), room, font)):
            fitting.append(
                Line(
                    text=text,
                    size=line.size,
                    colour=line.colour,
                    bold=line.bold,
                    swatch=line.swatch if not number else None,
                    indent=line.indent + (30 if number and line.swatch is not None else 0),
                )
            )
    return fitting


def wrapped(text: str, room: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """Return ``text`` in lines of at most ``room`` pixels; a longer word is cut."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > room:
            lines.append("")
        cut = word
        while len(cut) > 1 and font.getlength(cut) > room:
            cut = cut[:-1]
        lines[-1] = f"{lines[-1]} {cut}" if lines[-1] else cut
    return lines


def printable(text: str) -> str:
    """Return ``text`` with a question mark for each character that the font has not."""
    return text.encode("cp1252", "replace").decode("cp1252").replace("\n", " ") if text else text


@cache
def fitted(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of all pictures: Bitstream Vera, which comes with reportlab."""
    font = files("reportlab") / "fonts" / ("VeraBd.ttf" if bold else "Vera.ttf")
    return ImageFont.truetype(BytesIO(font.read_bytes()), size)
