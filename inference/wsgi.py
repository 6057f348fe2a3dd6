"""What the question side takes from a request: its JSON body, and whether its client is still there."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

from flask import Request
from werkzeug.exceptions import BadRequest

from inference.predict_request import InvalidRequest


def json_body(request: Request, most_body_mb: int) -> object:
    """Return the body.

    Raises
    ------
    InvalidRequest
        415 where it is not called JSON or is compressed, 400 where it is none.
    RequestEntityTooLarge
        It is larger than ``most_body_mb``; not more than that was read.
    """
    request.max_content_length = most_body_mb << 20
    if not request.is_json:
        raise InvalidRequest(415, ["Content-Type must be application/json"])
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise InvalidRequest(415, ["Content-Encoding: send the body as it is, not compressed"])
    try:
        body: object = request.get_json()
    except (BadRequest, RecursionError):  # thousands of brackets deep
        raise InvalidRequest(400, ["The body is not JSON"]) from None
    return body


def client_gone(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """Return a function that tells whether the client has closed its connection, where the server shows it."""
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if not isinstance(connection, socket.socket):
        return lambda: False

    def gone() -> bool:
        readable, _, _ = select.select([connection], [], [], 0)
        try:
            return bool(readable) and connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except OSError:
            return True

    return gone
