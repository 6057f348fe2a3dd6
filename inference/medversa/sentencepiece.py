"""Reads a SentencePiece BPE model file and encodes and decodes with it: what ``tokenizer.model`` of Llama needs.

Written out because the rule that matters here, that *every* piece of text between added tokens gets the dummy prefix,
differs between versions of the tokenizer libraries.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from domain.errors import ConfigurationError

_BLANK = "\u2581"
_BPE = 2
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


class SentencePiece:
    """Byte-pair encoding with byte fallback and dummy prefix.

    Parameters
    ----------
    path
        ``tokenizer.model``.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or holds another kind of model.
    """

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            pieces, kind = _parsed(data)
        except (OSError, ValueError, IndexError, struct.error) as error:
            raise ConfigurationError(f"{path}: not a readable SentencePiece model") from error
        if kind != _BPE or not pieces:
            raise ConfigurationError(f"{path}: not a SentencePiece BPE model")
        self._pieces = [piece for piece, _, _ in pieces]
        self._kinds = [kind for _, _, kind in pieces]
        self._ids = {piece: index for index, (piece, _, kind) in enumerate(pieces) if kind == _NORMAL}
        self._scores = [score for _, score, _ in pieces]
        self._bytes = {int(piece[3:5], 16): i for i, (piece, _, kind) in enumerate(pieces) if kind == _BYTE}
        self._unknown = next((i for i, kind in enumerate(self._kinds) if kind == _UNKNOWN), 0)

    def __len__(self) -> int:
        return len(self._pieces)

    def id_of(self, piece: str) -> int | None:
        """Return the id of a normal piece, ``None`` where there is none."""
        return self._ids.get(piece)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, with the dummy prefix; nothing in it is taken for a control token."""
        if not text:
            return []
        return [found for piece in self._merged((_BLANK + text).replace(" ", _BLANK)) for found in self._of(piece)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids without the dummy prefix; control pieces say nothing."""
        spelled = bytearray()
        for index in ids:
            if self._kinds[index] == _BYTE:
                spelled.append(int(self._pieces[index][3:5], 16))
            elif self._kinds[index] != _CONTROL:
                spelled += self._pieces[index].encode()
        text = spelled.decode("utf-8", "replace").replace(_BLANK, " ")
        return text.removeprefix(" ")

    def _of(self, piece: str) -> Iterable[int]:
        if piece in self._ids:
            return (self._ids[piece],)
        return (self._bytes.get(value, self._unknown) for value in piece.encode())

    def _merged(self, text: str) -> list[str]:
        """Merge neighbours, best score first and leftmost among equals, until no pair is a piece."""
        parts: list[str | None] = list(text)
        after = [*range(1, len(parts)), -1]
        before = list(range(-1, len(parts) - 1))
        waiting: list[tuple[float, int, int, str]] = []

        def propose(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                joined = f"{parts[left]}{parts[right]}"
                if joined in self._ids:
                    heapq.heappush(waiting, (-self._scores[self._ids[joined]], left, right, joined))

        for place in range(len(parts) - 1):
            propose(place, place + 1)
        while waiting:
            _, left, right, joined = heapq.heappop(waiting)
            if parts[left] is None or parts[right] is None or f"{parts[left]}{parts[right]}" != joined:
                continue  # one of them has been merged otherwise since
            parts[left], parts[right] = joined, None
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            propose(before[left], left)
            propose(left, after[left])
        return [part for part in parts if part is not None]


def _parsed(data: bytes) -> tuple[list[tuple[str, float, int]], int]:
    """Return pieces as (text, score, kind) and the kind of model; the file is a protocol buffer (ModelProto)."""
    pieces, kind = [], 1
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            found = dict(_fields(value))
            text, score = found.get(1, b""), found.get(2, b"\0\0\0\0")
            if not isinstance(text, bytes) or not isinstance(score, bytes):
                raise ValueError("a piece is not what it should be")
            pieces.append((text.decode(), struct.unpack("<f", score)[0], _number(found.get(3, _NORMAL))))
        elif number == 2 and isinstance(value, bytes):
            kind = _number(dict(_fields(value)).get(3, 1))
    return pieces, kind


def _number(value: bytes | int) -> int:
    if isinstance(value, bytes):
        raise ValueError("a number was expected")  # noqa: TRY004 - of the file, not of the caller
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield field numbers and values of one message: an int for varints, bytes for everything else."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("unknown wire type")
        if place + length > len(data):
            raise ValueError("cut off")
        yield tag >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
