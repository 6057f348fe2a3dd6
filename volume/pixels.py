"""Stored pixel values of one image, an instance or a frame of one, decoded (PS3.3 C.7.6.3, PS3.5 8)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from domain.errors import AssemblyError, StorageError
from domain.instance import Header, Tile
from domain.series import RefusalCode
from volume.canonical import swapped
from volume.compressed import refusing, stored_values
from volume.encapsulated import Codestreams
from volume.jpeg_form import JpegDecoder
from volume.jpeg_helpers import decode
from volume.numbers import instance_numbers, listed
from volume.pixel_span import pixel_span, read_recorded, recorded_span
from volume.stored import Stored, stored_dtype, stored_range, unreadable

_NATIVE = frozenset(
    {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)
_IN_PLACE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian})


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Stored values of one slice.

    Attributes
    ----------
    values
        Integers, shape ``(rows, columns)``, after removing unused bits and extending the sign. May share memory with
        the buffer given to ``read_frame``; the caller may write to it.
    padding
        Where the slice holds padding; ``None`` where it holds none.
    """

    values: Stored
    padding: npt.NDArray[np.bool_] | None


class LastDataset:
    """Keeps what was read last: frames and tiles of one instance are usually read one after the other.

    Several threads may use it; one reads a file, and the others wait. ``jpeg`` decodes frames of JPEG.
    """

    def __init__(self, jpeg: JpegDecoder = decode) -> None:
        self.jpeg = jpeg
        self._lock = RLock()
        self._path: Path | None = None
        self._dataset = Dataset()
        self._streams: dict[Path, Codestreams] = {}
        self._mosaic: tuple[Path, Stored] | None = None

    def read(self, path: Path) -> Dataset:
        """Return the dataset of a Part 10 file with its pixel data, not decoded."""
        with self._lock:
            if path != self._path:
                self._path = None
                self._dataset, self._path = pydicom.dcmread(path), path
            return self._dataset

    def codestreams(self, header: Header, path: Path) -> Codestreams:
        """Return the compressed frames of an instance."""
        with self._lock:
            if path not in self._streams:
                self._streams[path] = Codestreams(header, path, pydicom.dcmread)
            return self._streams[path]

    def mosaic(self, path: Path, read: Callable[[], Stored]) -> Stored:
        """Return the pixels of a mosaic, which ``read`` decodes where they are not at hand."""
        with self._lock:
            if self._mosaic is None or self._mosaic[0] != path:
                self._mosaic = path, read()
            return self._mosaic[1]


def read_frame(header: Header, path: Path, buffer: npt.NDArray[np.int16], last: LastDataset | None = None) -> Frame:
    """Decode the pixels of one image.

    Parameters
    ----------
    header
        Its header, accepted by ``volume.pixel_format.check_pixel_format``; ``frame_number`` says which frame.
    path
        The Part 10 file of the instance.
    last
        Spares reading the file again for every frame.
    buffer
        Contiguous, shape ``(rows, columns)``. Overwritten; pixels of 16 bits, uncompressed or of some compressions,
        go straight into it.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``: truncated, damaged, or no decoder knows the transfer syntax.
        ``UNSUPPORTED_PIXELS``: the pixels are not what the header says.
        ``SIEMENS_MOSAIC``: the mosaic holds something beside its tiles.
    StorageError
        The file cannot be read.
    """
    last = last or LastDataset()
    try:
        words = _words(header, path, buffer, last) if header.tile is None else _tile(header, header.tile, path, last)
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    return frame_of(header, words)


def _words(header: Header, path: Path, buffer: npt.NDArray[np.int16], last: LastDataset) -> Stored:
    """Return the pixels of an instance or frame, unused bits included."""
    read = _native_words if header.transfer_syntax_uid in _NATIVE else _decoded
    return read(header, path, buffer, last)


def _tile(header: Header, tile: Tile, path: Path, last: LastDataset) -> Stored:
    """Return a copy of the pixels of one tile, unused bits included."""

    def read() -> Stored:
        size = tile.image_rows, tile.image_columns
        whole = replace(header, tile=None, frame_number=None, rows=size[0], columns=size[1])
        words = _words(whole, path, np.empty(size, np.int16), last)
        _check_left_over(header, tile, words)
        return words

    return last.mosaic(path, read)[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns].copy()


def _check_left_over(header: Header, tile: Tile, words: Stored) -> None:
    """Raise unless the places of a mosaic behind its last tile are empty: zero, or padding."""
    across = tile.image_columns // tile.columns
    for k in range(tile.count, across * (tile.image_rows // tile.rows)):
        row, column = k // across * tile.rows, k % across * tile.columns
        left = words[row : row + tile.rows, column : column + tile.columns].copy()
        padding = frame_of(header, left).padding
        if left[~padding if padding is not None else ...].any():
            raise AssemblyError(
                RefusalCode.SIEMENS_MOSAIC,
                "ImageType says MOSAIC, and the image holds something behind the last of the slices that "
                f"NumberOfImagesInMosaic says ({listed([replace(header, frame_number=None)])}). Have the scanner "
                "save the series without mosaic, or as Enhanced MR.",
                instance_numbers([header]),
            )


def frame_of(header: Header, words: Stored) -> Frame:
    """Return what the pixels of one image say, as they stand in the file or as the decoder gave them.

    ``words`` are overwritten; BitsStored and the others are those that ``volume.pixel_format`` accepts.
    """
    if header.pixel_padding_value is None:
        is_full = header.bits_stored == header.bits_allocated
        return Frame(words if is_full else _without_unused_bits(header, words), None)
    bounds = _padding_range(header, header.pixel_padding_value)
    lowest, highest = stored_range(header)
    if lowest <= bounds[0] and bounds[1] <= highest:
        values = _without_unused_bits(header, words)
        return Frame(values, _padding(values, *bounds))
    # A padding value that needs more than BitsStored can only have been written into the unused bits.
    padding = _padding(words, *bounds)
    return Frame(_without_unused_bits(header, words), padding)


def _index(header: Header) -> int:
    """Return which frame of the instance is meant, from 0."""
    return (header.frame_number or 1) - 1


def _native_words(header: Header, path: Path, buffer: npt.NDArray[np.int16], last: LastDataset) -> Stored:
    """Return uncompressed pixels as they stand in the file, unused bits included."""
    dtype = stored_dtype(header)
    if header.transfer_syntax_uid in _IN_PLACE and dtype.itemsize == 2:
        fd = os.open(path, os.O_RDONLY)
        try:
            if _is_read_in_place(header, fd, buffer.data.cast("B")):
                return buffer.view(dtype)
        finally:
            os.close(fd)
    return _native_words_by_pydicom(header, path, buffer.shape, dtype, last)


def _is_read_in_place(header: Header, fd: int, view: memoryview) -> bool:
    """Read uncompressed pixels from where intake saw them or a look at the file finds them; ``False``: neither."""
    implicit = header.transfer_syntax_uid == ImplicitVRLittleEndian
    offset = header.pixel_data_offset
    is_first = header.frame_number in (None, 1)
    if offset is not None and is_first and read_recorded(fd, offset, view, implicit=implicit):
        return True
    span = None if offset is None else recorded_span(fd, offset, implicit=implicit)
    span = span or pixel_span(fd, implicit=implicit)
    if span is None:
        return False
    start = _index(header) * len(view)
    if span.length < start + len(view) or _fill(fd, view, span.offset + start) < len(view):
        raise unreadable(header, "PixelData is shorter than Rows and Columns say")
    return True


def _fill(fd: int, view: memoryview, offset: int) -> int:
    """Read into ``view``; return how many bytes there were."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def _native_words_by_pydicom(
    header: Header,
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[np.signedinteger | np.unsignedinteger],
    last: LastDataset,
) -> Stored:
    """Return uncompressed pixels of a file that is big endian, deflated, or too intricate to read in place."""
    try:
        data = last.read(path).PixelData
    except OSError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file leads to
        raise unreadable(header, "the dataset is damaged") from error
    count = shape[0] * shape[1]
    start = _index(header) * count * dtype.itemsize
    if len(data) < start + count * dtype.itemsize:
        raise unreadable(header, "PixelData is shorter than Rows and Columns say")
    is_big_endian = header.transfer_syntax_uid == ExplicitVRBigEndian
    if is_big_endian and dtype.itemsize == 1 and last.read(path)["PixelData"].VR == "OW":
        # Words of two pixels are turned round (PS3.5 7.3, 8.1.2).
        data, start = swapped(data[start - start % 2 : start + count + 1], 2), start % 2
    encoded = dtype.newbyteorder(">" if is_big_endian else "<")
    return np.frombuffer(data, encoded, count, start).reshape(shape).astype(dtype)


def gains_by_threads(header: Header) -> bool:
    """Tell whether ``read_frame`` takes most of its time without Python's lock."""
    return header.transfer_syntax_uid not in _NATIVE or header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian


def _decoded(header: Header, path: Path, buffer: npt.NDArray[np.int16], last: LastDataset) -> Stored:
    """Return encapsulated pixels, decoded."""
    with refusing(header):
        streams = last.codestreams(header, path)
    return stored_values(header, streams, _index(header), buffer, last.jpeg)


def _without_unused_bits(header: Header, words: Stored) -> Stored:
    """Drop the bits outside BitsStored and HighBit and extend the sign, in place."""
    allocated, stored, high = header.bits_allocated or 16, header.bits_stored or 16, header.high_bit or 15
    if stored == allocated or (high == stored - 1 and _is_within(words, *stored_range(header))):
        return words
    words <<= allocated - 1 - high
    words >>= allocated - stored  # arithmetic where the dtype is signed
    return words


def _is_within(words: Stored, lowest: int, highest: int) -> bool:
    """Tell whether unused bits hold the sign or nothing, so that there is nothing to drop."""
    return bool((words.dtype.kind == "u" or words.min() >= lowest) and words.max() <= highest)


def _padding_range(header: Header, padding_value: int) -> tuple[int, int]:
    """Return the lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2).

    The VR of PixelPaddingValue should follow PixelRepresentation, but an unsigned 63536 stands for -2000 beside
    signed pixels in images of a large manufacturer: only its bits count.
    """
    size = 1 << (header.bits_allocated or 16)
    is_signed = header.pixel_representation == 1

    def as_stored(value: int) -> int:
        value %= size
        return value - size if is_signed and value >= size // 2 else value

    one = as_stored(padding_value)
    limit = header.pixel_padding_range_limit
    other = one if limit is None else as_stored(limit)
    return min(one, other), max(one, other)


def _padding(values: Stored, low: int, high: int) -> npt.NDArray[np.bool_] | None:
    found = values == low if low == high else (values >= low) & (values <= high)
    return found if found.any() else None
