from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from domain.errors import ConfigurationError
from gateway.config import load_config
from gateway.offline import analyse


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(8 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10 << 20, 0, 10 << 20))
    with pytest.raises(ConfigurationError, match="16 MB"):
        analyse([archive], tmp_path / "out", config=load_config(None))
