"""Decodes the frames of one instance in their order, with bounded memory (PS3.5 8 and A.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domain.errors import AssemblyError, StorageError
from domain.instance import Header
from domain.series import RefusalCode
from volume.ahead import in_order, workers_for
from volume.compressed import AS_STORED, colours, refusing, stored_values
from volume.encapsulated import Codestreams
from volume.jpeg import SYNTAXES
from volume.jpeg_helpers import jpeg_decoder
from volume.numbers import instance_numbers, listed
from volume.part10 import opened
from volume.stored import unreadable

_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_IN_FLIGHT = 128 << 20
"""How many bytes threads may have at work at once, beside the image."""
_COPIES = 8
"""As often a frame is in memory while it is decoded and its colours are converted (in floating point)."""

Pixels = npt.NDArray[np.generic]


def decoded(
    header: Header, path: Path, frames: Sequence[int], *, as_stored: bool, most_bytes: int
) -> Iterator[Pixels]:
    """Yield frames as integers, shape ``(rows, columns)`` or ``(rows, columns, 3)``.

    Uncompressed frames are read from the file one by one, compressed ones decoded by several threads, a few ahead.

    Parameters
    ----------
    frames
        From 0, ascending.
    as_stored
        Unused bits as they are in the file, and no conversion of colours; otherwise YBR becomes RGB.
    most_bytes
        How much memory the undecoded pixel data may take.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE`` or ``TOO_LARGE``, with the instance and its transfer syntax.
    StorageError
        The file cannot be read.
    """
    try:
        if header.transfer_syntax_uid in _NATIVE or header.transfer_syntax_uid in _DEFLATED:
            source = path if header.transfer_syntax_uid in _NATIVE else _in_memory(header, path, most_bytes)
            yield from _checked(header, _uncompressed(header, source, frames, AS_STORED if as_stored else {}))
        else:
            yield from _compressed(header, path, frames, as_stored=as_stored, most_bytes=most_bytes)
    except AssemblyError:
        raise
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    except Exception as error:  # pydicom and each decoder raise whatever a damaged file leads to
        raise unreadable(header, "the pixel data is damaged, missing or of a kind that no decoder takes") from error


def _in_memory(header: Header, path: Path, most_bytes: int) -> pydicom.Dataset:
    size = path.stat().st_size
    if header.transfer_syntax_uid in _DEFLATED:
        with opened(path) as inflated:
            size = 3 * inflated.window.size  # pydicom holds it as it came, inflated, and parsed
    if size > most_bytes:
        raise AssemblyError(
            RefusalCode.TOO_LARGE,
            f"The dataset has {size >> 20} MiB, more than the {most_bytes >> 20} MiB that may be in memory at once "
            f"({listed([header])}). Send fewer frames an instance.",
            instance_numbers([header]),
        )
    return pydicom.dcmread(path)


def _uncompressed(header: Header, source: Any, frames: Sequence[int], options: dict[str, Any]) -> Iterator[Pixels]:
    if header.photometric_interpretation == "YBR_FULL_422":
        # pydicom's iterator takes the second frame of these to be expanded like the first.
        return (pixel_array(source, index=index, **options) for index in frames)
    return iter_pixels(source, indices=list(frames), **options)


def _compressed(
    header: Header, path: Path, frames: Sequence[int], *, as_stored: bool, most_bytes: int
) -> Iterator[Pixels]:
    with refusing(header):
        streams = Codestreams(header, path, lambda _: _in_memory(header, path, most_bytes))

    pixels = (header.rows or 1) * (header.columns or 1) * (header.samples_per_pixel or 1)
    size = pixels * (header.bits_allocated or 16) // 8
    workers = min(workers_for(len(frames)), max(1, _IN_FLIGHT // (_COPIES * size)))
    is_jpeg = header.transfer_syntax_uid in SYNTAXES
    with jpeg_decoder(workers, len(frames) * size if is_jpeg else 0) as jpeg:

        def read(index: int) -> Pixels:
            if as_stored:
                return stored_values(header, streams, index, jpeg=jpeg)
            return colours(header, streams, index, jpeg)

        yield from in_order(read, frames, workers)


def _checked(header: Header, found: Iterator[Pixels]) -> Iterator[Pixels]:
    for values in found:
        if values.shape[:2] != (header.rows, header.columns) or values.dtype.kind not in "iu":
            raise unreadable(header, "the decoded image has another size than Rows and Columns say")
        yield values
