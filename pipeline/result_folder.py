"""The folder of a job below the store's results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from domain.errors import StorageError
from pipeline.findings_file import FINDINGS


def newest_findings(folder: Path) -> Path | None:
    """Return the folder of the last claim that left complete findings."""
    found = [path for path in folder.glob("findings-*") if (path / FINDINGS).is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def keep_only(folder: Path, kept: set[Path]) -> None:
    """Remove what earlier claims and the engine left beside the recorded objects."""
    with suppress(OSError):  # whatever stays is found again at the next retention
        for path in folder.iterdir():
            if path.resolve() not in {item.resolve() for item in kept}:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Turn an operating-system error into a ``StorageError`` that says what could not be written."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"Could not write {what} (errno {error.errno}).") from error
