"""JPEG Extended of 12 bits (Process 2 & 4) for pydicom, decoded by GDCM.

pydicom's own plug-in refuses it whatever the version of GDCM; the one required here decodes it as DCMTK does, bit for
bit. Importing this module makes pydicom know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.pixels.decoders import JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL = "gdcm 12 bits"
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.24",)}
"""Looked for by pydicom, as are the two functions."""
_FRAME_HEADER = b"\xff\xc1"
"""SOF1, extended sequential (ITU-T T.81 Table B.1); after it length, then precision."""


def is_available(uid: str) -> bool:
    """Tell whether this plug-in decodes a transfer syntax."""
    return uid == JPEGExtended12Bit


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Return one frame of one sample a pixel, two bytes each."""
    import gdcm

    start = src.find(_FRAME_HEADER)
    if start < 0 or src[start + 4 : start + 5] != b"\x0c" or runner.samples_per_pixel != 1:
        raise ValueError("not a grey-scale frame of JPEG Extended with 12 bits")
    image = _image(gdcm, src, runner)
    # GDCM returns char* as str, and nothing for data that is damaged.
    decoded = image.GetBuffer()
    if decoded is None:
        raise ValueError("the compressed data is damaged")
    frame: bytes = decoded.encode("utf-8", "surrogateescape")
    runner.set_option("bits_allocated", 16)
    return frame


def _image(gdcm: Any, src: bytes, runner: DecodeRunner) -> Any:
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(src)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, runner.pixel_representation))
    return image


if LABEL not in JPEGExtended12BitDecoder.available_plugins:
    JPEGExtended12BitDecoder.add_plugin(LABEL, (__name__, "_decode_frame"))
