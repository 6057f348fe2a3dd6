"""Sending by STOW-RS (PS3.18 10.5).

dicomweb-client is not used here: it raises on 409 without showing which instances failed, and holds the whole
message in memory.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import requests

from dicom_out.http_exchange import Answer, Exchange
from dicom_out.outgoing import Outgoing, read_all
from dicom_out.settings import StowSettings
from dicom_out.stow_response import stored_and_failed
from domain.errors import AlreadyThere, ClassRefused, DeliveryError, PeerOutOfResources, PeerRefused, PeerUnreachable
from domain.ports import SendReport

log = logging.getLogger(__name__)

_MAX_PARTS = 50
_MAX_BYTES = 256 << 20
_BLOCK = 256 << 10
_DUPLICATE_SOP_INSTANCE = 0x0111
_SOP_CLASS_NOT_SUPPORTED = 0x0122
_OUT_OF_RESOURCES = (429, 503, 507)
_UNREACHABLE = (408, 500, 502, 504)


class StowDestination:
    """A ``Destination`` that takes STOW-RS."""

    def __init__(self, settings: StowSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """As configured."""
        return self._settings.name

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        """See ``Destination.send``. Files are streamed, in requests of limited size."""
        outgoing, reports = read_all(paths)
        with Exchange(self._settings) as http:
            for batch in _batches(outgoing):
                items = [outgoing[index] for index in batch]
                for index, answer in zip(batch, self._send_batch(http, items), strict=True):
                    reports[index] = SendReport(sop_instance_uid=outgoing[index].sop_instance_uid, error=answer)
        return [reports[index] for index in range(len(paths))]

    def _send_batch(self, http: Exchange, items: Sequence[Outgoing]) -> list[DeliveryError | None]:
        """Return what became of each item; one at a time where the answer to all says too little."""
        try:
            answer = self._post(http, items)
        except requests.RequestException as error:
            log.warning("destination unreachable", extra={"destination": self.name, "error": type(error).__name__})
            return [PeerUnreachable(f"no answer from the destination ({type(error).__name__})")] * len(items)
        said = stored_and_failed(answer.content, answer.media_type)
        explained = said is not None and all(item.sop_instance_uid in said[1] for item in items)
        if 400 <= answer.status < 500 and len(items) > 1 and not explained:
            # Orthanc answers 400 when a single part is bad, and has stored the others
            return [self._send_batch(http, [item])[0] for item in items]
        return [self._judge(answer.status, said, item) for item in items]

    def _post(self, http: Exchange, items: Sequence[Outgoing]) -> Answer:
        body = MultipartBody([item.path for item in items])
        media_type = f'multipart/related; type="application/dicom"; boundary={body.boundary}'
        return http.request("POST", "studies", headers={"Content-Type": media_type}, body=body, size=len(body))

    def _judge(
        self, http_status: int, said: tuple[Mapping[str, int], Mapping[str, int]] | None, item: Outgoing
    ) -> DeliveryError | None:
        stored, failed = said or ({}, {})
        if item.sop_instance_uid in failed:
            return _failure(failed[item.sop_instance_uid])
        if item.sop_instance_uid in stored and http_status in (200, 202):
            if stored[item.sop_instance_uid]:
                warning = f"{stored[item.sop_instance_uid]:04X}"
                log.warning("stored with a warning", extra={"destination": self.name, "status": warning})
            return None
        return _http_error(http_status)


class MultipartBody:
    """A multipart/related message whose parts are files, read while it is sent; its length is known before."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.boundary = uuid.uuid4().hex
        self._paths = paths
        self._head = f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._tail = f"--{self.boundary}--\r\n".encode()

    def __len__(self) -> int:
        frame = len(self._head) + len(b"\r\n")
        return sum(frame + path.stat().st_size for path in self._paths) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        for path in self._paths:
            yield self._head
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield block
            yield b"\r\n"
        yield self._tail


def _batches(outgoing: Mapping[int, Outgoing]) -> list[list[int]]:
    batches: list[list[int]] = []
    size = 0
    for index, item in outgoing.items():
        if not batches or len(batches[-1]) == _MAX_PARTS or size + item.size > _MAX_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(index)
        size += item.size
    return batches


def _failure(reason: int) -> DeliveryError:
    """Return the meaning of a FailureReason (PS3.18 Table I.2-2, PS3.3 C.14.1.1)."""
    if 0xA700 <= reason <= 0xA7FF:
        return PeerOutOfResources(f"the destination is out of resources (FailureReason {reason:04X}H)")
    if reason == _DUPLICATE_SOP_INSTANCE:
        return AlreadyThere(f"the destination holds an object of this SOP Instance UID (FailureReason {reason:04X}H)")
    if reason == _SOP_CLASS_NOT_SUPPORTED:
        return ClassRefused(f"the destination does not take objects of this SOP class (FailureReason {reason:04X}H)")
    return PeerRefused(f"the destination refused the object (FailureReason {reason:04X}H)")


def _http_error(status: int) -> DeliveryError:
    """Return what an answer means that does not say that the object is stored."""
    if status in (200, 202):
        return PeerUnreachable(f"the destination answered {status} without saying that the object is stored")
    if status in _OUT_OF_RESOURCES:
        return PeerOutOfResources(f"the destination is busy or out of resources (HTTP {status})")
    if status in _UNREACHABLE:
        return PeerUnreachable(f"the destination failed (HTTP {status})")
    if status in (401, 403):
        return PeerRefused(f"the destination does not accept our credentials (HTTP {status})")
    if 300 <= status < 400:
        return PeerRefused(f"the destination redirects elsewhere (HTTP {status}); configure the final URL")
    return PeerRefused(f"the destination refused the request (HTTP {status})")
