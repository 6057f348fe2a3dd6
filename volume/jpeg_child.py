"""The program that decodes frames of JPEG for another process, which waits at the other ends of its two pipes.

It ends when the pipe that it reads from does, whatever ended the other process. Nothing but GDCM is imported, since
each of these processes costs what it imports. GDCM's method is called by its C++ name where the library shows it,
since SWIG copies the pixels through a text; an exception of GDCM, which damaged data leads to, then ends the process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

REQUEST: Final = struct.Struct("<7HQQ16s64s")
"""Rows, columns, allocated, stored, signed, samples, planar; sizes of frame and pixels; photometric and syntax."""
DONE, REFUSED = b"\1", b"\0"
_IN, _OUT = 0, 1
_METHOD: Final = "_ZNK4gdcm6Bitmap9GetBufferEPc"
"""``bool gdcm::Bitmap::GetBuffer(char *) const``, by the C++ ABI of Linux."""


class Described(Protocol):
    """What GDCM is told of a frame (``volume.jpeg_form.Form``)."""

    @property
    def syntax(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def allocated(self) -> int: ...
    @property
    def stored(self) -> int: ...
    @property
    def signed(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def photometric(self) -> str: ...
    @property
    def planar(self) -> int: ...


def image_of(gdcm: Any, src: bytes, form: Described) -> Any:
    """Return GDCM's image of a frame, not yet decoded; set up as pydicom does."""
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(src)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((form.columns, form.rows, 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(form.photometric)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    if form.samples > 1:
        image.SetPlanarConfiguration(form.planar)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(form.syntax))))
    image.SetPixelFormat(gdcm.PixelFormat(form.samples, form.allocated, form.stored, form.stored - 1, form.signed))
    return image


class _Form:
    def __init__(self, said: tuple[Any, ...]) -> None:
        self.rows, self.columns, self.allocated, self.stored, self.signed, self.samples, self.planar = said[:7]
        self.photometric, self.syntax = (text.rstrip(b"\0").decode("ascii") for text in said[9:])


def pixels_of(image: Any) -> bytes | None:
    """Return the pixels of GDCM's image; ``None`` where its data is damaged."""
    text = image.GetBuffer()  # char* as str
    return None if text is None else bytes(text.encode("utf-8", "surrogateescape"))


def _method() -> Callable[[int, int], bool] | None:
    """Return the method that decodes of the library that is loaded; ``None`` where it cannot be had."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            (path,) = {line.split(maxsplit=5)[5].strip() for line in maps if "libgdcmMSFF" in line}
        method: Any = getattr(ctypes.CDLL(path), _METHOD)
    except (OSError, ValueError, AttributeError):
        return None
    method.argtypes, method.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_bool
    found: Callable[[int, int], bool] = method
    return found


def _read(count: int) -> bytearray:
    """Return exactly ``count`` bytes; end the process where the other one has ended."""
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = os.readv(_IN, [view[done:]])
        if got == 0:
            raise SystemExit(0)
        done += got
    return data


def _write(data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_OUT, view) :]


def _decoded(image: Any, size: int, method: Callable[[int, int], bool] | None) -> bytes | bytearray | None:
    if image.GetBufferLength() != size:
        return None
    if method is None:
        return pixels_of(image)
    pixels = bytearray(size)
    address = ctypes.addressof((ctypes.c_char * size).from_buffer(pixels))
    return pixels if method(int(image.this), address) else None


def main() -> None:
    """Serve until the other process ends."""
    sys.path.insert(0, sys.argv[1])
    import gdcm

    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # pixels stay out of core files, piped ones too
    method = _method()
    while True:
        said = REQUEST.unpack(_read(REQUEST.size))
        image = image_of(gdcm, bytes(_read(said[7])), _Form(said))
        pixels = _decoded(image, said[8], method)
        if pixels is None:
            _write(REFUSED)
        else:
            _write(DONE)
            _write(pixels)


if __name__ == "__main__":
    main()
