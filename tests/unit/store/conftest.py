from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.database import Database, index_url
from store.settings import StoreSettings
from store.store import migrate_store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    migrate_store(StoreSettings(path=tmp_path))
    opened = Database(index_url(tmp_path, ""))
    yield opened
    opened.close()
