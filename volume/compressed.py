"""One compressed frame, decoded: without Python's lock where a library allows that, else by pydicom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import volume.jpeg
import volume.run_lengths
from domain.errors import AssemblyError
from domain.instance import Header
from volume.codecs import Wanted, decoders
from volume.codestream import is_cut_off, size_of
from volume.encapsulated import Codestreams
from volume.jpeg_form import Form, JpegDecoder, told
from volume.jpeg_helpers import decode
from volume.stored import Stored, stored_dtype, unreadable

# What pydicom would try first is slow (RLE in Python), needs more memory, or keeps the lock (GDCM).
_PREFERRED = {
    RLELossless: volume.run_lengths.LABEL,
    JPEG2000Lossless: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    **dict.fromkeys(volume.jpeg.SYNTAXES, volume.jpeg.LABEL),
}

_SOLE = frozenset({"", volume.run_lengths.LABEL})
"""After them no other is tried: none is left, or it would take what must not be taken."""

# pydicom would drop the unused bits, which may hold padding. (Its annotation of the keywords is not the one meant.)
AS_STORED: Any = {"raw": True, "correct_unused_bits": False}
"""Options of pydicom's decoders that leave unused bits, and colours, as they are."""


@contextmanager
def refusing(header: Header) -> Iterator[None]:
    """Turn whatever pydicom and the decoders raise into the refusal that names the instance; ``OSError`` passes."""
    try:
        yield
    except (AssemblyError, OSError):
        raise
    except NotImplementedError as error:
        raise unreadable(header, "no decoder knows this compression") from error
    except IndexError as error:
        raise unreadable(header, "there are fewer frames than NumberOfFrames says") from error
    except Exception as error:  # each decoder raises whatever it likes
        raise unreadable(header, "the compressed data is damaged or of a kind that no decoder takes") from error


def stored_values(
    header: Header,
    streams: Codestreams,
    index: int,
    buffer: npt.NDArray[np.int16] | None = None,
    jpeg: JpegDecoder = decode,
) -> Stored:
    """Return the grey values of a frame as they are stored, unused bits included, shape ``(rows, columns)``.

    Parameters
    ----------
    index
        From 0.
    buffer
        Contiguous; values of 16 bits may go into it.
    jpeg
        By what frames of JPEG are decoded.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``.
    OSError
        The file cannot be read.
    """
    with refusing(header):
        codestream = _checked(header, streams.read(index))
        dtype, shape = stored_dtype(header), (header.rows or 0, header.columns or 0)
        out = buffer if buffer is not None and dtype.itemsize == 2 else np.empty(shape, dtype)
        if _is_decoded(header, codestream, out, jpeg):
            return out.view(dtype)
        values = _by_pydicom(header, codestream, streams.options | {volume.jpeg.OPTION: jpeg}, AS_STORED)
    _check_decoded(header, values, ())
    return values.astype(dtype, copy=not values.flags.writeable)


def colours(header: Header, streams: Codestreams, index: int, jpeg: JpegDecoder = decode) -> Stored:
    """Return a frame as pydicom shows it, YBR as RGB, shape ``(rows, columns, samples)``.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``.
    OSError
        The file cannot be read.
    """
    with refusing(header):
        codestream = _checked(header, streams.read(index))
        values = _by_pydicom(header, codestream, streams.options | {volume.jpeg.OPTION: jpeg}, {})
    _check_decoded(header, values, values.shape[2:])
    return values


def _is_decoded(header: Header, codestream: bytes, out: Stored, jpeg: JpegDecoder) -> bool:
    """Decode a plain frame into ``out``; return whether it was one."""
    rows, columns, stored = header.rows or 0, header.columns or 0, header.bits_stored or 16
    is_signed = header.pixel_representation == 1
    syntax = header.transfer_syntax_uid
    if syntax in volume.jpeg.SYNTAXES:
        allocated = 8 * out.itemsize
        said = Form(syntax=syntax, rows=rows, columns=columns, allocated=allocated, stored=stored, signed=is_signed)
        form = told(codestream, said)
        return form is not None and jpeg(codestream, out.reshape(-1).view(np.uint8), form)
    decode = decoders().get(syntax)
    wanted = Wanted(rows, columns, stored, is_signed, is_low=header.high_bit == stored - 1)
    return decode is not None and decode(codestream, out, wanted)


def _by_pydicom(header: Header, codestream: bytes, options: Mapping[str, Any], how: Mapping[str, Any]) -> Stored:
    syntax = UID(header.transfer_syntax_uid)
    decoder, plugin = get_decoder(syntax), _PREFERRED.get(syntax, "")
    items = encapsulate([codestream], has_bot=False)
    try:
        values, _ = decoder.as_array(items, index=0, decoding_plugin=plugin, **options, **how)
    except Exception:
        if plugin in _SOLE:
            raise
        values, _ = decoder.as_array(items, index=0, **options, **how)
    found: Stored = values
    return found


def _checked(header: Header, codestream: bytes) -> bytes:
    """Return a frame; raise what a look at it shows, before a decoder allocates or searches."""
    size = size_of(codestream)
    if size is not None and size != (header.rows, header.columns):
        raise unreadable(header, "a frame has another size than Rows and Columns say")
    if is_cut_off(codestream):
        raise unreadable(header, "a frame is cut off")
    return codestream


def _check_decoded(header: Header, values: Stored, samples: tuple[int, ...]) -> None:
    if values.shape != (header.rows, header.columns, *samples) or values.dtype.kind not in "iu":
        raise unreadable(header, "the decoded image has another size than Rows and Columns say")
