"""A multipart/related body (RFC 2046, RFC 2387; PS3.18 Section 8.6.1.2), read as a stream with bounded memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from werkzeug.exceptions import BadRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_BOUNDARY = re.compile(
    r"[!-~ ]{0,199}[!-~]"
)  # RFC 2046 allows 70 characters of a smaller set; longer ones are in use


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipartLimits:
    """What a body may ask of the reader beside the bytes of its parts."""

    preamble_bytes: int = 64 << 10
    headers_per_part: int = 16
    header_bytes: int = 4 << 10
    """Of one header line."""


class PartReceiver(Protocol):
    """Takes the parts of a body as they arrive, one after another."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """Start a part; header names are in lower case."""
        ...

    def write(self, data: memoryview) -> None:
        """Append to the part; ``data`` is valid during the call only."""
        ...


def media_type_of(header: str) -> tuple[str, dict[str, str]]:
    """Return media type and parameters of a Content-Type value; names in lower case.

    Values may be quoted or not, ``type=application/dicom`` included, which is no token (RFC 9110 Section 5.6.2) and
    yet common.
    """
    media_type, parameters = parse_options_header(header)
    decoded = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in parameters.items()}
    return media_type.decode("latin-1").strip().lower(), decoded


def boundary_of(parameters: Mapping[str, str]) -> bytes:
    """Return the boundary among the parameters of a multipart Content-Type.

    Raises
    ------
    BadRequest
        It is missing, or is not one.
    """
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(
            "The Content-Type needs a boundary parameter of 1 to 200 printable ASCII characters "
            "that is the delimiter between the parts."
        )
    return boundary.encode("ascii")


class MultipartReader:
    """Splits what is fed to it into parts.

    python-multipart expects the body to begin with the first delimiter; a preamble (RFC 2046 Section 5.1.1) is
    therefore skipped here. What follows the closing delimiter is ignored.
    """

    def __init__(self, boundary: bytes, receiver: PartReceiver, limits: MultipartLimits) -> None:
        self._delimiter = b"--" + boundary
        self._opening = re.compile(rb"\r\n" + re.escape(self._delimiter) + rb"(?:(--)|[ \t]*\r\n)")
        # The first delimiter may stand at the very beginning of the body: then there is no CRLF before it.
        self._preamble: bytearray | None = bytearray(b"\r\n")
        self._receiver = receiver
        self._limits = limits
        self._ended = False
        self._headers: dict[str, str] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._parser = MultipartParser(
            boundary,
            self._callbacks(),
            max_header_count=limits.headers_per_part,
            max_header_size=limits.header_bytes,
        )

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises
        ------
        BadRequest
            This is no multipart body with that boundary, or it exceeds the limits.
        """
        if self._preamble is not None:
            data = self._skip_preamble(self._preamble, data)
        if not data or self._ended:
            return
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise BadRequest(
                "The multipart body cannot be parsed: each part needs the delimiter line, its header lines "
                "(few and short, or none), an empty line and its content, with CRLF line ends."
            ) from error

    def close(self) -> None:
        """Say that the body has ended.

        Raises
        ------
        BadRequest
            The closing delimiter has not come.
        """
        if self._preamble is not None:
            raise BadRequest("The body holds no delimiter line with the boundary that the Content-Type names.")
        if not self._ended:
            raise BadRequest("The body ends before its closing delimiter: it was cut off. Nothing was stored.")

    def _skip_preamble(self, preamble: bytearray, data: bytes) -> bytes:
        """Return what the parser is to read: nothing before the first delimiter has come whole."""
        preamble += data
        found = self._opening.search(preamble)
        if found is None:
            if len(preamble) > self._limits.preamble_bytes:
                raise BadRequest("The body does not begin with the boundary that the Content-Type names.")
            return b""
        self._preamble = None
        return self._delimiter + (found[1] or b"\r\n") + preamble[found.end() :]

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": lambda: self._receiver.begin(dict(self._headers)),
            "on_part_data": lambda data, start, end: self._receiver.write(memoryview(data)[start:end]),
            "on_end": self._end,
        }

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self._ended = True
