"""Decodes the frames of one instance one after the other, with bounded memory (PS3.5 8 and A.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, iter_pixels, pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domain.errors import AssemblyError, StorageError
from domain.instance import Header
from domain.series import RefusalCode
from volume.codestream import is_cut_off, size_of
from volume.numbers import instance_numbers, listed
from volume.part10 import opened
from volume.pixels import AS_STORED, PREFERRED, unreadable

_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

Pixels = npt.NDArray[np.generic]


def decoded(
    header: Header, path: Path, frames: Sequence[int], *, as_stored: bool, most_bytes: int
) -> Iterator[Pixels]:
    """Yield frames as integers, shape ``(rows, columns)`` or ``(rows, columns, 3)``.

    Uncompressed frames are read from the file one by one; the compressed ones of an instance are in memory together.

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
    options: dict[str, Any] = {"raw": as_stored} | (AS_STORED if as_stored else {})
    try:
        source = path if header.transfer_syntax_uid in _NATIVE else _in_memory(header, path, most_bytes)
        if header.transfer_syntax_uid in _NATIVE or header.transfer_syntax_uid in _DEFLATED:
            yield from _checked(header, _uncompressed(header, source, frames, options))
        else:
            yield from _checked(header, _compressed(header, source, frames, options))
    except AssemblyError:
        raise
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    except NotImplementedError as error:
        raise unreadable(header, "no decoder knows this compression") from error
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


def _compressed(header: Header, ds: Any, frames: Sequence[int], options: dict[str, Any]) -> Iterator[Pixels]:
    syntax = UID(header.transfer_syntax_uid)
    decoder, plugin = get_decoder(syntax), PREFERRED.get(syntax, "")
    for index in _of_one_size(header, ds, frames):
        try:
            values, _ = decoder.as_array(ds, index=index, decoding_plugin=plugin, **options)
        except Exception:
            if not plugin:
                raise
            values, _ = decoder.as_array(ds, index=index, **options)
        yield values


def _of_one_size(header: Header, ds: Any, frames: Sequence[int]) -> Iterator[int]:
    """Yield the index of each frame whose codestream has the size that the header says."""
    wanted = set(frames)
    count = header.number_of_frames or 1
    offsets = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    extended = offsets if all(offsets) else None
    for index, codestream in enumerate(
        generate_frames(ds.PixelData, number_of_frames=count, extended_offsets=extended)
    ):
        if index not in wanted:
            continue
        size = size_of(codestream)
        if size is not None and size != (header.rows, header.columns):
            raise unreadable(header, "a frame has another size than Rows and Columns say")
        if is_cut_off(codestream):
            raise unreadable(header, "a frame is cut off")
        yield index
        wanted.discard(index)
        if not wanted:
            return
    raise unreadable(header, "there are fewer frames than NumberOfFrames says")


def _checked(header: Header, found: Iterator[Pixels]) -> Iterator[Pixels]:
    for values in found:
        if values.shape[:2] != (header.rows, header.columns) or values.dtype.kind not in "iu":
            raise unreadable(header, "the decoded image has another size than Rows and Columns say")
        yield values
