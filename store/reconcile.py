"""Brings files and index into agreement at start, whatever a crash left."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert, select

from domain.errors import MalformedInstance
from domain.instance import Disposition, Reception
from store import schema
from store.database import Database, translated
from store.entries import Entry
from store.files import INSTANCES, QUARANTINE, Files
from store.instances import RECOVERED, Instances
from store.series import finish_removals
from volume.digest import inspect

log = logging.getLogger(__name__)

_UNREADABLE = "unreadable"


def reconcile(files: Files, database: Database, instances: Instances) -> dict[str, int]:
    """Remove what is left of dead writers and of removals, and index complete files that have no row.

    Safe beside running writers: what they are about to index is theirs, whoever inserts the row.

    Returns
    -------
    dict
        ``temporary``: files of dead writers, removed. ``removed``: files whose removal was interrupted.
        ``recovered``: files that got the row they lacked. ``superfluous``: second copies, removed.
        ``unreadable``: files without a row that cannot be read, moved to quarantine. ``missing``: rows whose file is
        gone; they stay, and a re-send of the instance brings the file back.
    """
    with translated():
        counts = {"temporary": files.remove_stale(), "removed": _finish(files, database)}
        with database.read() as connection:
            indexed = set(connection.execute(select(schema.instances.c.path)).scalars())
            aside = set(connection.execute(select(schema.quarantine.c.path)).scalars())
        present = set(files.kept(INSTANCES))
        counts["missing"] = len(indexed - present)
        unclaimed = (present - indexed) | (set(files.kept(QUARANTINE)) - aside)
        counts |= _adopt(sorted(unclaimed), files, database, instances)
    if counts["missing"]:
        log.error("files of stored instances are gone", extra={"instances": counts["missing"]})
    return counts


def _finish(files: Files, database: Database) -> int:
    with database.read() as connection:
        paths = list(connection.execute(select(schema.removals.c.path)).scalars())
    if paths:
        finish_removals(files, database, paths)
    return len(paths)


def _adopt(paths: Sequence[str], files: Files, database: Database, instances: Instances) -> dict[str, int]:
    """Index files that were renamed into place but whose row was never committed."""
    counts = {"recovered": 0, "superfluous": 0, "unreadable": 0}
    for path in paths:
        counts[_adopted(files.root / path, files, database, instances)] += 1
    return counts


def _adopted(path: Path, files: Files, database: Database, instances: Instances) -> str:
    try:
        size, reception = path.stat().st_size, _recovered(path)
        header, digest = inspect(path)
    except FileNotFoundError:
        return "superfluous"  # a running writer's second copy, which it removed itself
    except MalformedInstance:
        _set_aside(path, size, reception, files, database)
        return _UNREADABLE
    entry = Entry(header, digest, reception, path, size, found=True)
    instances.adopt(entry)
    stored = entry.decided.disposition is Disposition.STORED
    return RECOVERED if stored or entry.owned else "superfluous"


def _recovered(path: Path) -> Reception:
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Reception(transport=RECOVERED, sender="", address="", received_at=written)


def _set_aside(path: Path, size: int, reception: Reception, files: Files, database: Database) -> None:
    target = path.rename(files.target(QUARANTINE, "", path.name))
    files.sync_folders((target.parent, path.parent))
    row = {
        "reason": _UNREADABLE,
        "path": files.relative(target),
        "size": size,
        "transport": reception.transport,
        "sender": "",
        "address": "",
        "received_at": reception.received_at,
    }
    with database.write() as connection:
        connection.execute(insert(schema.quarantine), row)
