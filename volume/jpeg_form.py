"""What a decoder of JPEG (ITU-T T.81) is told of a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.uid import JPEGExtended12Bit

from volume.codestream import jpeg_frame_of

_EXTENDED: Final = 0xC1

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What GDCM is told of a frame."""

    syntax: str
    rows: int
    columns: int
    allocated: int
    stored: int
    signed: int
    samples: int = 1
    photometric: str = "MONOCHROME2"
    planar: int = 0

    @property
    def size(self) -> int:
        """Return how many bytes the decoded frame has."""
        return self.rows * self.columns * self.samples * self.allocated // 8


JpegDecoder = Callable[[bytes, Bytes, Form], bool]
"""Decodes a frame into a contiguous buffer of ``Form.size``; ``False`` where it is damaged, or another than said."""


def told(src: bytes, form: Form) -> Form | None:
    """Return what GDCM is told of a frame; ``None`` where the frame says something else than its header.

    Then GDCM would throw bits away, or write bytes where there should be words.
    """
    found = jpeg_frame_of(src)
    if found is None or (found.rows, found.columns, found.components) != (form.rows, form.columns, form.samples):
        return None
    if (found.precision > 8) != (form.allocated == 16):
        return None
    # Of bits beyond those stored, which may hold padding or belong to a higher HighBit, GDCM drops words', and for
    # those of bytes it ends the process; it is told what the frame has, and the caller looks at the header's.
    form = replace(form, stored=max(8, found.precision))
    is_grey_12 = found.process == _EXTENDED and found.precision == 12 and form.samples == 1
    return form if form.syntax != JPEGExtended12Bit or is_grey_12 == (form.allocated == 16) else None
