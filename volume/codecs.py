"""Grey frames straight into the buffer, by the libraries that pydicom's plug-ins hold.

The plug-ins keep Python's lock while they decode, so that threads gain nothing with them. CharLS and OpenJPEG inside
them are called here by their C interfaces, without it; RLE takes so little that its lock is no matter. Whatever is
not the plain case returns ``False`` and is left to pydicom: it decodes it, or says what is wrong with it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint16, c_uint32, c_void_p
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

import volume.run_lengths
from volume.codestream import is_cut_off

_HEAD: Final = struct.Struct(">HHHHIIIIIIIIHBBB")
"""SOC, then the image and tile size up to the first component (ITU-T T.800, A.5.1)."""
_START_OF_CODESTREAM, _SIZE_MARKER = 0xFF4F, 0xFF51
_CODESTREAM = 0  # OPJ_CODEC_J2K
_SOF_LS = b"\xff\xf7"
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the compressed image must say of itself to be decoded here."""

    rows: int
    columns: int
    bits: int
    is_signed: bool
    is_low: bool = True
    """HighBit is the highest of BitsStored."""


Values = npt.NDArray[np.signedinteger | np.unsignedinteger]
Decoder = Callable[[bytes, Values, Wanted], bool]
"""Decodes into a contiguous buffer of rows x columns, of bytes or words; ``False`` where that is left to pydicom."""


@cache
def decoders() -> Mapping[str, Decoder]:
    """Return what can be decoded, by transfer syntax; less where the libraries do not show their C interface."""
    found: dict[str, Decoder] = {RLELossless: _run_lengths}
    charls, openjpeg = _library("_CharLS", "JpegLsDecode"), _library("_openjpeg", "opj_set_decoded_resolution_factor")
    if charls is not None:
        found |= dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), _JpegLs(charls).decode)
    if openjpeg is not None:
        syntaxes = JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K
        found |= dict.fromkeys(syntaxes, _Jpeg2000(openjpeg).decode)
    return found


def _run_lengths(data: bytes, out: Values, wanted: Wanted) -> bool:
    """See ``Decoder``; whatever the bits mean."""
    try:
        volume.run_lengths.decode(data, out.view(np.uint8).reshape(1, *out.shape, out.itemsize))
    except ValueError:
        return False
    return True


def _library(module: str, symbol: str) -> ctypes.CDLL | None:
    """Open an extension module as the library that it holds."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
        getattr(library, symbol)
    except (OSError, AttributeError):
        return None
    return library


class _JpegLs:
    """CharLS 2 (ITU-T T.87)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._decode: Any = library.JpegLsDecode
        self._decode.argtypes = [c_void_p, c_size_t, c_char_p, c_size_t, c_void_p, c_void_p]
        self._decode.restype = c_int

    def decode(self, data: bytes, out: Values, wanted: Wanted) -> bool:
        """See ``Decoder``; signs are the caller's business, since JPEG-LS knows none."""
        frame = data.find(_SOF_LS, 2, 4096)
        if data[:2] != b"\xff\xd8" or frame < 0 or len(data) < frame + 10:
            return False
        if is_cut_off(data):
            return False
        bits, rows, columns, components = struct.unpack_from(">BHHB", data, frame + 4)
        if (bits, rows, columns, components) != (wanted.bits, wanted.rows, wanted.columns, 1):
            return False
        if not wanted.is_low or (bits > 8) != (out.itemsize == 2):
            return False
        return bool(self._decode(out.ctypes.data, out.nbytes, data, len(data), None, None) == 0)


class _Component(ctypes.Structure):
    """``opj_image_comp_t`` of OpenJPEG 2."""

    _fields_ = [
        *((name, c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd", "resno", "factor")),
        ("data", c_void_p),
        ("alpha", c_uint16),
    ]


class _Image(ctypes.Structure):
    """``opj_image_t`` of OpenJPEG 2."""

    _fields_ = [
        *((name, c_uint32) for name in ("x0", "y0", "x1", "y1", "numcomps")),
        ("color_space", c_int),
        ("comps", POINTER(_Component)),
        ("icc_profile", c_void_p),
        ("icc_length", c_uint32),
    ]


_READ = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
_SKIP = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, c_void_p)
_SEEK = ctypes.CFUNCTYPE(c_int, ctypes.c_int64, c_void_p)
_END_OF_STREAM = c_size_t(-1).value or 0


class _Jpeg2000:
    """OpenJPEG 2 (ITU-T T.800), codestreams of one component in one tile or several."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library: Any = library
        for name in ("opj_create_decompress", "opj_stream_create"):
            getattr(library, name).restype = c_void_p

    def decode(self, data: bytes, out: Values, wanted: Wanted) -> bool:
        """See ``Decoder``."""
        if not wanted.is_low or not _is_plain(data, wanted):
            return False
        opj = self._library
        source = _Source(data)
        # PS3.5 A.4.4: a frame is a codestream, without the boxes of a file.
        codec, stream = (
            c_void_p(opj.opj_create_decompress(_CODESTREAM)),
            c_void_p(opj.opj_stream_create(c_size_t(_BUFFER), 1)),
        )
        image: Any = POINTER(_Image)()
        try:
            return self._set_up(codec, stream, source) and self._read(codec, stream, image, out, wanted)
        finally:
            if image:
                opj.opj_image_destroy(image)
            opj.opj_stream_destroy(stream)
            opj.opj_destroy_codec(codec)  # both take NULL

    def _set_up(self, codec: c_void_p, stream: c_void_p, source: _Source) -> bool:
        opj = self._library
        if codec.value is None or stream.value is None:
            return False
        opj.opj_stream_set_read_function(stream, source.read)
        opj.opj_stream_set_skip_function(stream, source.skip)
        opj.opj_stream_set_seek_function(stream, source.seek)
        opj.opj_stream_set_user_data_length(stream, ctypes.c_uint64(source.size))
        parameters = ctypes.create_string_buffer(1 << 14)  # opj_dparameters_t is about 8 kB of names of files
        opj.opj_set_default_decoder_parameters(parameters)
        return bool(opj.opj_setup_decoder(codec, parameters))

    def _read(self, codec: c_void_p, stream: c_void_p, image: Any, out: Values, wanted: Wanted) -> bool:
        opj = self._library
        if not opj.opj_read_header(stream, codec, byref(image)):
            return False
        if not (opj.opj_decode(codec, stream, image) and opj.opj_end_decompress(codec, stream)):
            return False
        component = image.contents.comps[0]
        said = (image.contents.numcomps, component.h, component.w, component.prec, bool(component.sgnd))
        if said != (1, wanted.rows, wanted.columns, wanted.bits, wanted.is_signed) or not component.data:
            return False
        values = ctypes.cast(component.data, POINTER(ctypes.c_int32))
        np.copyto(out, np.ctypeslib.as_array(values, out.shape), casting="unsafe")
        return True


def _is_plain(data: bytes, wanted: Wanted) -> bool:
    """Tell whether a codestream says of itself what the header of the instance says."""
    if len(data) < _HEAD.size:
        return False
    soc, marker, _, _, x1, y1, x0, y0, *_, components, depth, dx, dy = _HEAD.unpack_from(data)
    # The sign stands in the highest bit of the depth, and the precision less one in the rest.
    said = (soc, marker, y1 - y0, x1 - x0, components, depth >> 7, (depth & 0x7F) + 1, dx, dy)
    expected = (
        _START_OF_CODESTREAM,
        _SIZE_MARKER,
        wanted.rows,
        wanted.columns,
        1,
        wanted.is_signed,
        wanted.bits,
        1,
        1,
    )
    return said == expected


class _Source:
    """Hands a codestream to OpenJPEG; holds the callbacks as long as they may be called."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data
        self._at = 0
        self.read, self.skip, self.seek = _READ(self._read), _SKIP(self._skip), _SEEK(self._seek)

    def _read(self, target: int, count: int, _: object) -> int:
        piece = self._data[self._at : self._at + count]
        if not piece:
            return _END_OF_STREAM
        ctypes.memmove(target, piece, len(piece))
        self._at += len(piece)
        return len(piece)

    def _skip(self, count: int, _: object) -> int:
        self._at = min(self._at + count, self.size)
        return count

    def _seek(self, position: int, _: object) -> int:
        self._at = position
        return int(position <= self.size)
