from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from gateway.writable import obstacle


def test_a_folder_and_one_that_is_not_there_yet_can_be_written_and_nothing_is_left(tmp_path: Path) -> None:
    assert obstacle(tmp_path) is None
    assert obstacle(tmp_path / "a b" / "ü") is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert obstacle(tmp_path / "file") == f"{tmp_path / 'file'} is not a folder"
    assert obstacle(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is not a folder"


def test_a_link_to_nowhere_is_no_folder_to_be(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert obstacle(tmp_path / "link") == "No such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert obstacle(tmp_path / "below") == "Permission denied"


def test_a_file_system_that_takes_no_files_is_told() -> None:
    assert obstacle(Path("/proc/voxgate")) is not None


def test_a_disk_without_room_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert obstacle(tmp_path) == "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
