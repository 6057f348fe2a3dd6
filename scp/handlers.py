"""DIMSE events in, domain calls out. No decision is taken here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from domain.errors import GatewayError, InstanceMismatch, MalformedInstance, UnsupportedSopClass
from domain.instance import Reception
from domain.ports import InstanceSink
from scp.part10 import file_head
from scp.status import SUCCESS, UNEXPECTED, status_of

log = logging.getLogger(__name__)

_COMMENT_LENGTH = 64  # VR LO


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHandler:
    """Answers C-STORE requests.

    Success is sent only after ``sink`` returned: to the peer it means *stored* (PS3.4 B.2.3), and some peers then
    delete their copy without asking for storage commitment.
    """

    sink: InstanceSink
    ae_title: str
    sop_class_uids: frozenset[str]

    def on_store(self, event: Event) -> Dataset:
        """Keep the instance of an ``EVT_C_STORE``; return the response's status elements."""
        try:
            self._keep(event)
        except GatewayError as error:
            status = status_of(error)
            log.warning(
                "c-store refused",
                extra={
                    "status": f"{status:04X}",
                    "error": type(error).__name__,
                    "reason": str(error),
                    "calling_ae_title": event.assoc.requestor.ae_title,
                },
            )
            return _answer(status, str(error))
        except Exception:
            log.exception("c-store failed")
            return _answer(UNEXPECTED, "internal error")
        return _answer(SUCCESS)

    def _keep(self, event: Event) -> None:
        request = cast(C_STORE, event.request)  # EVT_C_STORE carries nothing else
        sop_class_uid, sop_instance_uid = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID
        if not sop_class_uid or not sop_instance_uid:
            raise InstanceMismatch("AffectedSOPClassUID or AffectedSOPInstanceUID is empty or no UID")
        if sop_class_uid not in self.sop_class_uids:
            raise UnsupportedSopClass
        if request.DataSet is None or not request.DataSet.getbuffer().nbytes:
            raise MalformedInstance("the request has no dataset")
        staged = self.sink.stage()
        try:
            staged.write(
                file_head(
                    sop_class_uid=sop_class_uid,
                    sop_instance_uid=sop_instance_uid,
                    transfer_syntax_uid=event.context.transfer_syntax,
                    sending_ae_title=event.assoc.requestor.ae_title,
                    receiving_ae_title=self.ae_title,
                )
            )
            # The view, unlike event.encoded_dataset(), holds no second copy of the pixels
            with request.DataSet.getbuffer() as dataset:
                staged.write(dataset)
            (outcome,) = self.sink.commit([staged], _reception(event))
        finally:
            staged.discard()
        if outcome.error is not None:
            raise outcome.error


def _reception(event: Event) -> Reception:
    request = cast(C_STORE, event.request)  # EVT_C_STORE carries nothing else
    return Reception(
        transport="dimse",
        sender=event.assoc.requestor.ae_title,
        address=event.assoc.requestor.address,
        received_at=datetime.now(UTC),
        expected_sop_class_uid=request.AffectedSOPClassUID,
        expected_sop_instance_uid=request.AffectedSOPInstanceUID,
    )


def _answer(status: int, comment: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment.encode("ascii", "replace").decode()[:_COMMENT_LENGTH]
    return answer
