"""The canonical digest of a dataset: equal for every encoding of the same attributes and values.

What forwards an instance re-encodes it: DCMTK and Orthanc change implicit to explicit VR, undefined to defined
lengths, drop group lengths and pad anew. None of that changes the instance, so none of it changes the digest.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from pydicom.datadict import DicomDictionary, keyword_for_tag

from domain.errors import MalformedInstance
from domain.instance import Header, Mosaic
from volume.canonical import BRIEF, IGNORED, TEXT_VRS, WORD_BYTES, canonical, digest_of, swapped
from volume.csa import read_mosaic
from volume.functional_groups import PER_FRAME, SHARED, SHARED_KEY
from volume.functional_groups import is_wanted as is_wanted_of_frame
from volume.header import (
    CHARACTER_SET,
    CONTRIBUTING_EQUIPMENT,
    EQUIPMENT_WANTED,
    ISOTOPE_WANTED,
    PIXEL_DATA,
    RADIOPHARMACEUTICAL,
    WANTED,
    header_from_values,
    is_mosaic,
    is_uid,
    is_wanted,
    values_of_bytes,
    values_of_group,
)
from volume.part10 import (
    CHUNK,
    EXPLICIT_LE,
    IMPLICIT_LE,
    LONG_VRS,
    SHORT_VRS,
    DatasetBytes,
    Encoding,
    Window,
    opened,
)
from volume.plain_run import take_run
from volume.private import Encoded

_UNDEFINED: Final = 0xFFFFFFFF
_PIXEL_DATA: Final = 0x7FE00010
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_ITEM_BYTES = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_DEEPEST = 64
_HEADS = (
    (struct.Struct("<HH2sH").unpack_from, struct.Struct("<I").unpack_from),
    (struct.Struct(">HH2sH").unpack_from, struct.Struct(">I").unpack_from),
)
"""Little endian and big endian: group, element, VR and short length; long length."""
_HEADER_CHUNK = 1 << 14
"""Most headers fit into one."""
_LARGEST_WITH_TILES = 4 << 20
"""Bytes before the pixels of a mosaic; scanners write some hundred thousand."""
_WHOLE = 1 << 16
"""Values up to this many bytes are handled in memory, longer ones in pieces."""
_KNOWN_VRS: dict[int, str] = {tag: entry[0] for tag, entry in DicomDictionary.items()}


def inspect(path: Path) -> tuple[Header, str]:
    """Read a Part 10 file once; return its header and its canonical digest (SHA-256, hex).

    Memory stays bounded by a few MiB whatever the size of the file.

    Raises
    ------
    MalformedInstance
        Not Part 10, cannot be parsed, cut off, less pixel data than Rows, Columns and the others say, or a required
        UID is missing.
    OSError
        The file cannot be read.
    """
    return _walked(path, digests=True)


def read_header(path: Path) -> Header:
    """Return the header that ``inspect`` returns, or raise what it raises, without reading the pixels."""
    return _walked(path, digests=False)[0]


def _walked(path: Path, *, digests: bool) -> tuple[Header, str]:
    with opened(path, CHUNK if digests else _HEADER_CHUNK) as source:
        if not is_uid(source.transfer_syntax_uid):
            raise MalformedInstance("TransferSyntaxUID is not a UID", attribute="TransferSyntaxUID")
        reader = _Reader(source.window, digests=digests)
        try:
            digest = reader.dataset(source.start, source.window.size, source.encoding, depth=0).digest.hex()
            header = _header(reader.found, source)
            _require_pixels(header, reader.found)
        except MalformedInstance as error:
            _identify(error, reader.found)
            raise
    if is_mosaic(header):
        header = replace(header, mosaic=_mosaic(header, path))
    return header, digest


def _mosaic(header: Header, path: Path) -> Mosaic:
    """Return what the private attributes say, which are read into memory as a whole."""
    if header.pixel_data_offset is None or header.pixel_data_offset > _LARGEST_WITH_TILES:
        return Mosaic(fault="the file is deflated, has no pixels, or has more than 4 MiB before them")
    return read_mosaic(path)


def _identify(error: MalformedInstance, found: _Found) -> None:
    """Say which instance it is, as far as it was read before the fault."""
    for tag, name in (
        (0x00080016, "sop_class_uid"),
        (0x00080018, "sop_instance_uid"),
        (0x0020000D, "study_instance_uid"),
    ):
        uid = found.raw.get(tag, (b"", None, True))[0].decode("latin-1").strip(" \0")
        if is_uid(uid):
            setattr(error, name, uid)


@dataclass(slots=True)
class _Found:
    """What the walk met on its way, for the header."""

    raw: dict[int, Encoded] = field(default_factory=dict)
    equipment: list[str] = field(default_factory=list)
    pixel_bytes: int | None = None
    """Length of native pixel data."""
    pixel_data_offset: int | None = None
    """Where the value of PixelData begins."""
    groups: dict[int, dict[int, Encoded]] = field(default_factory=dict)
    """Functional groups, by frame from 0; the shared ones under ``SHARED_KEY``."""


class _Element(NamedTuple):
    """Head of one attribute; a tuple, since one is made for each."""

    tag: int
    vr: bytes
    """Empty where the encoding does not say."""
    length: int
    start: int
    """Where the value begins."""


@dataclass(frozen=True, slots=True)
class _Walked:
    end: int
    digest: bytes


def _header(found: _Found, source: DatasetBytes) -> Header:
    values = values_of_bytes(found.raw)
    values[CONTRIBUTING_EQUIPMENT] = tuple(found.equipment)
    charset = found.raw.get(CHARACTER_SET)
    declared = {} if charset is None else {CHARACTER_SET: charset}
    groups = {frame: values_of_group(raw, declared) for frame, raw in found.groups.items()}
    offset = found.pixel_data_offset if source.start else None  # an inflated dataset begins a file of its own
    return header_from_values(values, source.transfer_syntax_uid, groups, pixel_data_offset=offset)


def _require_pixels(header: Header, found: _Found) -> None:
    """Raise where native pixel data is shorter than it must be (PS3.5 8.1.1, 8.2), if anything can be said."""
    if found.pixel_bytes is None or not (header.rows and header.columns and header.bits_allocated):
        return
    # 4:2:2 shares the colours of two pixels, 4:2:0 those of four (PS3.3 C.7.6.3.1.2).
    shared = {"YBR_FULL_422": 2.0, "YBR_PARTIAL_422": 2.0, "YBR_PARTIAL_420": 1.5}
    samples = shared.get(header.photometric_interpretation or "", float(header.samples_per_pixel or 1))
    bits = header.rows * header.columns * samples * (header.number_of_frames or 1) * header.bits_allocated
    if found.pixel_bytes * 8 < bits:
        raise MalformedInstance(
            "PixelData is shorter than Rows, Columns, SamplesPerPixel, BitsAllocated and NumberOfFrames say",
            attribute="PixelData",
        )


def _name(tag: int) -> str:
    return keyword_for_tag(tag) or ("A private attribute" if tag >> 16 & 1 else "An attribute")


class _Reader:
    """Walks a dataset and computes the digest of what it says, where that is wanted."""

    def __init__(self, window: Window, *, digests: bool) -> None:
        self._window = window
        self._digests = digests
        self.found = _Found()
        self._frame: int | None = None

    def dataset(
        self, position: int, limit: int, encoding: Encoding, *, depth: int, delimited: bool = False, parent: int = 0
    ) -> _Walked:
        """Digest the attributes from ``position`` to ``limit``, or to the item delimiter where ``delimited``."""
        if depth > _DEEPEST:
            raise MalformedInstance(f"Sequences are nested deeper than {_DEEPEST}")
        parts: list[tuple[int, bytes]] = []
        plain = depth == 0 and encoding == EXPLICIT_LE
        while position < limit:
            if plain:
                position = take_run(self._window, position, limit, parts, self.found.raw)
                if position == limit:
                    break
            element = self._element(position, limit, encoding)
            if element.tag == _ITEM_END and delimited:
                return _Walked(element.start, digest_of(parts) if self._digests else b"")
            position, token = self._token(element, limit, encoding, depth, parent)
            if token is not None:
                parts.append((element.tag, token))
        if delimited:
            raise MalformedInstance("The file ends inside a sequence")
        return _Walked(position, digest_of(parts) if self._digests else b"")

    def _element(self, position: int, limit: int, encoding: Encoding) -> _Element:
        if limit - position < 8:
            raise MalformedInstance("The file ends in the middle of an attribute")
        index = self._window.ensure(position, 12)
        data = self._window.data
        head, long_length = _HEADS[encoding.big_endian]
        group, number, vr, length = head(data, index)
        tag = group << 16 | number
        if group == 0xFFFE or not encoding.explicit or not (vr in SHORT_VRS or (vr.isalpha() and vr.isupper())):
            # An attribute without a VR amid explicit ones was written as implicit: seen from old converters.
            return _Element(tag, b"", long_length(data, index + 4)[0], position + 8)
        if vr not in LONG_VRS:
            return _Element(tag, vr, length, position + 8)
        if limit - position < 12:
            raise MalformedInstance("The file ends in the middle of an attribute")
        return _Element(tag, vr, long_length(data, index + 8)[0], position + 12)

    def _token(
        self, element: _Element, limit: int, encoding: Encoding, depth: int, parent: int
    ) -> tuple[int, bytes | None]:
        """Return where the attribute ends and its share of the digest; ``None`` for what says nothing."""
        tag, length = element.tag, element.length
        if tag >> 16 == 0xFFFE:
            raise MalformedInstance("An item or a delimiter stands where an attribute should")
        if length == _UNDEFINED:
            end, token = self._undefined(element, limit, encoding, depth)
        else:
            end = element.start + length
            if end > limit:
                raise MalformedInstance(f"{_name(tag)} runs past the end of the file or of its sequence")
            token = self._defined(element, encoding, depth, parent)
        if depth == 0 and tag in PIXEL_DATA:
            self._note(element, end)
        return end, None if tag & 0xFFFF == 0 or tag in IGNORED else token

    def _note(self, element: _Element, end: int) -> None:
        if element.tag == _PIXEL_DATA:
            self.found.pixel_data_offset = element.start
        self.found.raw[element.tag] = (b"present" if end > element.start else b"", None, True)
        if element.length != _UNDEFINED:
            self.found.pixel_bytes = element.length

    def _undefined(self, element: _Element, limit: int, encoding: Encoding, depth: int) -> tuple[int, bytes]:
        if element.tag in PIXEL_DATA or (element.vr and element.vr not in (b"SQ", b"UN")):
            return self._fragments(element, limit, encoding)
        # The value of UN is always Implicit VR Little Endian (PS3.5 6.2.2), though not everybody knows.
        inner = IMPLICIT_LE if element.vr == b"UN" else encoding
        return self._sequence(element, limit, inner, depth, delimited=True)

    def _defined(self, element: _Element, encoding: Encoding, depth: int, parent: int) -> bytes:
        known = _KNOWN_VRS.get(element.tag)
        if element.length == 0:
            self._keep(element, b"", encoding, depth, parent)
            return b"V"
        if element.vr == b"SQ" or (known == "SQ" and element.vr in (b"", b"UN")):
            inner = IMPLICIT_LE if element.vr == b"UN" else encoding
            return self._sequence(element, element.start + element.length, inner, depth)[1]
        # Where VRs are not written, a private sequence shows only by its first item.
        if (known is None or element.vr == b"UN") and self._window.read(element.start, 4) in _ITEM_BYTES:
            inner = encoding if element.vr == b"" else IMPLICIT_LE
            try:
                return self._sequence(element, element.start + element.length, inner, depth)[1]
            except MalformedInstance:
                return self._long_value(element, encoding)
        if element.length > _WHOLE:
            return self._long_value(element, encoding)
        value = self._window.read(element.start, element.length)
        word = WORD_BYTES.get(element.vr, 1) if encoding.big_endian else 1
        value = swapped(value, word) if word > 1 else value
        self._keep(element, value, encoding, depth, parent)
        if not self._digests:
            return b""
        value = canonical(value, known)
        return b"V" + value if len(value) <= BRIEF else b"L" + hashlib.sha256(value).digest()

    def _keep(self, element: _Element, value: bytes, encoding: Encoding, depth: int, parent: int) -> None:
        """Note a value that the header needs; it is little endian by now."""
        if depth == 0 and not is_wanted(element.tag):
            return
        encoded: Encoded = (value, element.vr.decode("ascii") or None, True)
        if self._frame is not None:
            if is_wanted_of_frame(parent, element.tag):
                self.found.groups[self._frame][element.tag] = encoded
        elif depth == 0:
            self.found.raw[element.tag] = encoded
        elif depth == 1 and parent == RADIOPHARMACEUTICAL and element.tag in ISOTOPE_WANTED:
            # Two tracers that differ give no dose rather than the first one's.
            if self.found.raw.setdefault(element.tag, encoded) != encoded:
                self.found.raw[element.tag] = (b"", None, True)
        elif depth == 1 and parent == CONTRIBUTING_EQUIPMENT and element.tag in EQUIPMENT_WANTED:
            self.found.equipment.append(value.decode("latin-1").strip(" \0"))

    def _long_value(self, element: _Element, encoding: Encoding) -> bytes:
        """Digest a value in pieces: its end is looked at first, for the padding."""
        if not self._digests:
            return b""
        known = _KNOWN_VRS.get(element.tag)
        length = element.length
        if known in TEXT_VRS:
            tail = self._window.read(element.start + length - _WHOLE, _WHOLE) if length > _WHOLE else b""
            length -= len(tail) - len(tail.rstrip(b" \0"))
        word = WORD_BYTES.get(element.vr, 1) if encoding.big_endian else 1
        digest = hashlib.sha256()
        for chunk in self._window.chunks(element.start, length):
            digest.update(swapped(chunk, word) if word > 1 else chunk)
        if length % 2 and known not in TEXT_VRS:
            digest.update(b"\0")
        return b"L" + digest.digest()

    def _sequence(
        self, element: _Element, limit: int, encoding: Encoding, depth: int, *, delimited: bool = False
    ) -> tuple[int, bytes]:
        """Digest the items (PS3.5 7.5); a sequence without items is the same as an empty value."""
        if depth == 0 and element.tag in WANTED:
            self.found.raw[element.tag] = (b"present", None, True)
        digest, items, position = hashlib.sha256(), 0, element.start
        while delimited or position < limit:
            item = self._element(position, limit, encoding)
            if item.tag == _SEQUENCE_END and delimited:
                position = item.start
                break
            if item.tag != _ITEM:
                raise MalformedInstance(f"{_name(element.tag)} holds something that is not an item")
            if depth == 0 and element.tag in (SHARED, PER_FRAME):
                self._frame = items if element.tag == PER_FRAME else SHARED_KEY
                self.found.groups.setdefault(self._frame, {})
            walked = self._item(item, limit, encoding, depth + 1, element)
            if depth == 0:
                self._frame = None
            digest.update(walked.digest)
            position, items = walked.end, items + 1
        return position, b"S" + digest.digest() if items else b"V"

    def _item(self, item: _Element, limit: int, encoding: Encoding, depth: int, sequence: _Element) -> _Walked:
        delimited = item.length == _UNDEFINED
        end = limit if delimited else item.start + item.length
        if end > limit:
            raise MalformedInstance(f"An item of {_name(sequence.tag)} runs past the end of the file or its sequence")
        if sequence.vr == b"UN" or (sequence.vr and _KNOWN_VRS.get(sequence.tag) is None):
            encoding = self._sniffed(item.start, encoding)
        return self.dataset(item.start, end, encoding, depth=depth, delimited=delimited, parent=sequence.tag)

    def _sniffed(self, position: int, encoding: Encoding) -> Encoding:
        """Tell by its first attribute whether an item has VRs: what is inside UN is not always implicit."""
        if encoding.big_endian:
            return encoding
        vr = self._window.read(position + 4, 2)
        return EXPLICIT_LE if len(vr) == 2 and vr.isalpha() and vr.isupper() else IMPLICIT_LE

    def _fragments(self, element: _Element, limit: int, encoding: Encoding) -> tuple[int, bytes]:
        """Digest encapsulated pixel data (PS3.5 A.4) less its first item: the offset table follows from the rest."""
        digest, position, first = hashlib.sha256(), element.start, True
        while True:
            if limit - position < 8:
                raise MalformedInstance(f"{_name(element.tag)} is encapsulated and has no end: the file is cut off")
            item = self._element(position, limit, encoding)
            position = item.start + item.length
            if item.tag == _SEQUENCE_END:
                return item.start, b"F" + digest.digest()
            if item.tag != _ITEM or item.length == _UNDEFINED or position > limit:
                raise MalformedInstance(f"The fragments of {_name(element.tag)} are cut off or damaged")
            if self._digests and not first:
                digest.update(item.length.to_bytes(4, "little"))
                for chunk in self._window.chunks(item.start, item.length):
                    digest.update(chunk)
            first = False
