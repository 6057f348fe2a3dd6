"""JPEG (ITU-T T.81) decoded by GDCM in other processes, as a plug-in of pydicom.

pydicom's own plug-in refuses JPEG Extended of 12 bits whatever the version of GDCM; the one required here decodes it
as DCMTK does, bit for bit. And in this process GDCM keeps Python's lock while it decodes, and damaged frames of any
compression may end the process: nobody catches what it throws. Importing this module makes pydicom know this plug-in,
and none of its own that call GDCM here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from volume.codestream import is_cut_off, size_of
from volume.jpeg_form import Form, JpegDecoder, told
from volume.jpeg_helpers import decode

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL: Final = "gdcm of frames"
SYNTAXES: Final = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_LAST_RESORT: Final = (JPEGLSLossless, JPEGLSNearLossless)
"""Some frames that CharLS refuses GDCM decodes."""
DECODER_DEPENDENCIES = dict.fromkeys((*SYNTAXES, *_LAST_RESORT), ("gdcm>=3.0.24",))
"""Looked for by pydicom, as are the two functions."""
OPTION: Final = "jpeg_decoder"
"""The option of pydicom's decoders that says by what frames are decoded."""
_IN_THIS_PROCESS: Final = "gdcm"


def is_available(uid: str) -> bool:
    """Tell whether this plug-in decodes a transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Return one frame, as pydicom's own plug-in would."""
    form = _told(
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


def _told(src: bytes, form: Form) -> Form | None:
    if form.syntax not in _LAST_RESORT:
        return told(src, form)
    is_whole = size_of(src) == (form.rows, form.columns) and not is_cut_off(src)
    # GDCM decodes fewer bits of a byte wrongly, as pydicom's plug-in knows.
    return form if is_whole and form.stored >= 8 else None


for _syntax in DECODER_DEPENDENCIES:
    _decoder: Any = get_decoder(UID(_syntax))
    if LABEL not in _decoder.available_plugins:
        _decoder.add_plugin(LABEL, (__name__, "_decode_frame"))
for _syntax in (*SYNTAXES, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000):
    _decoder = get_decoder(UID(_syntax))
    if _IN_THIS_PROCESS in _decoder.available_plugins:
        _decoder.remove_plugin(_IN_THIS_PROCESS)
