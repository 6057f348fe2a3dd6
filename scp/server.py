"""The DIMSE server: C-ECHO, C-STORE and storage commitment."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import TCPServer
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import ThreadedAssociationServer

from domain.commitment import CommitmentLog, CommitmentRequests
from domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from domain.ports import InstanceSink, SeriesIndex
from scp.admission import Admission
from scp.association import on_accepted, on_closed, on_connected, on_message
from scp.commitment import CommitmentDesk, ReportHandler
from scp.contexts import storage_sop_classes, supported_contexts, transfer_syntaxes
from scp.handlers import StoreHandler
from scp.reporting import Reporter
from scp.settings import ScpSettings

log = logging.getLogger(__name__)

_POLL_S = 0.5
"""Between two looks for dead associations; a connection or the end is noticed at once."""
_FINISH_POLL_S = 0.05


class _Server(ThreadedAssociationServer):
    request_queue_size = 128  # several modalities open their associations at once
    max_connections = 256
    """Each costs two threads, also before it asks for an association."""

    def verify_request(self, request: object, client_address: object) -> bool:
        """Close connections beyond ``max_connections`` unheard."""
        if len(self.active_associations) < self.max_connections:
            return True
        log.warning("too many connections", extra={"connections": self.max_connections})
        return False

    def shutdown(self) -> None:
        """Stop accepting. pynetdicom's own also takes the server off a list that only its ``start_server`` fills."""
        if self.socket is not None:
            with contextlib.suppress(OSError):  # where the system does not know it, the end takes up to a poll
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        TCPServer.shutdown(self)
        self.server_close()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCommitment:
    """What storage commitment needs of the store."""

    requests: CommitmentRequests
    transactions: CommitmentLog
    index: SeriesIndex


@contextmanager
def serving(settings: ScpSettings, sink: InstanceSink, commitment: StorageCommitment | None = None) -> Iterator[int]:
    """Listen until the block ends; yield the port that was bound. Without ``commitment`` there is none of it.

    At the end nothing new is accepted, running associations have ``settings.stop_timeout_s`` to finish, and what is
    still open then is aborted: its sender has no answer for the instance in flight and will send it again.

    Raises
    ------
    OSError
        The address cannot be bound.
    """
    admission = Admission(settings)
    reporter, handlers = _commitment_parts(settings, commitment)
    server = _make_server(settings, sink, admission, reporter, handlers)
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="scp", daemon=True)
    thread.start()
    stop = threading.Event()
    reporting = _started(reporter, stop)
    port: int = server.server_address[1]
    log.info("listening", extra={"ae_title": settings.ae_title, "host": settings.host, "port": port})
    try:
        yield port
    finally:
        server.shutdown()
        thread.join()
        stop.set()
        if reporting is not None:
            reporting.join(settings.stop_timeout_s)
        _finish(admission, settings.stop_timeout_s)


def _commitment_parts(
    settings: ScpSettings, commitment: StorageCommitment | None
) -> tuple[Reporter | None, list[tuple[Any, ...]]]:
    """Return who brings answers to others, and the handlers for what others say."""
    if commitment is None:
        return None, []
    desk = CommitmentDesk(
        requests=commitment.requests, index=commitment.index, open_to_others=settings.storage_commitment
    )
    hearing = ReportHandler(transactions=commitment.transactions)
    handlers = [(evt.EVT_N_ACTION, desk.on_action), (evt.EVT_N_EVENT_REPORT, hearing.on_event_report)]
    return Reporter(desk, settings), handlers


def _started(reporter: Reporter | None, stop: threading.Event) -> threading.Thread | None:
    if reporter is None:
        return None
    thread = threading.Thread(target=reporter.run, args=(stop,), name="reports", daemon=True)
    thread.start()
    return thread


def _make_server(
    settings: ScpSettings,
    sink: InstanceSink,
    admission: Admission,
    reporter: Reporter | None,
    handlers: Sequence[tuple[Any, ...]],
) -> ThreadedAssociationServer:
    sop_class_uids = storage_sop_classes(settings.private_sop_classes)
    handler = StoreHandler(sink=sink, ae_title=settings.ae_title, sop_class_uids=sop_class_uids)
    return _entity(settings).make_server(
        (settings.host, settings.port),
        contexts=supported_contexts(
            sop_class_uids, transfer_syntaxes(settings.private_transfer_syntaxes), commitment=reporter is not None
        ),
        evt_handlers=[
            (evt.EVT_CONN_OPEN, on_connected, [settings, reporter]),
            (evt.EVT_CONN_CLOSE, on_closed),
            (evt.EVT_REQUESTED, admission.on_requested),
            (evt.EVT_ACCEPTED, on_accepted),
            (evt.EVT_DIMSE_RECV, on_message),
            (evt.EVT_C_STORE, handler.on_store),
            *handlers,
        ],
        server_class=_Server,
    )


def _entity(settings: ScpSettings) -> ApplicationEntity:
    ae = ApplicationEntity(settings.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = settings.max_pdu
    ae.acse_timeout = settings.acse_timeout_s
    ae.dimse_timeout = settings.dimse_timeout_s
    ae.network_timeout = settings.network_timeout_s
    # Ours counts admitted associations only; pynetdicom's would count every open connection
    ae.maximum_associations = 1 << 16
    return ae


def _finish(admission: Admission, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while admission.admitted() and time.monotonic() < deadline:
        time.sleep(_FINISH_POLL_S)
    for assoc in admission.admitted():
        log.warning("association aborted at stop", extra={"calling_ae_title": assoc.requestor.ae_title})
        assoc.abort()
        # A handler that is storing must end before the caller closes the store
        assoc.join(timeout_s)
