"""Errors as HTTP answers: a problem object (RFC 9457) with one sentence that says what to do about it."""

from __future__ import annotations

import json
import logging

from flask import Flask, Response
from werkzeug.exceptions import (
    Conflict,
    HTTPException,
    InternalServerError,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
)

from domain.errors import GatewayError, InstanceRejected, OutOfSpace, StorageError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
UNEXPECTED = "The gateway met an unexpected fault; its log says more. Nothing was acknowledged."

_STATUS: dict[type[GatewayError], type[HTTPException]] = {
    GatewayError: InternalServerError,
    InstanceRejected: Conflict,
    StorageError: ServiceUnavailable,
    OutOfSpace: ServiceUnavailable,
}


def install(app: Flask, *, retry_after_s: int = 60) -> None:
    """Answer every error that leaves a view of ``app`` with a problem object."""

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        return problem(error)

    @app.errorhandler(GatewayError)
    def _gateway(error: GatewayError) -> Response:
        answer = http_error(error, retry_after_s=retry_after_s)
        log.warning("request failed", extra={"error": type(error).__name__, "status": answer.code})
        return problem(answer)

    @app.errorhandler(Exception)
    def _unexpected(error: Exception) -> Response:
        log.error("request failed", exc_info=error)
        return problem(InternalServerError(UNEXPECTED))


def http_error(error: GatewayError, *, retry_after_s: int) -> HTTPException:
    """Return the HTTP error of the nearest mapped ancestor of ``error``."""
    answer = next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)
    if answer is ServiceUnavailable:
        return ServiceUnavailable(f"{error}. Send the request again later.", retry_after=retry_after_s)
    return answer(str(error))


def problem(error: HTTPException) -> Response:
    """Return ``error`` as a problem object; its own header fields (Allow, Retry-After, …) are kept."""
    headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    body = {"title": error.name, "status": error.code, "detail": _detail(error)}
    return Response(json.dumps(body), status=error.code, headers=headers, content_type=MEDIA_TYPE)


def _detail(error: HTTPException) -> str:
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"This resource takes {', '.join(sorted(error.valid_methods))}."
    if isinstance(error, NotFound) and error.description == NotFound.description:
        return "There is no such resource; DICOM instances are stored by POST to /dicomweb/studies."
    return error.description or error.name
