"""Bytes of a Part 10 file in Explicit VR Little Endian (PS3.5 Section 7, PS3.10 Section 7).

Most elements go through pydicom. Those that a result holds by the thousand (functional groups), and those that must
stay as the source wrote them (identity), are encoded here and put beside them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from domain.engine import derived_uid

IMPLEMENTATION_CLASS_UID = derived_uid("implementation")
IMPLEMENTATION_VERSION_NAME = "VOXGATE"

_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""VRs with a 32-bit length (PS3.5 Table 7.1-1)."""
_TEXT_PAD = frozenset({"OB", "UI", "UN"})
"""VRs padded with a null byte; text is padded with a space (PS3.5 Section 6.2)."""


@cache
def tag_of(keyword: str) -> int:
    """Return the tag of an attribute."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no attribute called {keyword}")
    return tag


@cache
def _head(keyword: str) -> tuple[bytes, bool, bytes]:
    """Return tag and VR as written, whether the length has 32 bits, and the padding byte."""
    tag = tag_of(keyword)
    vr = dictionary_VR(tag)[:2]  # of "OB or OW" (Pixel Data) the first: either is right for one bit (PS3.5 8.2)
    written = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return written, vr in _LONG, b"\0" if vr in _TEXT_PAD else b" "


def element(keyword: str, value: bytes) -> bytes:
    """Return one data element with its value as given, padded to even length."""
    head, is_long, pad = _head(keyword)
    if len(value) % 2:
        value += pad
    length = struct.pack("<HL", 0, len(value)) if is_long else struct.pack("<H", len(value))
    return head + length + value


def text(keyword: str, *values: str) -> bytes:
    """Return one data element with ASCII values."""
    return element(keyword, "\\".join(values).encode("ascii"))


def sequence(keyword: str, items: Iterable[bytes]) -> bytes:
    """Return a sequence of items with defined lengths."""
    return element(keyword, b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items))


def encoded(data_element: DataElement, character_set: Sequence[str]) -> bytes:
    """Return a pydicom element as it is written."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, data_element, convert_encodings(list(character_set)))
    return buffer.getvalue()


def encoded_dataset(dataset: Dataset, character_set: Sequence[str]) -> dict[int, bytes]:
    """Return every element of a dataset as it is written, by tag."""
    return {int(tag): encoded(dataset[tag], character_set) for tag in dataset.keys()}  # noqa: SIM118 - of tags


def pixel_data(
    vr: str, length: int, pieces: Iterable[bytes | memoryview], *, tag: int = 0x7FE00010
) -> Iterator[bytes | memoryview]:
    """Yield an element of ``length`` bytes whose value comes in pieces, padded to even length."""
    yield struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length + length % 2)
    yield from pieces
    if length % 2:
        yield b"\0"


def part10(
    sop_class_uid: str,
    sop_instance_uid: str,
    elements: Mapping[int, bytes],
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> list[bytes]:
    """Return a Part 10 file of encoded elements, in pieces to be written one after the other."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class_uid), UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return [bytes(128), b"DICM", buffer.getvalue(), *(elements[tag] for tag in sorted(elements))]
