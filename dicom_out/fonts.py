"""Fonts of report pages: Helvetica, which every reader of PDF has, and DejaVu for scripts that it lacks."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

REGULAR, BOLD = "Helvetica", "Helvetica-Bold"
UNKNOWN = "?"
"""Stands for a character that no font has."""
_WIDE = "DejaVuSans"
_INSTALLED = (
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),  # Debian: fonts-dejavu-core
    Path("/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf"),  # Fedora
    Path("/usr/share/fonts/TTF/DejaVuSans.ttf"),  # Arch
)
_LARGEST = 0xFFFF
_WRITTEN_TO_THE_LEFT = frozenset({"R", "AL", "AN"})
"""Bidirectional classes of Hebrew and Arabic: they need shaping, which these pages do not do."""


@dataclass(frozen=True, slots=True)
class Written:
    """A text as a page can show it."""

    text: str
    font: str
    is_whole: bool
    """No character had to be replaced."""


def wide_font() -> str | None:
    """Return the registered name of DejaVu Sans where the system has it."""
    if _WIDE in pdfmetrics.getRegisteredFontNames():
        return _WIDE
    for path in _INSTALLED:
        if path.is_file():
            pdfmetrics.registerFont(TTFont(_WIDE, str(path)))
            return _WIDE
    return None


def written(text: str, *, bold: bool = False) -> Written:
    """Return ``text`` in the first font that has all of it; what no font has becomes a question mark.

    Arabic and Hebrew are never shown letter by letter from the left: that reads as another name.
    """
    plain = BOLD if bold else REGULAR
    if _in_latin(text):
        return Written(text, plain, is_whole=True)
    wide = wide_font()
    shown = "".join(character if _has(wide, character) else UNKNOWN for character in text)
    if wide is None or _in_latin(shown):
        return Written(shown, plain, is_whole=shown == text)
    return Written(shown, wide, is_whole=shown == text)


def _in_latin(text: str) -> bool:
    """Tell whether Helvetica has all characters (WinAnsiEncoding)."""
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def _has(wide: str | None, character: str) -> bool:
    if _in_latin(character):
        return True
    # reportlab writes the map back to text with four hexadecimal digits, so that larger ones damage it
    is_simple = unicodedata.bidirectional(character) not in _WRITTEN_TO_THE_LEFT and ord(character) <= _LARGEST
    return wide is not None and is_simple and ord(character) in pdfmetrics.getFont(wide).face.charToGlyph
