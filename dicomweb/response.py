"""The Store Instances Response Module (PS3.18 Annex I.1) in the DICOM JSON Model (PS3.18 Annex F)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from domain.errors import (
    ConflictingInstance,
    GatewayError,
    InstanceMismatch,
    InstanceRejected,
    MalformedInstance,
    OutOfSpace,
    StorageError,
    UnsupportedSopClass,
)
from domain.instance import Disposition, Outcome

MEDIA_TYPE = "application/dicom+json"

_SOP_CLASS_UID, _SOP_INSTANCE_UID = "00081150", "00081155"  # of the referenced instance
_RETRIEVE_URL, _FAILURE_REASON = "00081190", "00081197"
_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"

# PS3.18 Table I.2-2 and PS3.4 Table B.2-1; 0111H is the DIMSE status of a duplicate SOP instance (PS3.7 C.5.7).
PROCESSING_FAILURE = 0x0110
_REASON: dict[type[GatewayError], int] = {
    GatewayError: PROCESSING_FAILURE,
    InstanceRejected: 0xC000,
    MalformedInstance: 0xC000,
    InstanceMismatch: 0xA900,
    UnsupportedSopClass: 0x0122,
    ConflictingInstance: 0x0111,
    StorageError: 0xA700,
    OutOfSpace: 0xA700,
}
CANNOT_UNDERSTAND = _REASON[MalformedInstance]

Element = dict[str, object]


def failure_reason(error: GatewayError | None) -> int:
    """Return Failure Reason (0008,1197) of the nearest mapped ancestor of ``error``."""
    if error is None:
        return PROCESSING_FAILURE
    return next(_REASON[cls] for cls in type(error).__mro__ if cls in _REASON)


def status_of(outcomes: Sequence[Outcome], foreign_parts: int) -> HTTPStatus:
    """Return the status of a request of which something was looked at (PS3.18 Table 10.5.3-1).

    ``foreign_parts`` counts the parts that are no ``application/dicom``.
    """
    kept = sum(_is_kept(outcome) for outcome in outcomes)
    if not kept:
        return HTTPStatus.CONFLICT if outcomes else HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return HTTPStatus.OK if kept == len(outcomes) + foreign_parts else HTTPStatus.ACCEPTED


def response_module(outcomes: Sequence[Outcome], foreign_parts: int) -> dict[str, Element]:
    """Return the module; a sequence is present only when it has an item."""
    module = {_RETRIEVE_URL: _empty_url()}
    referenced = [_reference(outcome) | {_RETRIEVE_URL: _empty_url()} for outcome in outcomes if _is_kept(outcome)]
    refused = [outcome for outcome in outcomes if not _is_kept(outcome)]
    failed = [
        _reference(outcome) | _reason(failure_reason(outcome.error)) for outcome in refused if _is_identified(outcome)
    ]
    others = [_reason(failure_reason(outcome.error)) for outcome in refused if not _is_identified(outcome)]
    others += [_reason(CANNOT_UNDERSTAND)] * foreign_parts
    for tag, items in ((_FAILED, failed), (_REFERENCED, referenced), (_OTHER_FAILURES, others)):
        if items:
            module[tag] = {"vr": "SQ", "Value": items}
    return module


def _is_kept(outcome: Outcome) -> bool:
    return outcome.disposition in (Disposition.STORED, Disposition.DUPLICATE)


def _is_identified(outcome: Outcome) -> bool:
    return bool(outcome.sop_class_uid and outcome.sop_instance_uid)


def _reference(outcome: Outcome) -> dict[str, Element]:
    return {_SOP_CLASS_UID: _uid(outcome.sop_class_uid), _SOP_INSTANCE_UID: _uid(outcome.sop_instance_uid)}


def _uid(value: str | None) -> Element:
    return {"vr": "UI", "Value": [value]} if value else {"vr": "UI"}


def _reason(code: int) -> dict[str, Element]:
    return {_FAILURE_REASON: {"vr": "US", "Value": [code]}}


def _empty_url() -> Element:
    # Type 2: present and empty as long as instances cannot be retrieved over DICOMweb.
    return {"vr": "UR"}
