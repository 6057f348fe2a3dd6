"""C-STORE response statuses (PS3.4 Table B.2-1, PS3.7 Annex C)."""

from __future__ import annotations

from domain.errors import (
    ConflictingInstance,
    GatewayError,
    InstanceMismatch,
    InstanceRejected,
    MalformedInstance,
    StorageError,
    UnsupportedSopClass,
)

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DATASET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
UNEXPECTED = 0xC0FF
"""Of the Cxxx range; tells our own faults apart in a peer's log."""

_STATUS: dict[type[GatewayError], int] = {
    GatewayError: UNEXPECTED,
    InstanceRejected: CANNOT_UNDERSTAND,
    MalformedInstance: CANNOT_UNDERSTAND,
    InstanceMismatch: DATASET_MISMATCH,
    UnsupportedSopClass: SOP_CLASS_NOT_SUPPORTED,
    ConflictingInstance: DUPLICATE_SOP_INSTANCE,
    # A full disk and a failing one look alike to a sender: keep the instance and try again later
    StorageError: OUT_OF_RESOURCES,
}


def status_of(error: GatewayError) -> int:
    """Return the status of the nearest mapped ancestor of ``error``."""
    return next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)
