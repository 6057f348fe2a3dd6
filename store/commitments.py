"""Storage commitment on the index's tables: ``CommitmentLog`` and ``CommitmentRequests``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, select, update

from domain.commitment import CommitmentRequest, Reference, Transaction
from store import schema
from store.database import AnyRow, Database

_ASKED = schema.transactions.c
_HEARD = schema.commitment_requests.c
_REMEMBERED = timedelta(days=30)
"""So long a Transaction UID is known after its answer."""


class TransactionTable:
    """The ``CommitmentLog``. Thread-safe; every call is one transaction of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, transaction: Transaction) -> None:
        """See ``CommitmentLog.begin``."""
        row = {
            "transaction_uid": transaction.transaction_uid,
            "job_id": transaction.job_id,
            "destination": transaction.destination,
            "sop_instance_uids": json.dumps(sorted(transaction.sop_instance_uids)),
            "requested_at": transaction.requested_at,
            "taken": False,
            "answered": False,
            "closed": False,
            "committed": "[]",
            "failed": "{}",
        }
        with self._database.write() as connection:
            connection.execute(self._database.insert(schema.transactions).values(row))

    def taken(self, transaction_uid: str) -> None:
        """See ``CommitmentLog.taken``."""
        self._set(transaction_uid, "taken")

    def is_answered(self, transaction_uid: str) -> bool:
        """See ``CommitmentLog.is_answered``."""
        with self._database.read() as connection:
            query = select(_ASKED.answered).where(_ASKED.transaction_uid == transaction_uid)
            return bool(connection.execute(query).scalar())

    def close(self, transaction_uid: str) -> None:
        """See ``CommitmentLog.close``."""
        self._set(transaction_uid, "closed")

    def _set(self, transaction_uid: str, flag: str) -> None:
        statement = update(schema.transactions).where(_ASKED.transaction_uid == transaction_uid).values({flag: True})
        with self._database.write() as connection:
            connection.execute(statement)

    def answer(self, transaction_uid: str, committed: Collection[str], failed: Mapping[str, int]) -> bool:
        """See ``CommitmentLog.answer``."""
        this = _ASKED.transaction_uid == transaction_uid
        with self._database.write() as connection:
            row = connection.execute(select(schema.transactions).where(this).with_for_update()).first()
            if row is None:
                return False
            if not row.answered:
                asked = set(json.loads(row.sop_instance_uids))
                wrong = {uid: reason for uid, reason in failed.items() if uid in asked}
                # Who is named in both lists is not committed
                right = sorted(asked & set(committed) - set(wrong))
                values = {"answered": True, "committed": json.dumps(right), "failed": json.dumps(wrong)}
                connection.execute(update(schema.transactions).where(this).values(values))
            return True

    def open(self, job_id: str, destination: str) -> tuple[Transaction, ...]:
        """See ``CommitmentLog.open``."""
        query = (
            select(schema.transactions)
            .where(_ASKED.job_id == job_id, _ASKED.destination == destination, _ASKED.closed.is_(False))
            .order_by(_ASKED.requested_at, _ASKED.transaction_uid)
        )
        with self._database.read() as connection:
            return tuple(_transaction(row) for row in connection.execute(query))


class CommitmentRequestTable:
    """The ``CommitmentRequests``. Thread-safe; every call is one transaction of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, request: CommitmentRequest, *, due_at: datetime) -> CommitmentRequest:
        """See ``CommitmentRequests.add``."""
        refs = json.dumps([(item.sop_class_uid, item.sop_instance_uid) for item in request.references])
        first = and_(
            _HEARD.ae_title == request.ae_title,
            _HEARD.transaction_uid == request.transaction_uid,
            _HEARD.duplicate.is_(False),
        )
        forgotten = and_(_HEARD.due_at.is_(None), _HEARD.received_at < request.received_at - _REMEMBERED)
        with self._database.write() as connection:
            connection.execute(delete(schema.commitment_requests).where(forgotten))
            before = connection.execute(select(_HEARD.refs).where(first)).scalar()
            row = {
                "ae_title": request.ae_title,
                "transaction_uid": request.transaction_uid,
                "duplicate": before not in (None, refs),
                "called_ae_title": request.called_ae_title,
                "refs": refs,
                "received_at": request.received_at,
                "attempts": 0,
                "due_at": due_at,
            }
            statement = self._database.insert(schema.commitment_requests).values(row)
            key = [_HEARD.ae_title, _HEARD.transaction_uid, _HEARD.duplicate]
            connection.execute(statement.on_conflict_do_update(index_elements=key, set_=row))
        return replace(request, duplicate=bool(row["duplicate"]), attempts=0)

    def claim(self, now: datetime, *, lease: timedelta) -> CommitmentRequest | None:
        """See ``CommitmentRequests.claim``."""
        query = select(schema.commitment_requests).where(_HEARD.due_at <= now).order_by(_HEARD.due_at).limit(1)
        with self._database.write() as connection:
            row = connection.execute(query.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            request = replace(_request(row), attempts=row.attempts + 1)
            values = {"due_at": now + lease, "attempts": request.attempts}
            connection.execute(update(schema.commitment_requests).where(_this(request)).values(values))
        return request

    def put_off(self, request: CommitmentRequest, due_at: datetime) -> bool:
        """See ``CommitmentRequests.put_off``."""
        owed = and_(_this(request), _HEARD.due_at.is_not(None), _HEARD.attempts == request.attempts)
        statement = update(schema.commitment_requests).where(owed).values(due_at=due_at)
        with self._database.write() as connection:
            return connection.execute(statement.returning(_HEARD.attempts)).first() is not None

    def done(self, request: CommitmentRequest) -> None:
        """See ``CommitmentRequests.done``."""
        with self._database.write() as connection:
            connection.execute(update(schema.commitment_requests).where(_this(request)).values(due_at=None))


def _this(request: CommitmentRequest) -> ColumnElement[bool]:
    return and_(
        _HEARD.ae_title == request.ae_title,
        _HEARD.transaction_uid == request.transaction_uid,
        _HEARD.duplicate.is_(request.duplicate),
    )


def _transaction(row: AnyRow) -> Transaction:
    return Transaction(
        transaction_uid=row.transaction_uid,
        job_id=row.job_id,
        destination=row.destination,
        sop_instance_uids=frozenset(json.loads(row.sop_instance_uids)),
        requested_at=row.requested_at,
        taken=row.taken,
        answered=row.answered,
        committed=frozenset(json.loads(row.committed)),
        failed=json.loads(row.failed),
    )


def _request(row: AnyRow) -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid=row.transaction_uid,
        ae_title=row.ae_title,
        called_ae_title=row.called_ae_title,
        references=tuple(Reference(sop_class_uid=cls, sop_instance_uid=uid) for cls, uid in json.loads(row.refs)),
        received_at=row.received_at,
        duplicate=row.duplicate,
        attempts=row.attempts,
    )
