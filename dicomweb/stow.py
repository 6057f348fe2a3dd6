"""STOW-RS (PS3.18 Section 10.5): Part 10 instances in a multipart/related body.

Every part goes straight into its own staged file. All of them are committed together when the body has been read
to its end: a request that is cut off, or that finds the disk full half-way, stores nothing, so that the answer
"503, nothing was stored" is true.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import IO

from flask import Blueprint, Response, request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import BadRequest, NotAcceptable, RequestEntityTooLarge, UnsupportedMediaType

from dicomweb import response
from dicomweb.multipart import MultipartLimits, MultipartReader, boundary_of, media_type_of
from domain.instance import Disposition, Outcome, Reception
from domain.ports import InstanceSink, StagedInstance

log = logging.getLogger(__name__)

DICOM = "application/dicom"
WANTED = (
    'Send multipart/related; type="application/dicom"; boundary=… with one Part 10 file in each part '
    "(Content-Type application/dicom, no Content-Encoding)."
)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StowSettings:
    """Limits of one request; its size is not limited."""

    max_parts: int = 20_000
    read_bytes: int = 512 << 10
    """Read from the network at a time; a request under way takes about six times as much memory."""
    drain_s: float = 30.0
    """How long the rest of a refused body is read and thrown away, so that the peer gets to see the answer."""
    multipart: MultipartLimits = MultipartLimits()


def stow_blueprint(sink: InstanceSink, settings: StowSettings | None = None) -> Blueprint:
    """Return ``POST /studies`` and ``POST /studies/{study}``; ``dicomweb.problems`` answers what they raise."""
    limits = settings or StowSettings()
    blueprint = Blueprint("stow", __name__)

    @blueprint.post("/studies", strict_slashes=False)
    def store_instances() -> Response:
        return _store(sink, limits, study_instance_uid=None)

    @blueprint.post("/studies/<study>", strict_slashes=False)
    def store_instances_of_study(study: str) -> Response:
        if len(study) > 64 or not _UID.fullmatch(study):
            raise BadRequest("The URL names no valid Study Instance UID (PS3.5 Section 9.1).")
        return _store(sink, limits, study_instance_uid=study)

    return blueprint


def _store(sink: InstanceSink, settings: StowSettings, *, study_instance_uid: str | None) -> Response:
    _check_accept(request.accept_mimetypes)
    boundary = _boundary()
    parts = _Parts(sink, settings.max_parts)
    try:
        _receive(parts, boundary, settings)
        outcomes = sink.commit(parts.staged, _reception(study_instance_uid)) if parts.staged else []
    finally:
        parts.discard()
    _log(outcomes, parts.foreign)
    return _answer(outcomes, parts.foreign)


def _check_accept(accept: MIMEAccept) -> None:
    """Refuse a peer that takes no ``application/dicom+json``.

    PS3.18 Section 8.7.7 wants 406 where Accept is missing. Many clients send none and are content with the default.
    """
    quality = {media_type_of(value)[0]: weight for value, weight in reversed(list(accept))}
    for covering in (response.MEDIA_TYPE, "application/*", "*/*"):
        if covering in quality:
            if quality[covering] > 0:
                return
            break
    if accept.provided:
        raise NotAcceptable(f"The answer is {response.MEDIA_TYPE}; let Accept include it, or leave Accept out.")


def _boundary() -> bytes:
    """Return the boundary of the request; raise ``UnsupportedMediaType`` unless its type is the one taken."""
    media_type, parameters = media_type_of(request.headers.get("Content-Type", ""))
    # RFC 2387 requires the type parameter. A peer that forgets it may still say in each part what it is.
    root = parameters.get("type", DICOM).strip().lower()
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if media_type != "multipart/related" or root != DICOM or encoding != "identity":
        raise UnsupportedMediaType(WANTED)
    return boundary_of(parameters)


def _receive(parts: _Parts, boundary: bytes, settings: StowSettings) -> None:
    """Stage the parts of the request's body."""
    body = _Body(request.stream, settings.read_bytes)
    reader = MultipartReader(boundary, parts, settings.multipart)
    try:
        while chunk := body.read():
            reader.feed(chunk)
    except Exception:
        body.drain(settings.drain_s)
        raise
    if request.content_length is not None and body.received < request.content_length:
        raise BadRequest("The body is shorter than its Content-Length: it was cut off. Nothing was stored.")
    reader.close()
    if not parts.staged and not parts.foreign:
        raise BadRequest(f"The body holds no part. {WANTED}")


def _reception(study_instance_uid: str | None) -> Reception:
    return Reception(
        transport="stow",
        sender="",
        address=request.remote_addr or "",
        received_at=datetime.now(UTC),
        expected_study_instance_uid=study_instance_uid,
    )


def _answer(outcomes: list[Outcome], foreign: int) -> Response:
    status = response.status_of(outcomes, foreign)
    if not outcomes:
        raise UnsupportedMediaType(f"No part is {DICOM}. {WANTED}")
    answer = Response(
        json.dumps(response.response_module(outcomes, foreign)), status=status, content_type=response.MEDIA_TYPE
    )
    if status < HTTPStatus.BAD_REQUEST:
        answer.headers["Location"] = _location(outcomes)
    return answer


def _location(outcomes: list[Outcome]) -> str:
    """Return the path of the study that was stored, or of all studies where there are several."""
    studies = {o.study_instance_uid for o in outcomes if o.disposition is not Disposition.REFUSED}
    base = request.path.rstrip("/").partition("/studies")[0] + "/studies"
    study = studies.pop() if len(studies) == 1 else None
    return f"{base}/{study}" if study else base


def _log(outcomes: list[Outcome], foreign: int) -> None:
    counts = Counter(outcome.disposition for outcome in outcomes)
    facts = {
        "stored": counts[Disposition.STORED],
        "duplicates": counts[Disposition.DUPLICATE],
        "refused": counts[Disposition.REFUSED] + foreign,
    }
    if not facts["refused"]:
        log.info("stow stored", extra=facts)
        return
    errors = Counter(type(outcome.error).__name__ for outcome in outcomes if outcome.error is not None)
    log.warning("stow refused instances", extra={**facts, "foreign_parts": foreign, "errors": dict(errors)})


class _Parts:
    """Stages each part as it arrives."""

    def __init__(self, sink: InstanceSink, max_parts: int) -> None:
        self.staged: list[StagedInstance] = []
        self.foreign = 0
        """Parts that are no ``application/dicom``; their content is skipped."""
        self._sink = sink
        self._max_parts = max_parts
        self._current: StagedInstance | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        if len(self.staged) + self.foreign >= self._max_parts:
            raise RequestEntityTooLarge(f"A request may hold {self._max_parts} parts; send several requests.")
        if self._current is not None:
            self._current.finish()
        self._current = None
        if not _is_dicom(headers):
            self.foreign += 1
            return
        self._current = self._sink.stage()
        self.staged.append(self._current)

    def write(self, data: memoryview) -> None:
        if self._current is not None:
            self._current.write(data)

    def discard(self) -> None:
        for staged in self.staged:
            staged.discard()


def _is_dicom(headers: Mapping[str, str]) -> bool:
    """Tell whether a part is a Part 10 file as it stands; without a Content-Type the root type holds (RFC 2387)."""
    media_type, _ = media_type_of(headers.get("content-type", DICOM))
    encoding = headers.get("content-transfer-encoding", "binary").lower()
    return media_type == DICOM and encoding in ("binary", "8bit", "7bit")


class _Body:
    """The request's body, whose end may come too early."""

    def __init__(self, stream: IO[bytes], read_bytes: int) -> None:
        self.received = 0
        # What has come, rather than all that was asked for, where the server can tell.
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._read_bytes = read_bytes
        self._broken = False

    def read(self) -> bytes:
        """Return the next bytes; none at the end.

        Raises
        ------
        BadRequest
            The connection broke, stood still for too long, came too slowly, or the chunked transfer coding is wrong.
        """
        try:
            data = self._read(self._read_bytes)
        except Exception as error:  # every WSGI server has its own classes for it
            self._broken = True
            raise BadRequest(
                "The body was cut off, came too slowly, or its coding is wrong. Nothing was stored."
            ) from error
        self.received += len(data)
        return data

    def drain(self, seconds: float) -> None:
        """Read and throw away what the peer still sends: one that is still sending would not read the answer."""
        deadline = time.monotonic() + seconds
        try:
            while not self._broken and time.monotonic() < deadline and self.read():
                pass
        except BadRequest:
            log.debug("the rest of a refused body did not come")
