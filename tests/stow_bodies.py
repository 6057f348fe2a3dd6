"""Bodies of STOW-RS requests for tests."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydicom.dataset import Dataset

BOUNDARY = "Xq7-boundary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def part10(dataset: Dataset) -> bytes:
    """Return ``dataset`` as a Part 10 file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def multipart(
    parts: Iterable[bytes],
    *,
    boundary: str = BOUNDARY,
    headers: Mapping[str, str] | None = None,
    preamble: bytes = b"",
    epilogue: bytes = b"",
) -> bytes:
    """Return a multipart body; ``headers`` go into every part."""
    lines = {"Content-Type": "application/dicom"} if headers is None else headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
    delimiter = b"--" + boundary.encode()
    body = b"".join(delimiter + b"\r\n" + head + b"\r\n" + part + b"\r\n" for part in parts)
    return preamble + body + delimiter + b"--" + epilogue


def chunked(body: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Yield ``body`` in HTTP chunks (RFC 9112 Section 7.1) of these sizes, over and over."""
    at = turn = 0
    while at < len(body):
        piece = body[at : at + sizes[turn % len(sizes)]]
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        at += len(piece)
        turn += 1
    yield b"0\r\n\r\n"
