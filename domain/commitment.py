"""Storage commitment (PS3.4 J): our questions to destinations, and the questions of others to us."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from domain.errors import DeliveryError
from domain.job import ResultObject

NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
DUPLICATE_TRANSACTION = 0x0131

FAILURES: Mapping[int, str] = {
    0x0110: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    CLASS_INSTANCE_CONFLICT: "class / instance conflict",
    0x0122: "SOP class not supported",
    DUPLICATE_TRANSACTION: "duplicate transaction UID",
    0x0213: "resource limitation",
}
"""Meanings of FailureReason (PS3.3 C.14.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One object that a question is about."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A question of ours to one destination, kept before it is sent."""

    transaction_uid: str = field(repr=False)
    job_id: str
    destination: str
    sop_instance_uids: frozenset[str] = field(repr=False)
    requested_at: datetime
    taken: bool = False
    """The destination answered the request itself with success."""
    answered: bool = False
    committed: frozenset[str] = field(default=frozenset(), repr=False)
    failed: Mapping[str, int] = field(default_factory=dict, repr=False)
    """FailureReason by SOP Instance UID."""


class CommitmentLog(Protocol):
    """Our questions and their answers, which may come by another process. Durable on return."""

    def begin(self, transaction: Transaction) -> None:
        """Keep a question before it is sent."""
        ...

    def taken(self, transaction_uid: str) -> None:
        """Note that the destination took the question."""
        ...

    def answer(self, transaction_uid: str, committed: Collection[str], failed: Mapping[str, int]) -> bool:
        """Keep an answer; return whether there is such a question.

        Only what was asked counts; of several answers the first stands.
        """
        ...

    def is_answered(self, transaction_uid: str) -> bool:
        """Tell whether an answer came, by whichever way."""
        ...

    def close(self, transaction_uid: str) -> None:
        """Note that an answer was acted upon; ``open`` leaves it out from now on."""
        ...

    def open(self, job_id: str, destination: str) -> tuple[Transaction, ...]:
        """Return the questions about a job's objects that are not closed, oldest first."""
        ...


class Committer(Protocol):
    """Puts the question to one destination."""

    def request(self, transaction_uid: str, references: Sequence[Reference]) -> DeliveryError | None:
        """Ask; return why the destination did not take the question. The answer goes to the ``CommitmentLog``."""
        ...


class Finder(Protocol):
    """Looks for objects at one destination."""

    def visible(self, study_instance_uid: str, objects: Sequence[ResultObject]) -> set[str]:
        """Return the SOP Instance UIDs of those objects that a query finds.

        Raises
        ------
        DeliveryError
            The query was not answered.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """The question of a peer to us."""

    transaction_uid: str = field(repr=False)
    ae_title: str
    """Of the peer, as it called us."""
    called_ae_title: str
    references: tuple[Reference, ...] = field(repr=False)
    received_at: datetime
    duplicate: bool = False
    """The same Transaction UID came before with other references."""
    attempts: int = 0
    """How often an answer was tried."""


class CommitmentRequests(Protocol):
    """The questions of others that we have still to answer. Durable on return; safe for several processes."""

    def add(self, request: CommitmentRequest, *, due_at: datetime) -> CommitmentRequest:
        """Keep a question; the same one again is due again. Returns it as kept."""
        ...

    def claim(self, now: datetime, *, lease: timedelta) -> CommitmentRequest | None:
        """Return a question whose answer is due, and put it off by ``lease``, so that nobody else answers it."""
        ...

    def put_off(self, request: CommitmentRequest, due_at: datetime) -> bool:
        """Let the answer be due at another time; return whether it is still owed, and claimed by nobody since."""
        ...

    def done(self, request: CommitmentRequest) -> None:
        """Forget that an answer is due: the peer has it, or it was given up."""
        ...
