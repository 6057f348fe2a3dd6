"""What the functional groups of each frame say, read from the bytes of the file.

An object has thousands of frames that repeat a few hundred groups: each different one is decoded once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import TypeVar, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from domain.errors import VerificationFailed

_GROUPS = Tag(0x52009230)
_DERIVATION, _CONTENT, _POSITION, _SEGMENT = 0x00089124, 0x00209111, 0x00209113, 0x0062000A
_PLACING = frozenset({0x00209113, 0x00209116, 0x00289110})
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})

Found = TypeVar("Found")
Image = tuple[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """What one frame says of itself."""

    images: tuple[Image, ...] = field(repr=False)
    """The source images that it names, each an instance and its frame where there is one (PS3.3 10.8)."""
    position: tuple[float, ...] | None = field(repr=False)
    time: int | None
    """Temporal Position Index; only of a frame without a place, as it differs from frame to frame."""
    segment: int | None
    is_placed: bool
    """Whether it has a place in the patient."""


def frame_facts(ds: Dataset) -> Iterator[FrameFacts]:
    """Yield what the frames of a multi-frame object say, in order.

    Raises
    ------
    VerificationFailed
        They are not written as this gateway writes them, with defined lengths.
    """
    decode = _Decoder()
    for item in _items(_value(ds)):
        elements = dict(_elements(item))
        yield FrameFacts(
            images=decode(elements.get(_DERIVATION), _images) or (),
            position=decode(elements.get(_POSITION), _position),
            time=None if _POSITION in elements else decode(elements.get(_CONTENT), _time),
            segment=decode(elements.get(_SEGMENT), _segment),
            is_placed=not _PLACING.isdisjoint(elements),
        )


def image_named(reference: Dataset) -> Image:
    """Return the instance, and the frame where there is one, that a reference names (PS3.3 10.8)."""
    frame = reference.get("ReferencedFrameNumber")
    return str(reference.ReferencedSOPInstanceUID), None if frame is None else int(frame)


class _Decoder:
    """Decodes each different element once."""

    def __init__(self) -> None:
        self._known: dict[bytes, object] = {}

    def __call__(self, element: bytes | None, meaning: Callable[[Dataset], Found]) -> Found | None:
        if element is None:
            return None
        if element not in self._known:
            self._known[element] = meaning(read_dataset(BytesIO(element), False, True))
        return cast("Found", self._known[element])


def _images(ds: Dataset) -> tuple[Image, ...]:
    return tuple(image_named(item) for derived in ds.DerivationImageSequence for item in derived.SourceImageSequence)


def _position(ds: Dataset) -> tuple[float, ...]:
    return tuple(float(value) for value in ds.PlanePositionSequence[0].ImagePositionPatient)


def _time(ds: Dataset) -> int | None:
    return cast("int | None", ds.FrameContentSequence[0].get("TemporalPositionIndex"))


def _segment(ds: Dataset) -> int:
    return int(ds.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _value(ds: Dataset) -> bytes:
    item = cast("DataElement | RawDataElement", ds.get_item(_GROUPS, keep_deferred=True))
    if not isinstance(item, RawDataElement) or item.length == _UNDEFINED:
        raise VerificationFailed("The functional groups of an object have no defined length.")
    if item.value is not None:
        return item.value
    with open(str(ds.filename), "rb") as file:
        file.seek(item.value_tell)
        return file.read(item.length)


def _items(value: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(value):
        group, element, length = struct.unpack_from("<HHL", value, start)
        if (group, element) != (0xFFFE, 0xE000) or length == _UNDEFINED:
            raise VerificationFailed("An item of functional groups has no defined length.")
        yield value[start + 8 : start + 8 + length]
        start += 8 + length


def _elements(item: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and bytes, from the tag on, of each element (PS3.5 Section 7.1.2)."""
    start = 0
    while start < len(item):
        group, element = struct.unpack_from("<HH", item, start)
        if item[start + 4 : start + 6] in _LONG:
            end = start + 12 + int(struct.unpack_from("<L", item, start + 8)[0])
        else:
            end = start + 8 + int(struct.unpack_from("<H", item, start + 6)[0])
        yield group << 16 | element, item[start:end]
        start = end
