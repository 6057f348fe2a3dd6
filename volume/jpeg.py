"""JPEG (ITU-T T.81) decoded by GDCM, for grey frames and as a plug-in of pydicom.

pydicom's own plug-in refuses JPEG Extended of 12 bits whatever the version of GDCM; the one required here decodes it
as DCMTK does, bit for bit. And GDCM keeps Python's lock while it decodes: frames of which there are many go to other
processes (``volume.jpeg_helpers``), for which this plug-in has a way in. Importing this module makes pydicom know it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from volume.codestream import jpeg_frame_of
from volume.jpeg_child import image_of, pixels_of

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL: Final = "gdcm of frames"
SYNTAXES: Final = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("gdcm>=3.0.24",))
"""Looked for by pydicom, as are the two functions."""
OPTION: Final = "jpeg_decoder"
"""The option of pydicom's decoders that says by what frames are decoded."""
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


def decode(src: bytes, out: Bytes, form: Form) -> bool:
    """See ``JpegDecoder``; in this process, keeping the lock."""
    image = image_of(import_module("gdcm"), src, form)
    pixels = pixels_of(image) if image.GetBufferLength() == form.size else None
    if pixels is None:
        return False
    out[:] = np.frombuffer(pixels, np.uint8)
    return True


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


def is_available(uid: str) -> bool:
    """Tell whether this plug-in decodes a transfer syntax."""
    return uid in SYNTAXES


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Return one frame, as pydicom's own plug-in would."""
    form = told(
        src,
        Form(
            syntax=runner.transfer_syntax,
            rows=runner.rows,
            columns=runner.columns,
            allocated=runner.bits_allocated,
            stored=runner.bits_stored,
            signed=runner.pixel_representation,
            samples=runner.samples_per_pixel,
            photometric=str(runner.photometric_interpretation),
            planar=runner.planar_configuration if runner.samples_per_pixel > 1 else 0,
        ),
    )
    by: JpegDecoder = runner.get_option(OPTION, decode)
    frame = bytearray(form.size if form else 0)
    if form is None or not by(src, np.frombuffer(frame, np.uint8), form):
        raise ValueError("the frame is damaged, or another than its header says")
    return frame


for _syntax in SYNTAXES:
    _decoder: Any = get_decoder(UID(_syntax))
    if LABEL not in _decoder.available_plugins:
        _decoder.add_plugin(LABEL, (__name__, "_decode_frame"))
