from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from domain.errors import ConfigurationError
from gateway.runfiles import StatusFile, check_writable, only_supervisor, read_status
from gateway.supervisor import ChildState, ChildStatus

ROOT = Path(__file__).resolve().parents[3]


def status(role: str, state: ChildState = ChildState.READY, **facts: object) -> ChildStatus:
    return ChildStatus(role=role, state=state, pid=4711, restarts=0, facts=facts)


def test_tells_ports_and_process_ids(tmp_path: Path) -> None:
    StatusFile(tmp_path).write([status("scp", port=11112), status("worker")])
    told = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (told["pid"], told["state"]) == (os.getpid(), "ready")
    assert told["processes"]["scp"]["port"] == 11112
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["status.json"]


def test_a_disk_without_room_is_no_reason_to_stop(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    file.write([status("scp", port=1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        file.write([status("scp", port=2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert json.loads(file.path.read_text())["processes"]["scp"]["port"] == 1
    assert [path.name for path in file.path.parent.iterdir()] == ["status.json"]


def test_is_ready_only_when_every_part_is(tmp_path: Path) -> None:
    StatusFile(tmp_path).write([status("scp"), status("worker", ChildState.WAITING)])
    told = read_status(tmp_path)
    assert told is not None
    assert told["state"] == "starting"


def test_a_file_left_by_a_killed_supervisor_does_not_count(tmp_path: Path) -> None:
    StatusFile(tmp_path).write([status("scp")])
    path = tmp_path / "run" / "status.json"
    gone = subprocess.Popen(["true"])
    gone.wait()
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": gone.pid}))
    assert read_status(tmp_path) is None


def test_there_is_no_status_where_nobody_serves(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None


def test_a_second_supervisor_of_a_store_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gateway.runfiles import only_supervisor\n"
        "with only_supervisor(Path(sys.argv[1])): pass\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with only_supervisor(tmp_path):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert f"is served by another voxgate (process {os.getpid()})" in done.stderr
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_the_lock_is_named_after_the_setting(tmp_path: Path) -> None:
    with (
        only_supervisor(tmp_path),
        pytest.raises(ConfigurationError, match=r"^store\.path: "),
        only_supervisor(tmp_path),
    ):
        pass


def test_a_store_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(
        ConfigurationError, match=r"^store\.path: .*store cannot be written: Not a directory; let this"
    ):
        check_writable(blocked / "store")


def test_a_check_of_the_store_leaves_nothing_but_its_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").rglob("*")] == ["run"]
