"""What the functional groups of each frame say, read from the bytes of the file.

An object has thousands of frames that repeat a few hundred groups: each different one is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from domain.errors import VerificationFailed

_GROUPS = Tag(0x52009230)
_DERIVATION, _CONTENT, _POSITION, _SEGMENT = 0x00089124, 0x00209111, 0x00209113, 0x0062000A
_SOURCES, _INSTANCE, _FRAME, _PRESERVED = 0x00082112, 0x00081155, 0x00081160, 0x0028135A
_IMAGE_POSITION, _TIME, _NUMBER = 0x00200032, 0x00209128, 0x0062000B
_PLACING = frozenset({0x00209113, 0x00209116, 0x00289110})
_ITEM = b"\xfe\xff\x00\xe0"
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})

Found = TypeVar("Found")
Image = tuple[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """What one frame says of itself."""

    images: tuple[Image, ...] = field(repr=False)
    """The source images that it names, each an instance and its frame where there is one (PS3.3 10.8)."""
    is_resampled: bool
    """Whether it says that its pixels lie elsewhere than those of the images."""
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
        images, is_resampled = decode(elements.get(_DERIVATION), _sources) or ((), False)
        yield FrameFacts(
            images=images,
            is_resampled=is_resampled,
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

    def __call__(self, element: bytes | None, meaning: Callable[[bytes], Found]) -> Found | None:
        if element is None:
            return None
        if element not in self._known:
            self._known[element] = meaning(element)
        return cast("Found", self._known[element])


def _sources(element: bytes) -> tuple[tuple[Image, ...], bool]:
    sources = [item for derived in _children(element) for item in _children(derived[_SOURCES])]
    named = ((_text(item[_INSTANCE]), _text(item.get(_FRAME, b""))) for item in sources)
    is_resampled = any(_text(item.get(_PRESERVED, b"")) != "YES" for item in sources)
    return tuple((uid, int(frame) if frame else None) for uid, frame in named), is_resampled


def _position(element: bytes) -> tuple[float, ...]:
    (item,) = _children(element)
    return tuple(float(value) for value in _text(item[_IMAGE_POSITION]).split("\\"))


def _time(element: bytes) -> int | None:
    (item,) = _children(element)
    return int.from_bytes(item[_TIME][8:12], "little") if _TIME in item else None


def _segment(element: bytes) -> int:
    (item,) = _children(element)
    return int.from_bytes(item[_NUMBER][8:10], "little")


def _children(sequence: bytes) -> Iterator[dict[int, bytes]]:
    """Yield the elements, by tag, of each item of a sequence."""
    return (dict(_elements(item)) for item in _items(sequence[12:]))


def _text(element: bytes) -> str:
    return element[8:].decode("ascii").strip(" \0")


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
        end = start + 8 + int.from_bytes(value[start + 4 : start + 8], "little")
        if value[start : start + 4] != _ITEM or end > len(value):
            raise VerificationFailed("An item of functional groups is cut short, or has no defined length.")
        yield value[start + 8 : end]
        start = end


def _elements(item: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and bytes, from the tag on, of each element (PS3.5 Section 7.1.2)."""
    start = 0
    while start < len(item):
        long = item[start + 4 : start + 6] in _LONG
        head, size = (12, item[start + 8 : start + 12]) if long else (8, item[start + 6 : start + 8])
        end = start + head + int.from_bytes(size, "little")
        if start + head > len(item) or end > len(item):
            raise VerificationFailed("An element of functional groups is cut short, or has no defined length.")
        group, element = int.from_bytes(item[start : start + 2], "little"), item[start + 2 : start + 4]
        yield group << 16 | int.from_bytes(element, "little"), item[start:end]
        start = end
