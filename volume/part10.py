"""A Part 10 file (PS3.10 7.1) as bytes: bounded reading, file meta information, how its dataset is encoded."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import MalformedInstance

CHUNK = 1 << 17
"""Bytes held at a time; nothing larger is read whole."""

# PS3.5 7.1.2: these have two reserved bytes and a 32-bit length.
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
SHORT_VRS = frozenset(
    (
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
        b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
    )
)  # fmt: skip
_IMPLICIT = "1.2.840.10008.1.2"
_STANDARD = "1.2.840.10008."
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# Deflated Explicit VR LE, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate: the dataset itself is deflated.
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_LARGEST_INFLATED = 1 << 30
"""A few megabytes can inflate to gigabytes: on the disk here, and in the memory of whoever decodes the pixels."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How attributes are written."""

    explicit: bool
    big_endian: bool

    @property
    def endian(self) -> str:
        """Prefix for ``struct``."""
        return ">" if self.big_endian else "<"


IMPLICIT_LE = Encoding(False, False)
EXPLICIT_LE = Encoding(True, False)


class Window:
    """Bytes of an open file around the place that is being read.

    ``data`` holds what is in memory and ``start`` is its offset in the file; ``ensure`` moves it.
    """

    def __init__(self, fd: int, chunk: int = CHUNK) -> None:
        self._fd = fd
        self._chunk = chunk
        self.size = os.fstat(fd).st_size
        self.start = 0
        self.data = os.pread(fd, chunk, 0)

    def ensure(self, position: int, length: int) -> int:
        """Return the index in ``data`` of ``position``, with ``length`` bytes (at most ``CHUNK``) after it.

        At the end of the file fewer are there.
        """
        index = position - self.start
        if index < 0 or index + length > len(self.data):
            self.data = os.pread(self._fd, max(self._chunk, length), position)
            self.start = position
            return 0
        return index

    def read(self, position: int, length: int) -> bytes:
        """Return ``length`` bytes (at most ``CHUNK``), fewer at the end of the file."""
        index = self.ensure(position, length)
        return self.data[index : index + length]

    def chunks(self, position: int, length: int) -> Iterator[memoryview]:
        """Yield ``length`` bytes in pieces; raises ``MalformedInstance`` when the file ends before."""
        end = position + length
        while position < end:
            wanted = min(CHUNK, end - position)
            index = self.ensure(position, wanted)
            piece = memoryview(self.data)[index : index + wanted]
            if not piece:
                raise MalformedInstance("The file is shorter than it says")
            position += len(piece)
            yield piece


@dataclass(frozen=True, slots=True)
class DatasetBytes:
    """Where a dataset lies and how it is encoded."""

    window: Window
    start: int
    encoding: Encoding
    transfer_syntax_uid: str


@contextmanager
def opened(path: Path, chunk: int = CHUNK) -> Iterator[DatasetBytes]:
    """Open a Part 10 file at its dataset; a deflated one is inflated into an unnamed file beside it.

    ``chunk`` is how many bytes are read at a time.

    Raises
    ------
    MalformedInstance
        No preamble, no file meta information, or no Transfer Syntax UID in it.
    OSError
        The file cannot be read, or there is no room to inflate it.
    """
    with path.open("rb", buffering=0) as file:
        window = Window(file.fileno(), chunk)
        start, syntax = _file_meta(window)
        if syntax not in _DEFLATED:
            yield DatasetBytes(window, start, _encoding(window, start, syntax), syntax)
            return
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as inflated:
            _inflate(window, start, inflated.fileno())
            yield DatasetBytes(Window(inflated.fileno(), chunk), 0, EXPLICIT_LE, syntax)


def _file_meta(window: Window) -> tuple[int, str]:
    """Return where the dataset begins and its Transfer Syntax UID."""
    if window.size == 0:
        raise MalformedInstance("The file is empty")
    if window.read(128, 4) != b"DICM":
        raise MalformedInstance("Not a DICOM Part 10 file: no DICM prefix after the preamble")
    position, syntax = 132, ""
    while window.read(position, 2) == b"\x02\x00":
        element, length, head = _meta_element(window.read(position, 12))
        if element == 0x0010 and length <= 128:
            syntax = window.read(position + head, length).decode("latin-1").strip(" \0")
        position += head + length
    if position > window.size:
        raise MalformedInstance("The file ends inside its file meta information")
    if not syntax:
        raise MalformedInstance("TransferSyntaxUID is absent or empty", attribute="TransferSyntaxUID")
    return position, syntax


def _meta_element(head: bytes) -> tuple[int, int, int]:
    """Return element number, value length and size of the element's head (Explicit VR LE, PS3.10 7.1)."""
    vr = head[4:6]
    if vr in LONG_VRS and len(head) == 12:
        return struct.unpack_from("<H", head, 2)[0], struct.unpack_from("<I", head, 8)[0], 12
    if vr in SHORT_VRS and len(head) >= 8:
        return struct.unpack_from("<H", head, 2)[0], struct.unpack_from("<H", head, 6)[0], 8
    raise MalformedInstance("The file meta information cannot be parsed")


def _encoding(window: Window, start: int, syntax: str) -> Encoding:
    if syntax == _IMPLICIT:
        return IMPLICIT_LE
    if syntax == _BIG_ENDIAN:
        return Encoding(True, True)
    if syntax.startswith(_STANDARD):
        return EXPLICIT_LE
    # Private ones are encapsulated Explicit VR Little Endian (PS3.5 A.4); GE's 1.2.840.113619.5.2 is implicit.
    return EXPLICIT_LE if window.read(start + 4, 2) in LONG_VRS | SHORT_VRS else IMPLICIT_LE


def _inflate(window: Window, start: int, target: int) -> None:
    """Write the inflated dataset (PS3.5 A.5) to ``target``."""
    written = 0
    try:
        for piece in _inflated(window.chunks(start, window.size - start)):
            written += len(piece)
            if written > _LARGEST_INFLATED:
                raise MalformedInstance("The deflated dataset is larger than 1 GiB")
            _write_all(target, piece)
    except zlib.error as error:
        raise MalformedInstance("The deflated dataset cannot be inflated") from error


def _inflated(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield pieces of at most ``CHUNK`` bytes, however well the input is compressed."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    for chunk in chunks:
        pending: bytes | memoryview = chunk
        while not inflater.eof:
            piece = inflater.decompress(pending, CHUNK)
            pending = inflater.unconsumed_tail
            if not piece and not pending:
                break
            yield piece
    if not inflater.eof:
        raise MalformedInstance("The deflated dataset is cut off")


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
