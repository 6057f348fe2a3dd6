"""Commands whose output cannot be written: an exit status and one line, no traceback."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("version", "profiles", "terms lung --json", "run --help")


def voxgate(command: str, redirection: str, folder: Path) -> tuple[int, str]:
    """Run a command in a shell that redirects its output; return its exit status and what it said on stderr."""
    line = f"{shlex.quote(sys.executable)} -m gateway.cli {command} {redirection}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_or_full_output_is_said_in_one_line(command: str, tmp_path: Path) -> None:
    closed = "voxgate: the output cannot be written: stdout is closed\n"
    assert voxgate(command, ">&-", tmp_path) == (1, closed)
    if Path("/dev/full").exists():
        status, said = voxgate(command, ">/dev/full", tmp_path)
        assert status == 1
        assert re.fullmatch(r"voxgate: (the output cannot be written: )?No space left on device\n", said)


def test_nothing_is_said_to_who_has_seen_enough(tmp_path: Path) -> None:
    assert voxgate("terms", "| head -1", tmp_path)[1] == ""
    # It is gone before the first line comes
    assert voxgate("version", "| true", tmp_path) == (1, "")


def test_a_fault_is_still_told_where_there_is_no_output(tmp_path: Path) -> None:
    assert voxgate("inspect nothing", ">&-", tmp_path) == (2, "voxgate: nothing: there is no such file or folder\n")
    assert voxgate("inspect nothing", ">&- 2>&-", tmp_path) == (2, "")


def test_files_get_no_numbers_of_closed_streams(tmp_path: Path) -> None:
    program = "from gateway.terminal import stand_in_for_closed_streams as s; s(); import os; "
    program += (
        "n = os.open('f', os.O_CREAT | os.O_WRONLY); print(n > 2 and os.get_inheritable(1), file=open('out', 'w'))"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert (tmp_path / "out").read_text() == "True\n"
