"""Who may read what the gateway keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def prepare(folder: Path) -> None:
    config = folder / "voxgate.toml"
    config.write_text(f'[store]\npath = "{folder / "store"}"\n')
    command = [sys.executable, "-m", "gateway.process", "prepare", "--config", str(config)]
    subprocess.run(command, cwd=ROOT, umask=0o022, check=True, capture_output=True, env=os.environ)


def test_a_new_store_is_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    prepare(tmp_path)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "store", *(tmp_path / "store").rglob("*"))}
    assert modes[tmp_path / "store" / "secret.key"] == 0o600
    assert {path.name: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_a_folder_that_is_shared_on_purpose_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o750)
    prepare(tmp_path)
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o750
