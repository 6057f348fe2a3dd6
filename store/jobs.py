"""The record of every job: ``JobLog`` on the index's tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select, update

from domain.errors import ClaimLost
from domain.job import Delivery, DeliveryState, Job, JobState, ResultObject
from store import schema
from store.database import AnyRow, Database

_JOBS = schema.jobs.c
_OBJECTS = schema.objects.c
_DELIVERIES = schema.deliveries.c
_CLAIMS = schema.claims.c


class JobTable:
    """The ``JobLog``. Thread-safe; every call is one transaction."""

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root
        self._database = database
        self._claim: ContextVar[tuple[str, str, int] | None] = ContextVar("claim", default=None)

    @contextmanager
    def claiming(self, job_id: str, part: str) -> Iterator[int]:
        """See ``JobLog.claiming``."""
        statement = (
            self._database.insert(schema.claims)
            .values(job_id=job_id, part=part, number=1)
            .on_conflict_do_update(index_elements=[_CLAIMS.job_id, _CLAIMS.part], set_={"number": _CLAIMS.number + 1})
        )
        with self._database.write() as connection:
            number = int(connection.execute(statement.returning(_CLAIMS.number)).scalar_one())
        before = self._claim.set((job_id, part, number))
        try:
            yield number
        finally:
            self._claim.reset(before)

    def confirm_claim(self) -> None:
        """See ``JobLog.confirm_claim``."""
        with self._database.read() as connection:
            self._check_claim(connection)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """Open a transaction that holds the row of the claim: nobody takes the part over before it has ended."""
        with self._database.write() as connection:
            self._check_claim(connection)
            yield connection

    def _check_claim(self, connection: Connection) -> None:
        claim = self._claim.get()
        if claim is None:
            return
        job_id, part, number = claim
        query = select(_CLAIMS.number).where(_CLAIMS.job_id == job_id, _CLAIMS.part == part)
        if connection.execute(query.with_for_update()).scalar() != number:
            raise ClaimLost

    def add(self, job: Job) -> bool:
        """See ``JobLog.add``."""
        statement = self._database.insert(schema.jobs).values(_job_row(job)).on_conflict_do_nothing()
        with self._write() as connection:
            return connection.execute(statement.returning(_JOBS.job_id)).first() is not None

    def get(self, job_id: str) -> Job | None:
        """Return the job with this id, if there is one."""
        with self._database.read() as connection:
            row = connection.execute(select(schema.jobs).where(_JOBS.job_id == job_id)).first()
        return None if row is None else _job(row)

    def find(
        self,
        *,
        series_instance_uid: str | None = None,
        study_instance_uid: str | None = None,
        state: JobState | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """See ``JobLog.find``."""
        query = select(schema.jobs).order_by(_JOBS.seq.desc()).limit(limit)
        wanted = (
            (_JOBS.series_instance_uid, series_instance_uid), (_JOBS.study_instance_uid, study_instance_uid),
            (_JOBS.state, state and state.value),
        )  # fmt: skip
        for column, value in wanted:
            if value is not None:
                query = query.where(column == value)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def update(
        self,
        job_id: str,
        *,
        state: JobState | None = None,
        code: str | None = None,
        reason: str | None = None,
        attempt: int | None = None,
        timings_s: Mapping[str, float] | None = None,
        summary: Sequence[Mapping[str, object]] | None = None,
    ) -> None:
        """See ``JobLog.update``."""
        given = {"state": state and state.value, "code": code, "reason": reason, "attempt": attempt}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        changes["updated_at"] = datetime.now(UTC)
        if summary is not None:
            changes["summary"] = json.dumps([dict(entry) for entry in summary])
        statement = update(schema.jobs).where(_JOBS.job_id == job_id)
        if state is not None and not state.is_final and attempt is None:
            statement = statement.where(_JOBS.state.not_in([ended.value for ended in JobState if ended.is_final]))
        with self._write() as connection:
            if timings_s:
                changes["timings_s"] = _merged_timings(connection, job_id, timings_s)
            connection.execute(statement.values(changes))

    def remove(self, job_id: str) -> None:
        """See ``JobLog.remove``."""
        with self._write() as connection:
            for table in (schema.transactions, schema.deliveries, schema.objects, schema.claims, schema.jobs):
                connection.execute(delete(table).where(table.c.job_id == job_id))

    def put_objects(self, objects: Sequence[ResultObject]) -> None:
        """Insert or replace what jobs wrote, in this order."""
        rows = [_object_row(item, position, self._root) for position, item in enumerate(objects)]
        with self._write() as connection:
            for row in rows:
                statement = self._database.insert(schema.objects).values(row)
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=[_OBJECTS.job_id, _OBJECTS.sop_instance_uid], set_=row
                    )
                )

    def objects(self, job_id: str) -> tuple[ResultObject, ...]:
        """Return what the job wrote, in the order in which it was put."""
        query = select(schema.objects).where(_OBJECTS.job_id == job_id).order_by(_OBJECTS.position)
        with self._database.read() as connection:
            return tuple(self._object(row) for row in connection.execute(query))

    def _object(self, row: AnyRow) -> ResultObject:
        return ResultObject(
            job_id=row.job_id,
            kind=row.kind,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
            path=self._root / row.path,
            variant=row.variant,
            needs=row.needs,
            fallback=row.fallback,
            destinations=None if row.destinations is None else tuple(json.loads(row.destinations)),
        )

    def set_delivery(
        self,
        job_id: str,
        destination: str,
        sop_instance_uid: str,
        *,
        state: DeliveryState,
        reason: str = "",
        attempted: bool = True,
    ) -> None:
        """See ``JobLog.set_delivery``."""
        attempts = 0 if not attempted or (state is DeliveryState.QUEUED and not reason) else 1
        row = {
            "job_id": job_id,
            "destination": destination,
            "sop_instance_uid": sop_instance_uid,
            "state": state.value,
            "attempts": attempts,
            "reason": reason,
            "updated_at": datetime.now(UTC),
        }
        changed = {name: row[name] for name in ("state", "reason", "updated_at")}
        statement = (
            self._database.insert(schema.deliveries)
            .values(row)
            .on_conflict_do_update(
                index_elements=[_DELIVERIES.job_id, _DELIVERIES.destination, _DELIVERIES.sop_instance_uid],
                set_={**changed, "attempts": _DELIVERIES.attempts + attempts},
            )
        )
        with self._write() as connection:
            connection.execute(statement)

    def replace_deliveries(
        self, job_id: str, destination: str, *, replaced: Sequence[str], by: Sequence[str], reason: str
    ) -> None:
        """See ``JobLog.replace_deliveries``."""
        here = (_DELIVERIES.job_id == job_id, _DELIVERIES.destination == destination)
        now = datetime.now(UTC)
        row = {"job_id": job_id, "destination": destination, "attempts": 0, "reason": "", "updated_at": now}
        with self._write() as connection:
            for uid in by:
                queued = {**row, "sop_instance_uid": uid, "state": DeliveryState.QUEUED.value}
                statement = self._database.insert(schema.deliveries).values(queued)
                again = statement.on_conflict_do_update(
                    index_elements=[_DELIVERIES.job_id, _DELIVERIES.destination, _DELIVERIES.sop_instance_uid],
                    set_={name: queued[name] for name in ("state", "reason", "updated_at")},
                    where=_DELIVERIES.state == DeliveryState.REPLACED.value,
                )
                connection.execute(again)
            changed = {"state": DeliveryState.REPLACED.value, "reason": reason, "updated_at": now}
            for uid in replaced:
                this = update(schema.deliveries).where(*here, _DELIVERIES.sop_instance_uid == uid)
                connection.execute(this.values(changed))

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Return how far the job's objects are at each destination."""
        query = select(schema.deliveries).where(_DELIVERIES.job_id == job_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_DELIVERIES.destination, _DELIVERIES.sop_instance_uid))
            return tuple(_delivery(row) for row in rows)


def _merged_timings(connection: Connection, job_id: str, timings_s: Mapping[str, float]) -> str:
    query = select(_JOBS.timings_s).where(_JOBS.job_id == job_id).with_for_update()
    before = connection.execute(query).scalar()
    return json.dumps({**json.loads(before or "{}"), **timings_s})


def _images_as_json(job: Job) -> str:
    """Return the images of a job: a list of UIDs, or with frames an object that has both."""
    if not job.frame_numbers:
        return json.dumps(job.sop_instance_uids)
    return json.dumps({"instances": job.sop_instance_uids, "frames": job.frame_numbers})


def _images_from_json(text: str) -> dict[str, Any]:
    said = json.loads(text)
    if isinstance(said, list):
        return {"sop_instance_uids": tuple(said)}
    return {"sop_instance_uids": tuple(said["instances"]), "frame_numbers": tuple(said["frames"])}


def _job_row(job: Job) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "job_id": job.job_id,
        "series_instance_uid": job.series_instance_uid,
        "study_instance_uid": job.study_instance_uid,
        "stack": job.stack,
        "sop_instance_uids": _images_as_json(job),
        "route": job.route,
        "engine": job.engine,
        "engine_version": job.engine_version,
        "destinations": json.dumps(job.destinations),
        "priority": job.priority,
        "generation": job.generation,
        "predecessor": job.predecessor,
        "drawing": job.drawing,
        "state": job.state.value,
        "code": job.code,
        "reason": job.reason,
        "attempt": job.attempt,
        "timings_s": json.dumps(job.timings_s),
        "summary": json.dumps(job.summary),
        "created_at": job.created_at or now,
        "updated_at": job.updated_at or now,
    }


def _job(row: AnyRow) -> Job:
    return Job(
        job_id=row.job_id,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        stack=row.stack,
        **_images_from_json(row.sop_instance_uids),
        route=row.route,
        engine=row.engine,
        engine_version=row.engine_version,
        destinations=tuple(json.loads(row.destinations)),
        priority=row.priority,
        generation=row.generation,
        predecessor=row.predecessor,
        drawing=row.drawing,
        state=JobState(row.state),
        code=row.code,
        reason=row.reason,
        attempt=row.attempt,
        timings_s=json.loads(row.timings_s),
        summary=json.loads(row.summary),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _object_row(item: ResultObject, position: int, root: Path) -> dict[str, Any]:
    path = item.path.resolve()
    return {
        "job_id": item.job_id,
        "sop_instance_uid": item.sop_instance_uid,
        "position": position,
        "kind": item.kind,
        "sop_class_uid": item.sop_class_uid,
        "series_instance_uid": item.series_instance_uid,
        # Relative inside the store, which can be moved.
        "path": str(path.relative_to(root) if path.is_relative_to(root) else path),
        "variant": item.variant,
        "needs": item.needs,
        "fallback": item.fallback,
        "destinations": None if item.destinations is None else json.dumps(item.destinations),
    }


def _delivery(row: AnyRow) -> Delivery:
    return Delivery(
        job_id=row.job_id,
        destination=row.destination,
        sop_instance_uid=row.sop_instance_uid,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        reason=row.reason,
        updated_at=row.updated_at,
    )
