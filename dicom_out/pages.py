"""The pages of a report, as PDF: who, what was analysed, what was found, by which model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image as Pixels
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from dicom_out.fonts import REGULAR, written
from dicom_out.wording import NOT_FOR_DIAGNOSIS
from volume.display import Picture

_MARGIN, _WIDTH = 16 * mm, A4[0] - 32 * mm
_FRAME_PADDING = 6
"""Points that reportlab leaves inside of the margins."""
_TALLEST, _TALLEST_OF_SEVERAL = 110 * mm, 108 * mm
"""Heights of key images: two fill a page."""
_ACCENT, _WARNING, _FAINT = colors.HexColor("#1F3A5F"), colors.HexColor("#8A4B00"), colors.HexColor("#666666")
_TINT, _RULE = colors.HexColor("#FFF4DC"), colors.HexColor("#C8CED6")
_INCOMPLETE = "? stands for a character that these pages have no font for; the DICOM header holds it."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableOf:
    """A table of a report: its first row is the heading."""

    title: str
    rows: Sequence[Sequence[str]] = field(repr=False)
    widths: Sequence[float]
    """Shares of the page's width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """What stands on the pages, in order."""

    title: str
    running: str = field(repr=False)
    """At the head of each page: whose it is."""
    facts: Sequence[tuple[str, str]] = field(repr=False)
    """Names and values about patient, study and analysis."""
    sections: Sequence[tuple[str, str]] = field(repr=False)
    """Headings and texts, e.g. Findings and Impression."""
    tables: Sequence[TableOf] = field(repr=False)
    statements: Sequence[str] = field(repr=False)
    pictures: Sequence[Picture] = field(repr=False)
    about: Sequence[tuple[str, str]]
    """The model."""


def pdf_of(report: Report) -> bytes:
    """Return the PDF; the same report gives the same bytes."""
    blank = replace(report, pictures=[np.zeros_like(picture) for picture in report.pictures])  # quickly compressed
    pages = _built(blank, pages=0)[1]
    return _built(report, pages=pages)[0]


def _built(report: Report, pages: int) -> tuple[bytes, int]:
    """Return the PDF with ``pages`` as the number of its pages, and how many it really has."""
    buffer, count = io.BytesIO(), 0

    def furnish(canvas: Canvas, _: object) -> None:
        nonlocal count
        count = canvas.getPageNumber()
        _furnish(canvas, report, count, pages)

    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN - _FRAME_PADDING,
        rightMargin=_MARGIN - _FRAME_PADDING,
        topMargin=20 * mm,
        bottomMargin=20 * mm,
        title=f"AI report: {report.title}",
        author="Voxgate",
        subject=NOT_FOR_DIAGNOSIS,
        invariant=1,
        lang="en",
    )
    document.build(_story(report), onFirstPage=furnish, onLaterPages=furnish)
    return buffer.getvalue(), count


def _furnish(canvas: Canvas, report: Report, page: int, pages: int) -> None:
    """Draw head and foot of a page."""
    width, height = A4
    canvas.saveState()
    head = written(report.running)
    canvas.setFont(head.font, 8)
    canvas.setFillColor(_FAINT)
    canvas.drawString(_MARGIN, height - 12 * mm, head.text)
    canvas.setFont(REGULAR, 8)
    canvas.drawRightString(width - _MARGIN, 11 * mm, f"{page} / {pages}")
    canvas.drawString(_MARGIN, 11 * mm, f"AI result. {NOT_FOR_DIAGNOSIS}.")
    canvas.setStrokeColor(_RULE)
    canvas.line(_MARGIN, 15 * mm, width - _MARGIN, 15 * mm)
    canvas.restoreState()


def _story(report: Report) -> list[Flowable]:
    story: list[Flowable] = [_text(f"AI report: {report.title}", size=17, bold=True, colour=_ACCENT), _warning()]
    story += [Spacer(1, 3 * mm), _facts(report.facts), Spacer(1, 2 * mm)]
    for heading, text in report.sections:
        paragraphs = [part.strip() for part in text.splitlines() if part.strip()]
        story += [_heading(heading), *(_text(part) for part in paragraphs)]
    for table in report.tables:
        story += _table(table)
    if report.statements:
        story += [_heading("Statements"), *(_text(f"• {statement}") for statement in report.statements)]
    story.append(KeepTogether([_heading("About this result"), _facts(report.about)]))
    tallest = _TALLEST if len(report.pictures) < 2 else _TALLEST_OF_SEVERAL
    for number, picture in enumerate(report.pictures):
        drawn = _picture(picture, tallest)
        story.append(drawn if number else KeepTogether([_heading("Key images"), drawn]))
    if not all(written(text).is_whole for text in _texts(report)):
        story.append(_text(_INCOMPLETE, size=8, colour=_FAINT))
    return story


def _texts(report: Report) -> list[str]:
    pairs = [*report.facts, *report.sections, *report.about]
    cells = [cell for table in report.tables for row in table.rows for cell in row]
    return [report.title, *(text for pair in pairs for text in pair), *cells, *report.statements]


def _text(text: str, *, size: float = 10, bold: bool = False, colour: Any = colors.black) -> Paragraph:
    shown = written(text, bold=bold)
    style = ParagraphStyle(
        "text", fontName=shown.font, fontSize=size, leading=size * 1.35, textColor=colour, spaceAfter=size * 0.25,
        splitLongWords=True,
    )  # fmt: skip
    return Paragraph(escape(shown.text), style)


def _heading(text: str) -> Paragraph:
    shown = written(text, bold=True)
    style = ParagraphStyle(
        "heading", fontName=shown.font, fontSize=12, leading=16, textColor=_ACCENT, spaceBefore=9, spaceAfter=3,
        keepWithNext=True,
    )  # fmt: skip
    return Paragraph(escape(shown.text), style)


def _warning() -> Table:
    text = f"{NOT_FOR_DIAGNOSIS}. Made by software without review by a physician."
    table = Table([[_text(text, bold=True, colour=_WARNING)]], colWidths=[_WIDTH])
    table.setStyle(TableStyle([("BACKGROUND", (0, 0), (-1, -1), _TINT), ("BOTTOMPADDING", (0, 0), (-1, -1), 4)]))
    return table


def _facts(facts: Sequence[tuple[str, str]]) -> Table:
    """Return names and values in two pairs of columns; long values get a row of their own."""
    rows: list[list[Paragraph | str]] = []
    spans = []
    waiting: list[Paragraph | str] = []
    for name, value in facts:
        pair: list[Paragraph | str] = [_text(name, size=9, colour=_FAINT), _text(value, size=9)]
        if len(value) > 34:
            if waiting:
                rows.append([*waiting, "", ""])
                waiting = []
            spans.append(("SPAN", (1, len(rows)), (3, len(rows))))
            rows.append([*pair, "", ""])
        elif waiting:
            rows.append([*waiting, *pair])
            waiting = []
        else:
            waiting = pair
    if waiting:
        rows.append([*waiting, "", ""])
    table = Table(rows or [[""] * 4], colWidths=[_WIDTH * share for share in (0.16, 0.34, 0.16, 0.34)])
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 1),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                *spans,
            ]
        )
    )
    return table


def _table(table: TableOf) -> list[Flowable]:
    head = [_text(cell, size=9, bold=True) for cell in table.rows[0]]
    body = [[_text(cell, size=9) for cell in row] for row in table.rows[1:]]
    drawn = Table([head, *body], colWidths=[_WIDTH * share for share in table.widths], repeatRows=1)
    drawn.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, _ACCENT),
                ("LINEBELOW", (0, 1), (-1, -1), 0.3, _RULE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
                ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    return [_heading(table.title), drawn]


def _picture(picture: Picture, tallest: float) -> Image:
    rows, columns = picture.shape[:2]
    buffer = io.BytesIO()
    Pixels.fromarray(picture).save(buffer, format="PNG")
    buffer.seek(0)
    width = min(_WIDTH, tallest * columns / rows)
    image = Image(buffer, width=width, height=width * rows / columns)
    image.hAlign = "LEFT"
    image.spaceAfter = 3 * mm
    return image
