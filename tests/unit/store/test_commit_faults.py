"""What is left on disk when the index fails before, during or after its commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from factories import ct_slice
from sqlalchemy import Connection

from domain.errors import OutOfSpace, StorageError
from domain.instance import Disposition, Outcome, Reception
from pipeline.intake import Intake
from store.database import Database, index_url, translated
from store.files import Files
from store.instances import Instances
from store.settings import StoreSettings
from store.store import migrate_store

RECEPTION = Reception(transport="dimse", sender="MODALITY", address="", received_at=datetime.now(UTC))


class FaultyDatabase(Database):
    """Fails as ``fault`` says: ``before`` the commit, ``after`` it, or ``gone``: after it and whenever asked."""

    fault = ""
    questions = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
            if self.fault == "before":
                raise StorageError
        if self.fault:
            raise StorageError

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self.questions += 1
        if self.fault == "gone" and self.questions > 1:  # the first is asked before anything is written
            raise StorageError
        with super().read() as connection:
            yield connection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    migrate_store(StoreSettings(path=tmp_path))
    return tmp_path


def send(root: Path, database: Database, data: bytes) -> Outcome:
    files = Files(root, low_water_mb=0)
    try:
        intake = Intake(Instances(files, database))
        item = intake.stage()
        item.write(data)
        (outcome,) = intake.commit([item], RECEPTION)
        return outcome
    finally:
        files.close()


def data() -> bytes:
    buffer = BytesIO()
    ct_slice().save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize(("fault", "left"), [("before", 0), ("after", 1), ("gone", 1)])
def test_a_failed_commit_leaves_a_file_only_where_a_row_may_point_to_it(fault: str, left: int, root: Path) -> None:
    database = FaultyDatabase(index_url(root, ""))
    one = data()
    database.fault = fault
    with pytest.raises(StorageError):
        send(root, database, one)
    assert len(list((root / "instances").rglob("*.dcm"))) == left
    database.fault = ""
    assert send(root, database, one).disposition is (Disposition.DUPLICATE if left else Disposition.STORED)
    (path,) = (root / "instances").rglob("*.dcm")
    assert path.read_bytes() == one
    database.close()


def test_a_full_disk_under_the_bare_driver_is_told_as_one() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    with pytest.raises(OutOfSpace), translated():
        raise full
    with pytest.raises(StorageError), translated():
        raise sqlite3.OperationalError("disk I/O error")
