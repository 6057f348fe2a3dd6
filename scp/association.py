"""pynetdicom's association, where it would leave a sender without an answer or a thread without an end.

pynetdicom makes these objects itself, so their class is exchanged when the connection opens. The names that begin
with an underscore are pynetdicom 3.0.4's, which the lock pins and ``tests/integration/test_scp.py`` proves.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import Queue
from typing import Protocol, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DimseServiceType
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.events import Event
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.transport import AssociationSocket

from domain.commitment import CommitmentRequest
from scp.settings import ScpSettings

log = logging.getLogger(__name__)

_UID = re.compile(r"[0-9.]{1,64}")
_LARGEST_REQUEST = 1 << 20  # bytes; 128 contexts with 50 transfer syntaxes each take some 200 kB
_LARGEST_COMMAND = 1 << 16  # bytes; a command set has a few short elements
_SLOWEST_LINK = 10_000  # bytes a second

# Many senders leave Nagle's algorithm on and write a request as two short PDUs: the second waits for our TCP to
# confirm the first, which Linux puts off for 40 ms unless it is asked not to, each time anew (tcp(7))
_ACKNOWLEDGE_NOW: int | None = getattr(socket, "TCP_QUICKACK", None)


class StoreAssociation(Association):
    """Answers every C-STORE request: also those that lack a UID, and those of private SOP classes.

    And it lets us report on it, between the requests of its peer.
    """

    unreported: Sequence[CommitmentRequest] = ()
    """Requests for storage commitment that came on it and are not answered."""
    reported: dict[int, CommitmentRequest]
    """By message id; answered, and the peer has not said that it has the answer."""
    reports: AssociationReports | None = None

    is_serving = False

    @property
    def idle_s(self) -> float:
        """Seconds since the peer last sent anything; 0 while its request is being served."""
        began = self.dul._idle_timer._start_time
        return 0.0 if self.is_serving or began is None else time.time() - began

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        self.is_serving = True
        try:
            self._serve(msg, context_id)
        finally:
            self.is_serving = False

    def _serve(self, msg: DimseServiceType, context_id: int) -> None:
        context = self._accepted_cx.get(context_id)
        if isinstance(msg, N_EVENT_REPORT) and msg.MessageIDBeingRespondedTo is not None and self.reports:
            self.reports.on_response(self, msg)
        elif isinstance(msg, C_STORE) and msg.MessageID is not None and context and not self._sent_release:
            StorageServiceClass(self).SCP(msg, context)
        else:
            super()._serve_request(msg, context_id)
        if self.unreported and self.reports:
            self.reports.on_idle(self)


class AssociationReports(Protocol):
    """What an association asks for when there is something to report on it; see ``scp.reporting``."""

    def on_idle(self, association: StoreAssociation) -> None: ...

    def on_response(self, association: StoreAssociation, response: N_EVENT_REPORT) -> None: ...


class PromptSocket(AssociationSocket):
    """Reads a PDU in one pass into one buffer; gives up on one that is too large or does not come to its end."""

    largest_pdu: int
    stall_timeout_s: float

    def recv(self, nr_bytes: int) -> bytearray:
        """Return ``nr_bytes`` bytes, or fewer when the peer closed the connection.

        Raises
        ------
        OSError
            The PDU is larger than negotiated, or stalled; pynetdicom then closes the connection.
        """
        if nr_bytes > self.largest_pdu:
            raise OSError("PDU larger than negotiated")
        if self.socket is None:
            return bytearray()
        deadline = time.monotonic() + self.stall_timeout_s + nr_bytes / _SLOWEST_LINK
        buffer = bytearray(nr_bytes)
        received = 0
        with memoryview(buffer) as view:
            while received < nr_bytes:
                count = self.socket.recv_into(view[received:])
                if count == 0 or time.monotonic() > deadline:
                    break
                received += count
        if _ACKNOWLEDGE_NOW is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, _ACKNOWLEDGE_NOW, 1)
        del buffer[received:]
        return buffer


class SteadyStateMachine(StateMachine):
    """Ends an association over a message that pynetdicom cannot digest.

    Otherwise the error would end the thread that reads from the connection, and the association would hold its place
    among those admitted until the network timeout.
    """

    largest_dataset: int

    def do_action(self, event: str) -> None:
        """Do what the event asks for, or end the association."""
        try:
            super().do_action(event)
        except Exception as error:  # a command set without Command Field, a PDU after an abort, …
            log.warning("association broken off", extra={"error": type(error).__name__})
            self._break_off()
        if self._is_too_large():
            log.warning("association broken off", extra={"error": "larger than scp.max_instance_mb"})
            self._break_off()

    def _is_too_large(self) -> bool:
        """Tell whether the message that is arriving outgrows its limits; it is in memory until it is whole."""
        message = self.dul.assoc.dimse.message
        if message is None:
            return False
        arrived = message.data_set.tell() if message.data_set is not None else 0
        return arrived > self.largest_dataset or message.encoded_command_set.tell() > _LARGEST_COMMAND

    def _break_off(self) -> None:
        """Abort without the state machine (PS3.8 9.3.8: by the service provider, reason not specified)."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 2, 0
        transport = cast(AssociationSocket, self.dul.socket)
        with suppress(OSError):
            transport.send(abort.encode())
        self.dul.assoc.is_aborted, self.dul.assoc.is_established = True, False
        self.dul.assoc._kill = self.dul._kill_thread = True
        self.dul.assoc.dimse.message = None
        transport.close()


def on_connected(event: Event, settings: ScpSettings, reports: AssociationReports | None = None) -> None:
    """Prepare the association and the connection behind an ``EVT_CONN_OPEN``."""
    event.assoc.__class__ = StoreAssociation
    machine = cast(SteadyStateMachine, event.assoc.dul.state_machine)
    machine.__class__ = SteadyStateMachine
    machine.largest_dataset = settings.max_instance_mb << 20
    association = cast(StoreAssociation, event.assoc)
    association.reported, association.reports = {}, reports
    transport = cast(PromptSocket, event.assoc.dul.socket)
    transport.__class__ = PromptSocket
    connection = cast(socket.socket, transport.socket)
    transport.stall_timeout_s = settings.stall_timeout_s
    # Without limit (0) a peer may put a whole dataset into one PDU (PS3.8 D.1)
    transport.largest_pdu = max(settings.max_pdu, _LARGEST_REQUEST) if settings.max_pdu else 1 << 32
    # Accepted connections have no timeout of their own: a peer that stops within a PDU would hold a thread for ever
    connection.settimeout(settings.stall_timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def on_closed(event: Event) -> None:
    """Let go of what a closed connection holds, behind an ``EVT_CONN_CLOSE``: half an instance, or a place.

    pynetdicom would keep the thread of one that never asked for an association, and its place among the connections,
    until the request's time is over.
    """
    event.assoc.dimse.message = None
    if event.assoc.requestor.primitive is None:
        # None is what the queue gives when that time is over
        cast("Queue[object]", event.assoc.dul.to_user_queue).put(None)


def on_accepted(event: Event) -> None:
    """Say which proposals of an accepted association we refused: its sender may not."""
    refused = sorted({str(context.abstract_syntax) for context in event.assoc.rejected_contexts})
    if refused:
        log.warning(
            "presentation contexts rejected",
            extra={"calling_ae_title": event.assoc.requestor.ae_title, "sop_classes": refused},
        )


def on_message(event: Event) -> None:
    """Blank what is no UID in a C-STORE request behind an ``EVT_DIMSE_RECV``.

    pynetdicom aborts the association over a UID longer than 64 characters and takes the first of several; blank, it
    reaches the handler, which refuses the instance and leaves the association usable.
    """
    if isinstance(event.message, C_STORE_RQ):
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            if not _UID.fullmatch(str(event.message.command_set.get(keyword, ""))):
                setattr(event.message.command_set, keyword, "")
