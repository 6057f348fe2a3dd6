"""The store as a whole: opened, migrated, reconciled and closed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store import reconcile
from store.commitments import CommitmentRequestTable, TransactionTable
from store.database import Database, index_url, translated
from store.files import RESULTS, Files
from store.instances import Instances
from store.jobs import JobTable
from store.series import SeriesTable
from store.settings import StoreSettings

PRIVATE = 0o700
"""Mode of a store's folder where we make it: patients' images are nobody else's business. Who wants to share an
existing folder with a group sets its mode himself."""


@dataclass(frozen=True, slots=True)
class Store:
    """The ports on one folder and one index. Thread-safe; open it after ``fork``, never before."""

    instances: Instances
    series: SeriesTable
    jobs: JobTable
    transactions: TransactionTable
    commitment_requests: CommitmentRequestTable
    results: Path
    """Folder for what jobs write."""
    _files: Files
    _database: Database

    def sweep(self) -> int:
        """Remove the temporary files of processes that were killed; return how many. Safe beside running writers."""
        return self._files.remove_stale()

    def reconcile(self) -> dict[str, int]:
        """Bring files and index into agreement; run once at start. See ``store.reconcile``."""
        return reconcile.reconcile(self._files, self._database, self.instances)


def migrate_store(settings: StoreSettings, database_url: str = "") -> None:
    """Create the folder and bring the index up to date; safe when several processes do it at once.

    Raises
    ------
    StorageError
        Folder or database cannot be written.
    ConfigurationError
        The database is of a kind that we do not know.
    """
    from store.migration import migrate  # alembic is slow to import, and only the supervisor needs it

    url = index_url(settings.path, database_url)
    with translated():
        settings.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    migrate(url)


@contextmanager
def open_store(settings: StoreSettings, database_url: str = "") -> Iterator[Store]:
    """Open a store whose index is up to date (``migrate_store``); an empty URL is SQLite in the store's folder.

    Raises
    ------
    StorageError
        The folder cannot be written.
    ConfigurationError
        The database is of a kind that we do not know.
    """
    url = index_url(settings.path, database_url)
    files = Files(settings.path, low_water_mb=settings.low_water_mb)
    database = Database(url)
    try:
        yield Store(
            instances=Instances(files, database),
            series=SeriesTable(files, database),
            jobs=JobTable(files.root, database),
            transactions=TransactionTable(database),
            commitment_requests=CommitmentRequestTable(database),
            results=files.root / RESULTS,
            _files=files,
            _database=database,
        )
    finally:
        database.close()
        files.close()
