"""Keeps instances: bytes, name and index row on disk before anybody is told that they are safe."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from domain.errors import ConflictingInstance, StorageError
from domain.instance import Disposition, Outcome, Reception
from domain.ports import Candidate
from store import schema
from store.database import AnyRow, Database, translated
from store.entries import Entry, entry_of, holds, outcome_of, place, quarantine_row, row_of
from store.files import INSTANCES, QUARANTINE, Files, StagedFile
from store.groups import Groups
from store.secret import installation_secret
from store.series import CHANGED, LOCKED, SeriesChange, created, finish_removals

log = logging.getLogger(__name__)

RECOVERED = "recovered"
"""Transport of an instance whose file was found without a row."""
_TRIES = 3
_BATCH = 500
_CONFLICT = "conflict"

# Made once: to build a statement takes longer than to execute it.
_INSTANCES, _ASIDE = schema.instances.c, schema.quarantine.c
_ABOUT = select(
    _INSTANCES.sop_instance_uid,
    _INSTANCES.series_instance_uid,
    _INSTANCES.digest,
    _INSTANCES.path,
    _INSTANCES.size,
    _INSTANCES.revision,
)
_KNOWN = _ABOUT.where(_INSTANCES.sop_instance_uid.in_(bindparam("uids", expanding=True)))
_FEW = 8
"""Groups of up to so many UIDs, as they come from peers that send one instance after another, are looked up by one
prepared statement, the others by one that is written for their number."""
_FEW_KNOWN = _ABOUT.where(_INSTANCES.sop_instance_uid.in_([bindparam(f"uid{number}") for number in range(_FEW)]))
_QUARANTINED = select(_ASIDE.path).where(
    _ASIDE.sop_instance_uid == bindparam("uid"), _ASIDE.digest == bindparam("digest")
)
_INSERT = insert(schema.instances).inline()  # nobody asks which number the row got


class _Statements:
    """What is executed for every group of instances."""

    def __init__(self, database: Database) -> None:
        self.lock_series = database.prepared(LOCKED)
        self.find_few = database.prepared(_FEW_KNOWN)
        self.insert = database.prepared(_INSERT, given=[column.key for column in _INSTANCES if column.key != "seq"])
        self.change_series = database.prepared(CHANGED)


class Instances:
    """The ``InstanceStore`` on files and an index."""

    def __init__(self, files: Files, database: Database) -> None:
        self._files = files
        self._database = database
        self._statements = _Statements(database)
        self._groups = Groups[Entry](self._keep)
        self._secret = b""

    def stage(self) -> StagedFile:
        """See ``InstanceSink.stage``."""
        return self._files.stage()

    def keep(self, candidates: Sequence[Candidate], reception: Reception) -> list[Outcome]:
        """See ``InstanceStore.keep``."""
        try:
            with translated():
                self._sync(candidates)
                entries = [entry_of(candidate, reception) for candidate in candidates]
                self._name_patients(entries)
            self._index(entries)
        finally:
            for candidate in candidates:
                candidate.staged.discard()
        return [entry.decided for entry in entries]

    def adopt(self, entry: Entry) -> None:
        """Index a complete file that lies in the store without a row, as if it came now."""
        with translated():
            self._name_patients([entry])
            self._files.sync([entry.path])
        self._index([entry])

    def _index(self, entries: Sequence[Entry]) -> None:
        """Write the rows; what is there already is read again, when nobody waits for the index."""
        undecided = list(entries)
        while undecided:
            self._groups.run(undecided)
            again = []
            for entry in undecided:
                if entry.twin is not None and holds(entry.twin, entry.digest):
                    _remove([entry.path])
                elif entry.twin is not None:
                    entry.damaged = entry.twin
                    again.append(entry)
            undecided = again  # another process may have replaced the twin meanwhile: that one is looked at then
        replaced = [entry.damaged for entry in entries if entry.damaged is not None and entry.owned]
        if replaced:
            with suppress(StorageError):  # the next start removes them
                finish_removals(self._files, self._database, [self._files.relative(path) for path in replaced])

    def _name_patients(self, entries: Sequence[Entry]) -> None:
        """Key who the patients are: from the index alone nobody can look up whose images are here."""
        self._secret = self._secret or installation_secret(self._files.root)
        for entry in entries:
            who = entry.header.patient
            entry.patient_key = who and hmac.digest(self._secret, who.encode(), "sha256").hex()

    def _sync(self, candidates: Sequence[Candidate]) -> None:
        if len(candidates) > 1:  # for one alone, another thread would only cost time
            for candidate in candidates:
                candidate.staged.finish()
        for candidate in candidates:
            if isinstance(candidate.staged, StagedFile):
                candidate.staged.sync()
            else:
                self._files.sync([candidate.staged.path])

    def _keep(self, entries: Sequence[Entry]) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self._try_to_keep(entries)
            except IntegrityError as error:
                # Another process inserted one of the UIDs after we looked; look again.
                if not left:
                    self._give_up(entries, committing=False)
                    raise StorageError("The index is too busy with the same instances") from error
            else:
                return

    def _try_to_keep(self, entries: Sequence[Entry]) -> None:
        committing = False
        try:
            with translated():
                self._place_ahead(entries)
                with self._database.write() as connection:
                    keeping = _Keeping(connection, self._files, self._statements)
                    keeping.decide(entries)
                    committing = True
            _remove(entry.path for entry in entries if not entry.owned and entry.twin is None)
        except IntegrityError:
            raise
        except Exception:
            self._give_up(entries, committing=committing)
            raise

    def _place_ahead(self, entries: Sequence[Entry]) -> None:
        """Move all to where new instances lie, and sync the folders, before the index is locked.

        Most are new, so nobody is asked before; what turns out to be a re-send is removed, and a conflict moved on.
        """
        self._files.sync_folders({place(self._files, entry, INSTANCES) for entry in entries})

    def _give_up(self, entries: Sequence[Entry], *, committing: bool) -> None:
        """Leave nothing half-stored, but no row without its file: a broken commit may have happened all the same."""
        kept: set[Path] = set()
        if committing:
            try:
                with self._database.read() as connection:
                    rows = _known(connection, {entry.uid for entry in entries}).values()
                    kept = {self._files.root / row.path for row in rows}
            except StorageError:
                log.warning("index unreachable after a commit that failed; files are left for the next start")
                return
        for entry in entries:
            if entry.path not in kept and not entry.found:
                entry.path.unlink(missing_ok=True)


class _Keeping:
    """The one transaction that decides what becomes of a group; nothing here is final before it commits."""

    def __init__(self, connection: Connection, files: Files, statements: _Statements) -> None:
        self._connection = connection
        self._files = files
        self._statements = statements
        self._folders: set[Path] = set()
        self._changes: dict[str, SeriesChange] = {}
        self._rows: list[dict[str, Any]] = []
        self._refused: list[dict[str, Any]] = []
        self._refused_now: set[tuple[str, str]] = set()

    def decide(self, entries: Sequence[Entry]) -> None:
        """Set the outcome of every entry and write the rows."""
        changes = self._changes
        for entry in sorted(entries, key=lambda entry: entry.header.series_instance_uid):
            uid = entry.header.series_instance_uid
            if uid not in changes:
                # Locks the series' row, always in the same order: revisions grow in the order of the commits.
                changes[uid] = self._begun(entry, uid)
        known = self._known(sorted({entry.uid for entry in entries}))
        for entry in entries:
            entry.owned, entry.twin = False, None
            row = known.get(entry.uid)
            if row is None:
                known[entry.uid] = self._store(entry)
            elif row.digest == entry.digest:
                known[entry.uid] = self._duplicate(entry, row)
            else:
                self._conflict(entry, row)
        self._files.sync_folders(self._folders)
        self._flush()
        if self._refused:
            self._connection.execute(insert(schema.quarantine), self._refused)
        if changed := [change.values for change in changes.values() if change.changed]:
            self._statements.change_series.run(self._connection, changed)

    def _begun(self, entry: Entry, series_instance_uid: str) -> SeriesChange:
        """Lock a series' row until the transaction ends, creating it where needed."""
        study = entry.header.study_instance_uid
        rows = self._statements.lock_series.rows(self._connection, {"uid": series_instance_uid})
        row = rows[0] if rows else created(self._connection, series_instance_uid, study)
        return SeriesChange.of(row, series_instance_uid, study)

    def _known(self, uids: Sequence[str]) -> dict[str, Any]:
        if len(uids) > _FEW:
            return dict(_known(self._connection, uids))
        asked = {f"uid{number}": uids[min(number, len(uids) - 1)] for number in range(_FEW)}
        return {row.sop_instance_uid: row for row in self._statements.find_few.rows(self._connection, asked)}

    def _flush(self) -> None:
        """Insert what has gathered: a request of thousands of instances does not hold all its rows in memory."""
        if self._rows:
            self._statements.insert.run(self._connection, self._rows)
            self._rows.clear()

    def _move(self, entry: Entry, area: str) -> str:
        before = entry.path
        folder = place(self._files, entry, area)
        if entry.path != before:
            self._folders.add(folder)
        entry.owned = True
        return self._files.relative(entry.path)

    def _store(self, entry: Entry) -> Entry:
        change = self._changes[entry.header.series_instance_uid]
        self._rows.append(row_of(entry, self._move(entry, INSTANCES), revision=change.stored(entry)))
        if len(self._rows) == _BATCH:
            self._flush()
        entry.outcome = outcome_of(entry, Disposition.STORED)
        return entry

    def _duplicate(self, entry: Entry, row: AnyRow | Entry) -> AnyRow | Entry:
        entry.outcome = outcome_of(entry, Disposition.DUPLICATE)
        self._changes[entry.header.series_instance_uid].repeated(entry)
        if isinstance(row, Entry):
            return row
        first = self._files.root / row.path
        entry.owned = first == entry.path
        if entry.owned:
            return row
        if first != entry.damaged and first.exists() and first.stat().st_size == row.size:
            entry.twin = first
            return row
        # The first copy's file is gone, cut off or changed (a disk rots, a backup is put back): this takes its place.
        entry.damaged = first
        values = row_of(entry, self._move(entry, INSTANCES), revision=row.revision)
        self._connection.execute(
            update(schema.instances).where(schema.instances.c.sop_instance_uid == entry.uid).values(values)
        )
        # Found without a row after a crash it would be a copy with other content
        self._connection.execute(insert(schema.removals), {"path": row.path})
        log.warning("missing or damaged file of an instance replaced by its re-send")
        return entry

    def _conflict(self, entry: Entry, row: AnyRow | Entry) -> None:
        entry.outcome = outcome_of(entry, Disposition.REFUSED, ConflictingInstance())
        key = (entry.uid, entry.digest)
        if key in self._refused_now:
            return
        aside = _quarantined(self._connection, *key)
        if aside is not None:
            entry.owned = self._files.root / aside == entry.path
            return
        self._refused_now.add(key)
        first = row.header.series_instance_uid if isinstance(row, Entry) else row.series_instance_uid
        self._refused.append(quarantine_row(entry, self._move(entry, QUARANTINE), _CONFLICT, first))
        for uid in {entry.header.series_instance_uid, first}:
            if uid not in self._changes:
                self._changes[uid] = self._begun(entry, uid)
            self._changes[uid].refused(entry)


def _remove(paths: Iterable[Path | None]) -> None:
    for path in paths:
        if path is not None:
            with suppress(OSError):  # the next start removes it
                path.unlink(missing_ok=True)


def batches(uids: Iterable[str]) -> Iterable[list[str]]:
    """Cut a list for IN (…): databases limit the number of parameters."""
    ordered = sorted(uids)
    return (ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH))


def _known(connection: Connection, uids: Iterable[str]) -> dict[str, AnyRow]:
    return {
        row.sop_instance_uid: row for batch in batches(uids) for row in connection.execute(_KNOWN, {"uids": batch})
    }


def _quarantined(connection: Connection, uid: str, digest: str) -> str | None:
    return connection.execute(_QUARANTINED, {"uid": uid, "digest": digest}).scalar()
