"""What the functional groups of each frame say.

An object has thousands of frames that repeat a few hundred groups: each different one is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

from pydicom.dataset import Dataset

from dicom_out.verify_items import children_of, elements_of, items_of, sequence_in, text_of, value_of

_GROUPS = 0x52009230
_DERIVATION, _CONTENT, _POSITION, _SEGMENT = 0x00089124, 0x00209111, 0x00209113, 0x0062000A
_SOURCES, _INSTANCE, _FRAME, _PRESERVED = 0x00082112, 0x00081155, 0x00081160, 0x0028135A
_IMAGE_POSITION, _TIME, _NUMBER = 0x00200032, 0x00209128, 0x0062000B
_PLACING = frozenset({0x00209113, 0x00209116, 0x00289110})

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
    for item in items_of(sequence_in(ds, _GROUPS)):
        elements = dict(elements_of(item))
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
    sources = [
        item for derived in children_of(value_of(element)) for item in children_of(value_of(derived[_SOURCES]))
    ]
    named = ((text_of(item[_INSTANCE]), text_of(item.get(_FRAME, b""))) for item in sources)
    is_resampled = any(text_of(item.get(_PRESERVED, b"")) != "YES" for item in sources)
    return tuple((uid, int(frame) if frame else None) for uid, frame in named), is_resampled


def _position(element: bytes) -> tuple[float, ...]:
    (item,) = children_of(value_of(element))
    return tuple(float(value) for value in text_of(item[_IMAGE_POSITION]).split("\\"))


def _time(element: bytes) -> int | None:
    (item,) = children_of(value_of(element))
    return int.from_bytes(item[_TIME][8:12], "little") if _TIME in item else None


def _segment(element: bytes) -> int:
    (item,) = children_of(value_of(element))
    return int.from_bytes(item[_NUMBER][8:10], "little")
