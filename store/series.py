"""What has arrived: the ``SeriesIndex``, and how a commit changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from domain.instance import StoredInstance
from domain.series import SeriesArrival
from store import schema
from store.database import AnyRow, Database, translated
from store.files import Files
from volume.header_json import header_from_json

if TYPE_CHECKING:
    from store.entries import Entry

_SERIES = schema.series.c
_INSTANCES = schema.instances.c
_BATCH = 500
# Made once: to build a statement takes longer than to execute it.
LOCKED = select(schema.series).where(_SERIES.series_instance_uid == bindparam("uid")).with_for_update()
_STORED = (_INSTANCES.header, _INSTANCES.path, _INSTANCES.received_at, _INSTANCES.digest)
"""What a ``StoredInstance`` is made of."""
_CHANGED = ("study_instance_uid", "revision", "instances", "conflicts", "related", "sender")
_TIMES = ("first_arrival_at", "last_arrival_at")
CHANGED = (
    update(schema.series)
    .where(_SERIES.series_instance_uid == bindparam("key"))
    .values({name: bindparam(name) for name in (*_CHANGED, *_TIMES)})
)


@dataclass(slots=True)
class SeriesChange:
    """What one transaction does to one series, whose row it has locked."""

    series_instance_uid: str
    study_instance_uid: str
    revision: int
    instances: int
    conflicts: int
    related: int | None
    sender: str
    first_arrival_at: datetime | None
    last_arrival_at: datetime | None
    changed: bool = False

    @classmethod
    def of(cls, row: Any, series_instance_uid: str, study_instance_uid: str) -> SeriesChange:
        """Begin with the series' row, which the transaction has locked."""
        return cls(
            series_instance_uid=series_instance_uid,
            study_instance_uid=row.study_instance_uid or study_instance_uid,
            revision=row.revision,
            instances=row.instances,
            conflicts=row.conflicts,
            related=row.related,
            sender=row.sender,
            first_arrival_at=row.first_arrival_at,
            last_arrival_at=row.last_arrival_at,
        )

    @property
    def values(self) -> dict[str, Any]:
        """What ``CHANGED`` writes."""
        return {"key": self.series_instance_uid, **{name: getattr(self, name) for name in (*_CHANGED, *_TIMES)}}

    def stored(self, entry: Entry) -> int:
        """Count a stored instance; return the revision it makes."""
        self.instances += 1
        related = entry.header.images_in_series
        if related is not None and related > 0:
            self.related = max(self.related or 0, min(related, 1 << 30))
        return self._arrived(entry)

    def refused(self, entry: Entry) -> None:
        """Count an instance that went to quarantine."""
        self.conflicts += 1
        self._arrived(entry)

    def repeated(self, entry: Entry) -> None:
        """Note a re-send: it changes nothing, but may tell who sent what was recovered after a crash."""
        if not self.sender and entry.reception.sender:
            self.sender, self.changed = entry.reception.sender[:64], True

    def _arrived(self, entry: Entry) -> int:
        at = entry.reception.received_at
        self.changed = True
        self.revision += 1
        self.sender = entry.reception.sender[:64] or self.sender
        self.first_arrival_at = min(self.first_arrival_at or at, at)
        self.last_arrival_at = max(self.last_arrival_at or at, at)
        return self.revision


def locked(connection: Connection, series_instance_uid: str) -> AnyRow | None:
    """Return the series' row, locked until the transaction ends (SQLite locks everything anyway)."""
    return connection.execute(LOCKED, {"uid": series_instance_uid}).first()


def created(connection: Connection, series_instance_uid: str, study_instance_uid: str) -> AnyRow:
    """Insert a row for a series that has none; return it, locked."""
    connection.execute(
        insert(schema.series),
        {
            "series_instance_uid": series_instance_uid,
            "study_instance_uid": study_instance_uid,
            "instances": 0,
            "conflicts": 0,
            "revision": 0,
            "frozen_revision": 0,
            "sender": "",
        },
    )
    row = locked(connection, series_instance_uid)
    if row is None:
        raise LookupError("a row that was just inserted is gone")
    return row


class SeriesTable:
    """The ``SeriesIndex`` on the index's tables."""

    def __init__(self, files: Files, database: Database) -> None:
        self._files = files
        self._database = database

    def arrivals(self) -> list[SeriesArrival]:
        """See ``SeriesIndex.arrivals``."""
        query = (
            select(schema.series)
            .where(_SERIES.revision > _SERIES.frozen_revision)
            .order_by(_SERIES.first_arrival_at, _SERIES.series_instance_uid)
        )
        with self._database.read() as connection:
            return [_arrival(row) for row in connection.execute(query)]

    def freeze(self, series_instance_uid: str, revision: int) -> None:
        """See ``SeriesIndex.freeze``."""
        statement = (
            update(schema.series)
            .where(_SERIES.series_instance_uid == series_instance_uid, _SERIES.frozen_revision < revision)
            .values(frozen_revision=revision)
        )
        with self._database.write() as connection:
            connection.execute(statement)

    def thaw(self, series_instance_uid: str) -> None:
        """See ``SeriesIndex.thaw``."""
        statement = (
            update(schema.series)
            .where(_SERIES.series_instance_uid == series_instance_uid)
            # A revision of its own: what was planned at the former one happened, and would not happen again.
            .values(frozen_revision=0, revision=_SERIES.revision + 1)
        )
        with self._database.write() as connection:
            connection.execute(statement)

    def expect(self, series_instance_uid: str, instances: int) -> None:
        """See ``SeriesIndex.expect``."""
        row = {
            "series_instance_uid": series_instance_uid,
            "study_instance_uid": "",
            "instances": 0,
            "conflicts": 0,
            "revision": 0,
            "frozen_revision": 0,
            "announced": instances,
            "sender": "",
        }
        statement = self._database.insert(schema.series).values(row)
        with self._database.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[_SERIES.series_instance_uid], set_={"announced": instances}
                )
            )

    def instances(self, series_instance_uid: str, revision: int | None = None) -> tuple[StoredInstance, ...]:
        """See ``SeriesIndex.instances``."""
        query = select(*_STORED).where(_INSTANCES.series_instance_uid == series_instance_uid)
        if revision is not None:
            query = query.where(_INSTANCES.revision <= revision)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_INSTANCES.revision)).all()
        return tuple(self._stored(row) for row in rows)

    def instances_by_uid(self, sop_instance_uids: Sequence[str]) -> tuple[StoredInstance, ...]:
        """See ``SeriesIndex.instances_by_uid``."""
        query = select(_INSTANCES.sop_instance_uid, *_STORED)
        found: dict[str, StoredInstance] = {}
        with self._database.read() as connection:
            for start in range(0, len(sop_instance_uids), _BATCH):
                batch = sop_instance_uids[start : start + _BATCH]
                for row in connection.execute(query.where(_INSTANCES.sop_instance_uid.in_(batch))):
                    found[row.sop_instance_uid] = self._stored(row)
        return tuple(found[uid] for uid in sop_instance_uids if uid in found)

    def study(self, study_instance_uid: str) -> tuple[StoredInstance, ...]:
        """See ``SeriesIndex.study``."""
        query = select(*_STORED).where(_INSTANCES.study_instance_uid == study_instance_uid)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_INSTANCES.seq)).all()
        return tuple(self._stored(row) for row in rows)

    def study_arrivals(self, study_instance_uid: str) -> list[SeriesArrival]:
        """See ``SeriesIndex.study_arrivals``."""
        query = select(schema.series).where(_SERIES.study_instance_uid == study_instance_uid)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_SERIES.series_instance_uid)).all()
        return [_arrival(row) for row in rows if row.first_arrival_at is not None]

    def other_studies(self, study_instance_uid: str) -> tuple[StoredInstance, ...] | None:
        """See ``PatientHistory.other_studies``."""
        with self._database.read() as connection:
            mine = select(_INSTANCES.patient_key).where(_INSTANCES.study_instance_uid == study_instance_uid)
            keys = set(connection.execute(mine.distinct()).scalars())
            if len(keys) != 1 or None in keys:
                return None
            same = select(_INSTANCES.study_instance_uid).where(_INSTANCES.patient_key.in_(keys)).distinct()
            # Of a study whose instances name several patients, or leave one out, nobody can say whose it is.
            doubtful = (
                select(_INSTANCES.study_instance_uid)
                .where(_INSTANCES.study_instance_uid.in_(same))
                .where(_INSTANCES.patient_key.not_in(keys) | _INSTANCES.patient_key.is_(None))
            )
            first_of_series = (
                select(func.min(_INSTANCES.seq))
                .where(_INSTANCES.study_instance_uid.in_(same))
                .where(_INSTANCES.study_instance_uid.not_in(doubtful))
                .where(_INSTANCES.study_instance_uid != study_instance_uid)
                .group_by(_INSTANCES.series_instance_uid)
            )
            query = select(*_STORED)
            found = query.where(_INSTANCES.seq.in_(first_of_series)).order_by(_INSTANCES.seq)
            return tuple(self._stored(row) for row in connection.execute(found))

    def conflicts(self, series_instance_uid: str) -> int:
        """See ``SeriesIndex.conflicts``."""
        query = select(_SERIES.conflicts).where(_SERIES.series_instance_uid == series_instance_uid)
        with self._database.read() as connection:
            return connection.execute(query).scalar() or 0

    def sender(self, series_instance_uid: str) -> str | None:
        """See ``SeriesIndex.sender``."""
        query = select(_SERIES.sender).where(_SERIES.series_instance_uid == series_instance_uid)
        with self._database.read() as connection:
            return connection.execute(query).scalar() or None

    def series_in_study(self, study_instance_uid: str) -> list[str]:
        """See ``SeriesIndex.series_in_study``."""
        query = select(_SERIES.series_instance_uid).where(
            _SERIES.series_instance_uid.in_(
                select(_INSTANCES.series_instance_uid).where(_INSTANCES.study_instance_uid == study_instance_uid)
            )
        )
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(_SERIES.first_arrival_at)).scalars())

    def series_older_than(self, moment: datetime) -> list[str]:
        """See ``SeriesIndex.series_older_than``."""
        query = select(_SERIES.series_instance_uid).where(_SERIES.last_arrival_at < moment)
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(_SERIES.last_arrival_at)).scalars())

    def remove_series(self, series_instance_uid: str) -> int:
        """See ``SeriesIndex.remove_series``."""
        mine = _INSTANCES.series_instance_uid == series_instance_uid
        aside = schema.quarantine.c.series_instance_uid == series_instance_uid
        with self._database.write() as connection:
            locked(connection, series_instance_uid)
            kept = list(connection.execute(select(_INSTANCES.path).where(mine)).scalars())
            refused = connection.execute(select(schema.quarantine.c.path).where(aside)).scalars()
            paths = [*kept, *refused]
            if paths:
                connection.execute(insert(schema.removals), [{"path": path} for path in paths])
            connection.execute(delete(schema.instances).where(mine))
            connection.execute(delete(schema.quarantine).where(aside))
            connection.execute(delete(schema.series).where(_SERIES.series_instance_uid == series_instance_uid))
        finish_removals(self._files, self._database, paths)
        return len(kept)

    def _stored(self, row: AnyRow) -> StoredInstance:
        return StoredInstance(
            header=header_from_json(row.header),
            path=self._files.root / row.path,
            received_at=row.received_at,
            digest=row.digest,
        )


def finish_removals(files: Files, database: Database, paths: Sequence[str]) -> None:
    """Remove files whose rows are gone, and then the note that they must go."""
    with translated():
        for path in paths:
            (files.root / path).unlink(missing_ok=True)
        files.sync_folders({(files.root / path).parent for path in paths})
    with database.write() as connection:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            connection.execute(delete(schema.removals).where(schema.removals.c.path.in_(batch)))


def _arrival(row: AnyRow) -> SeriesArrival:
    return SeriesArrival(
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        instances=row.instances,
        # What the sender said now counts more than what the modality wrote.
        expected=row.announced if row.announced is not None else row.related,
        first_arrival_at=row.first_arrival_at,
        last_arrival_at=row.last_arrival_at,
        revision=row.revision,
        frozen_revision=row.frozen_revision,
    )
