"""Storage commitment as SCP (PS3.4 J), and the answers that our own questions get on associations of others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.events import Event

from domain.commitment import (
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_TRANSACTION,
    NO_SUCH_INSTANCE,
    CommitmentLog,
    CommitmentRequest,
    CommitmentRequests,
    Reference,
)
from domain.errors import StorageError
from domain.ports import SeriesIndex
from scp.association import StoreAssociation

log = logging.getLogger(__name__)

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known (PS3.4 J.3.5)
REQUEST = 1  # Action Type (PS3.4 Table J.3-1)
COMPLETE, FAILURES_EXIST = 1, 2  # Event Types (PS3.4 Table J.3-3)
GRACE = timedelta(seconds=2)
"""So long a peer may hear the answer on its own association, before another one is opened."""

# Statuses of N-ACTION and N-EVENT-REPORT (PS3.7 10.1.1.1.8, 10.1.4.1.10, Annex C)
_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_INSTANCE = 0x0112
_NO_SUCH_EVENT_TYPE = 0x0113
_INVALID_ARGUMENT = 0x0115
_NO_SUCH_ACTION = 0x0123
_NOT_AUTHORISED = 0x0124
_RESOURCE_LIMITATION = 0x0213

Answer = tuple[int, Dataset | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHandler:
    """Hears the answers to our own requests."""

    transactions: CommitmentLog

    def on_event_report(self, event: Event) -> Answer:
        """Keep the answer of an ``EVT_N_EVENT_REPORT``; return the response's status."""
        try:
            status = self._keep(event)
        except StorageError:
            status = _PROCESSING_FAILURE
        except Exception as error:  # what does not decode as a dataset
            log.warning("event report cannot be read", extra={"error": type(error).__name__})
            status = _PROCESSING_FAILURE
        return status, None

    def _keep(self, event: Event) -> int:
        if cast(N_EVENT_REPORT, event.request).EventTypeID not in (COMPLETE, FAILURES_EXIST):
            return _NO_SUCH_EVENT_TYPE
        information = event.event_information
        committed = {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ()}
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or _PROCESSING_FAILURE)
            for item in information.get("FailedSOPSequence") or ()
        }
        known = self.transactions.answer(str(information.get("TransactionUID", "")), committed, failed)
        log.info(
            "storage commitment answered",
            extra={
                "peer": event.assoc.remote["ae_title"],
                "known": known,
                "committed": len(committed),
                "failed": len(failed),
            },
        )
        return _SUCCESS if known else _INVALID_ARGUMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentDesk:
    """Takes the requests of others and looks what we hold."""

    requests: CommitmentRequests
    index: SeriesIndex
    open_to_others: bool = True

    def on_action(self, event: Event) -> Answer:
        """Keep the request of an ``EVT_N_ACTION``, to be answered afterwards; return the response's status."""
        try:
            return self._keep(event), None
        except StorageError:
            return _RESOURCE_LIMITATION, None
        except Exception as error:  # what does not decode as a dataset
            log.warning("storage commitment request cannot be read", extra={"error": type(error).__name__})
            return _INVALID_ARGUMENT, None

    def _keep(self, event: Event) -> int:
        request = cast(N_ACTION, event.request)
        if not self.open_to_others:
            return _NOT_AUTHORISED
        if request.RequestedSOPInstanceUID != PUSH_MODEL_INSTANCE:
            return _NO_SUCH_INSTANCE
        if request.ActionTypeID != REQUEST:
            return _NO_SUCH_ACTION
        information, now = event.action_information, datetime.now(UTC)
        references = tuple(
            Reference(
                sop_class_uid=str(item.ReferencedSOPClassUID), sop_instance_uid=str(item.ReferencedSOPInstanceUID)
            )
            for item in information.get("ReferencedSOPSequence") or ()
        )
        transaction_uid = str(information.get("TransactionUID") or "")
        if not references or not 0 < len(transaction_uid) <= 64:
            return _INVALID_ARGUMENT
        asked = CommitmentRequest(
            transaction_uid=transaction_uid,
            ae_title=event.assoc.requestor.ae_title,
            called_ae_title=event.assoc.acceptor.ae_title,
            references=references,
            received_at=now,
        )
        # Kept before it is answered: from then on a power cut does not make us forget it
        kept = self.requests.add(asked, due_at=now + GRACE)
        association = cast(StoreAssociation, event.assoc)
        association.unreported = [*association.unreported, kept]
        return _SUCCESS

    def report(self, request: CommitmentRequest) -> tuple[int, Dataset]:
        """Return event type and event information (PS3.4 Table J.3-4) of the answer, as things stand now."""
        failed = self._failures(request)
        information = Dataset()
        information.TransactionUID = request.transaction_uid
        good = [item for item in request.references if item not in failed]
        if good:
            information.ReferencedSOPSequence = [_item(reference) for reference in good]
        if failed:
            information.FailedSOPSequence = [_item(reference, reason) for reference, reason in failed.items()]
        log.info(
            "storage commitment",
            extra={"peer": request.ae_title, "committed": len(good), "failed": len(failed)},
        )
        return (FAILURES_EXIST if failed else COMPLETE), information

    def _failures(self, request: CommitmentRequest) -> Mapping[Reference, int]:
        if request.duplicate:
            return dict.fromkeys(request.references, DUPLICATE_TRANSACTION)
        found = self.index.instances_by_uid([item.sop_instance_uid for item in request.references])
        # The index alone is no proof
        held = {item.header.sop_instance_uid: item.header.sop_class_uid for item in found if item.path.is_file()}
        failed = {}
        for reference in request.references:
            if reference.sop_instance_uid not in held:
                failed[reference] = NO_SUCH_INSTANCE
            elif held[reference.sop_instance_uid] != reference.sop_class_uid:
                failed[reference] = CLASS_INSTANCE_CONFLICT
        return failed


def _item(reference: Reference, failure_reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if failure_reason is not None:
        item.FailureReason = failure_reason
    return item
