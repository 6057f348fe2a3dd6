"""One instance on its way into the store, and the rows that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import ConflictingInstance, MalformedInstance, StorageError
from domain.instance import Disposition, Header, Outcome, Reception
from domain.ports import Candidate
from store.files import Files
from volume.digest import inspect
from volume.header_json import header_to_json


@dataclass(slots=True)
class Entry:
    """One candidate on its way: where its file is now, and what became of it."""

    header: Header
    digest: str
    reception: Reception
    path: Path
    size: int
    found: bool = False
    """The file lay in the store without a row: whatever fails, it may be the only copy."""
    outcome: Outcome | None = None
    owned: bool = False
    """An index row points to the file."""
    twin: Path | None = None
    """The file that the index has for the same dataset; this one waits until that is seen to hold it."""
    damaged: Path | None = None
    """A twin that does not hold it: this one takes its place."""
    patient_key: str | None = None

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.header.sop_instance_uid

    @property
    def decided(self) -> Outcome:
        """The outcome of a group that was written."""
        if self.outcome is None:
            raise StorageError("The instance was not written")
        return self.outcome


def entry_of(candidate: Candidate, reception: Reception) -> Entry:
    """Return a candidate's entry, whose file is where it was staged."""
    path = candidate.staged.path
    return Entry(candidate.header, candidate.digest, reception, path, path.stat().st_size)


def place(files: Files, entry: Entry, area: str) -> Path:
    """Move the entry's file into an area, unless it is there; return the folder."""
    if not files.is_in(area, entry.path):
        target = files.target(area, entry.header.series_instance_uid, entry.uid)
        entry.path = entry.path.rename(target)
    return entry.path.parent


def holds(path: Path, digest: str) -> bool:
    """Tell whether a file still holds the dataset of which intake made the digest; costs as much as taking it in."""
    try:
        return inspect(path)[1] == digest
    except (MalformedInstance, OSError):
        return False


def row_of(entry: Entry, path: str, *, revision: int) -> dict[str, Any]:
    """Return the index row of an instance."""
    header = entry.header
    return {
        "sop_instance_uid": header.sop_instance_uid,
        "series_instance_uid": header.series_instance_uid,
        "study_instance_uid": header.study_instance_uid,
        "sop_class_uid": header.sop_class_uid,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "revision": revision,
        "digest": entry.digest,
        "path": path,
        "size": entry.size,
        "header": header_to_json(header),
        "patient_key": entry.patient_key,
        **_received(entry.reception),
    }


def quarantine_row(entry: Entry, path: str, reason: str, first_series: str) -> dict[str, Any]:
    """Return the row of a file that is kept aside."""
    return {
        "reason": reason,
        "sop_instance_uid": entry.uid,
        "series_instance_uid": entry.header.series_instance_uid,
        "kept_series_instance_uid": first_series,
        "digest": entry.digest,
        "path": path,
        "size": entry.size,
        **_received(entry.reception),
    }


def _received(reception: Reception) -> dict[str, Any]:
    return {
        "transport": reception.transport[:16],
        "sender": reception.sender.replace("\0", "")[:64],
        "address": reception.address.replace("\0", "")[:255],
        "received_at": reception.received_at,
    }


def outcome_of(entry: Entry, disposition: Disposition, error: ConflictingInstance | None = None) -> Outcome:
    """Return what became of an entry."""
    return Outcome(
        disposition=disposition,
        sop_class_uid=entry.header.sop_class_uid,
        sop_instance_uid=entry.uid,
        study_instance_uid=entry.header.study_instance_uid,
        error=error,
    )
