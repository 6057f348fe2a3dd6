"""Errors as C-STORE statuses."""

from __future__ import annotations

import pytest

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
from scp.status import status_of


class SomeRejection(InstanceRejected):
    """A kind that the table does not name."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfSpace(), 0xA700),
        (StorageError(), 0xA700),
        (InstanceMismatch(), 0xA900),
        (MalformedInstance(), 0xC000),
        (SomeRejection(), 0xC000),
        (UnsupportedSopClass(), 0x0122),
        (ConflictingInstance(), 0x0111),
        (GatewayError(), 0xC0FF),
    ],
)
def test_an_error_has_the_status_of_its_nearest_named_ancestor(error: GatewayError, status: int) -> None:
    assert status_of(error) == status
