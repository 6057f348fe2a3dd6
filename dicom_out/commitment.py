"""Storage commitment as SCU (PS3.4 J): the request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event

from dicom_out.association import opened_for
from dicom_out.settings import DimseSettings
from domain.commitment import Reference
from domain.errors import DeliveryError, PeerOutOfResources, PeerRefused, PeerUnreachable

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known (PS3.4 J.3.5)
_REQUEST = 1  # Action Type (PS3.4 Table J.3-1)
_RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.22

Answer = tuple[int, Dataset | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DimseCommitter:
    """A ``Committer`` over DIMSE: asks, and hears the answer if it comes on the same association."""

    settings: DimseSettings
    on_report: Callable[[Event], Answer]
    """Keeps the answer of an ``EVT_N_EVENT_REPORT``; the SCP's, to which the answer may come as well."""
    wait_s: float = 10.0
    """How long the association is kept open for the answer."""

    def request(self, transaction_uid: str, references: Sequence[Reference]) -> DeliveryError | None:
        """See ``Committer.request``."""
        heard = threading.Event()
        handlers = [(evt.EVT_N_EVENT_REPORT, self._hear, [heard])]
        try:
            with opened_for(self.settings, PUSH_MODEL, handlers) as association:
                status, _ = association.send_n_action(
                    _action_information(transaction_uid, references), _REQUEST, PUSH_MODEL, PUSH_MODEL_INSTANCE
                )
                error = _judge(status)
                if error is None:
                    heard.wait(self.wait_s)
        except DeliveryError as refusal:
            return refusal
        except RuntimeError:
            return PeerUnreachable("the association ended before storage commitment was requested")
        return error

    def _hear(self, event: Event, heard: threading.Event) -> Answer:
        try:
            return self.on_report(event)
        finally:
            heard.set()


def _judge(answer: Dataset) -> DeliveryError | None:
    if "Status" not in answer:
        return PeerUnreachable("the destination did not answer the request for storage commitment")
    status = int(answer.Status)
    if status == 0x0000:
        return None
    said = f"the destination refused the request for storage commitment (status {status:04X}H)"
    return PeerOutOfResources(said) if status == _RESOURCE_LIMITATION else PeerRefused(said)


def _action_information(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """Return the attributes of PS3.4 Table J.3-2."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    return information
