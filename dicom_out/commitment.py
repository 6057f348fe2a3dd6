"""Storage commitment as SCU (PS3.4 J): the request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from dicom_out.association import limited, opened_for
from dicom_out.settings import DimseSettings
from domain.commitment import CommitmentLog, Reference
from domain.errors import DeliveryError, PeerOutOfResources, PeerRefused, PeerUnreachable

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known (PS3.4 J.3.5)
_REQUEST = 1  # Action Type (PS3.4 Table J.3-1)
_LOOK_S = 0.1
_RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.22

Answer = tuple[int, Dataset | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DimseCommitter:
    """A ``Committer`` over DIMSE: asks, and hears the answer if it comes on the same association.

    It may as well come on another one, to our SCP in another process: ``log`` knows of it.
    """

    settings: DimseSettings
    log: CommitmentLog
    on_report: Callable[[Event], Answer]
    """Puts the answer of an ``EVT_N_EVENT_REPORT`` into ``log``; the SCP's own."""
    wait_s: float = 10.0
    """How long the association is kept open while there is no answer."""

    def request(self, transaction_uid: str, references: Sequence[Reference]) -> DeliveryError | None:
        """See ``Committer.request``."""
        try:
            with opened_for(self.settings, PUSH_MODEL, [(evt.EVT_N_EVENT_REPORT, self.on_report)]) as association:
                information = _action_information(transaction_uid, references)
                with limited(association, self.settings.response_timeout_s):
                    status, _ = association.send_n_action(information, _REQUEST, PUSH_MODEL, PUSH_MODEL_INSTANCE)
                error = _judge(status)
                if error is None:
                    self._wait(association, transaction_uid)
        except DeliveryError as refusal:
            return refusal
        except RuntimeError:
            return PeerUnreachable("the association ended before storage commitment was requested")
        return error

    def _wait(self, association: Association, transaction_uid: str) -> None:
        deadline = time.monotonic() + self.wait_s
        while association.is_established and time.monotonic() < deadline:
            if self.log.is_answered(transaction_uid):
                return
            time.sleep(_LOOK_S)


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
