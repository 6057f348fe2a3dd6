"""Bringing storage commitment answers to those who asked (PS3.4 J.3.3), until they have them."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from io import BytesIO

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from domain.commitment import CommitmentRequest
from domain.errors import GatewayError
from domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp.association import StoreAssociation
from scp.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, CommitmentDesk
from scp.settings import ScpSettings

log = logging.getLogger(__name__)

_LOOK_S = 2.0
_LEASE = timedelta(minutes=5)
_LONGEST_PAUSE_S = 3600.0
_QUIET_S = 0.3
"""A peer that sends nothing for so long after its request waits for the answer; others are releasing."""


class Reporter:
    """Answers on the association of the request while its peer waits there, otherwise on one of ours."""

    def __init__(self, desk: CommitmentDesk, settings: ScpSettings) -> None:
        self._desk = desk
        self._settings = settings

    def run(self, stop: threading.Event) -> None:
        """Answer what is due until ``stop`` is set."""
        while not stop.is_set():
            try:
                while not stop.is_set() and self.answer_one(datetime.now(UTC)):
                    pass
            except Exception:
                log.exception("storage commitment answers wait")
            stop.wait(_LOOK_S)

    def answer_one(self, now: datetime) -> bool:
        """Answer one request that is due, on a new association; return whether there was one."""
        request = self._desk.requests.claim(now, lease=_LEASE)
        if request is None:
            return False
        status = self._send(request)
        if status is not None:
            if status != 0x0000:
                log.warning(
                    "storage commitment answer refused", extra={"peer": request.ae_title, "status": f"{status:04X}"}
                )
            self._desk.requests.done(request)
            return True
        if now - request.received_at > timedelta(hours=self._settings.commitment_give_up_h):
            log.error("storage commitment answer given up", extra={"peer": request.ae_title})
            self._desk.requests.done(request)
            return True
        pause_s = min(_LONGEST_PAUSE_S, 15.0 * 2.0 ** min(request.attempts, 20))
        self._desk.requests.put_off(request, now + timedelta(seconds=pause_s))
        return True

    def _send(self, request: CommitmentRequest) -> int | None:
        """Return the status that the peer answered with; ``None`` where it could not be asked."""
        peer = self._settings.peers.get(request.ae_title)
        if peer is None:
            log.warning(
                "storage commitment answer has no way to its peer: name it in scp.peers",
                extra={"peer": request.ae_title},
            )
            return None
        # The SCP opens the association, so it must say that it stays the SCP (PS3.7 D.3.3.4)
        association = _entity(self._settings, request.called_ae_title).associate(
            *peer, ae_title=request.ae_title, ext_neg=[build_role(UID(PUSH_MODEL), scp_role=True)]
        )
        try:
            if not association.is_established:
                return None
            event_type, information = self._desk.report(request)
            answer, _ = association.send_n_event_report(information, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            return int(answer.Status) if "Status" in answer else None
        except (RuntimeError, ValueError):
            return None
        finally:
            if association.is_established:
                association.release()

    # ------------------------------------------------------------------------------------------ same association

    def on_idle(self, association: StoreAssociation) -> None:
        """Answer on the peer's own association, unless it does anything else there. Called by its thread.

        Nothing is awaited here: the response comes as a message of its own (``on_response``).
        """
        deadline = time.monotonic() + _QUIET_S
        while time.monotonic() < deadline:
            if not association.is_established or _has_news(association):
                return
            time.sleep(0.01)
        owed, association.unreported = association.unreported, ()
        try:
            for request in owed:
                self._report_on(association, request)
        except GatewayError as error:
            # Still owed, and due again: on an association of ours
            log.warning("storage commitment answer waits", extra={"error": type(error).__name__})

    def _report_on(self, association: StoreAssociation, request: CommitmentRequest) -> None:
        context = next((cx for cx in association.accepted_contexts if cx.abstract_syntax == PUSH_MODEL), None)
        later = datetime.now(UTC) + timedelta(seconds=self._settings.dimse_timeout_s)
        if context is None or not self._desk.requests.put_off(request, later):
            return
        event_type, information = self._desk.report(request)
        syntax = context.transfer_syntax[0]
        encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
        message = N_EVENT_REPORT()
        message.MessageID = max(association.reported, default=0) + 1
        message.AffectedSOPClassUID = UID(PUSH_MODEL)
        message.AffectedSOPInstanceUID = UID(PUSH_MODEL_INSTANCE)
        message.EventTypeID = event_type
        message.EventInformation = BytesIO(encoded or b"")
        association.reported[message.MessageID] = request
        association.dimse.send_msg(message, context.context_id or 0)

    def on_response(self, association: StoreAssociation, response: N_EVENT_REPORT) -> None:
        """Note that the peer has an answer that went over its own association."""
        request = association.reported.pop(response.MessageIDBeingRespondedTo or 0, None)
        if request is None:
            return
        try:
            self._desk.requests.done(request)
        except GatewayError as error:
            # It will be given again, which does no harm
            log.warning("storage commitment answer is not noted", extra={"error": type(error).__name__})


def _has_news(association: StoreAssociation) -> bool:
    return not association.dimse.msg_queue.empty() or association.dul.peek_next_pdu() is not None


def _entity(settings: ScpSettings, ae_title: str) -> ApplicationEntity:
    ae = ApplicationEntity(ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = settings.acse_timeout_s
    ae.dimse_timeout = settings.dimse_timeout_s
    ae.add_requested_context(UID(PUSH_MODEL), [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    return ae
