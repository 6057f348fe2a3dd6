"""In which order bytes, name and row reach the disk, as the kernel sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from factories import ct_slice

STRACE = shutil.which("strace")
_SCRIPT = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from domain.instance import Reception
from pipeline.intake import Intake
from store.settings import StoreSettings
from store.store import migrate_store, open_store

settings = StoreSettings(path=Path(sys.argv[1]), low_water_mb=0)
migrate_store(settings)
with open_store(settings) as store:
    intake = Intake(store.instances)
    item = intake.stage()
    item.write(Path(sys.argv[2]).read_bytes())
    os.write(1, b"received")
    reception = Reception(transport="stow", sender="", address="", received_at=datetime.now(UTC))
    (outcome,) = intake.commit([item], reception)
    os.write(1, outcome.disposition.name.lower().encode())
"""
_CALLS = "io_submit,io_getevents,fdatasync,fsync,rename,write"


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_bytes_name_and_row_are_on_the_disk_in_that_order_before_the_answer(tmp_path: Path) -> None:
    buffer = BytesIO()
    ct_slice().save_as(buffer, enforce_file_format=True)
    file, trace = tmp_path / "x.dcm", tmp_path / "trace"
    file.write_bytes(buffer.getvalue())
    command = [str(STRACE), "-f", "-y", "-o", str(trace), "-e", f"trace={_CALLS}", sys.executable, "-c", _SCRIPT]
    done = subprocess.run(
        [*command, str(tmp_path / "store"), str(file)], check=False, capture_output=True, text=True, timeout=120
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("this container does not let strace look")
    assert done.stdout == "receivedstored", done.stderr
    calls = trace.read_text().partition('"received"')[2].splitlines()
    steps = [step for call in calls if (step := _step(call))]
    bytes_synced = steps.index("bytes")
    name = steps.index("rename")
    assert bytes_synced < name < steps.index("name synced") < steps.index("row synced") < steps.index("answer")
    assert steps.count("rename") == 1


def _step(call: str) -> str | None:
    """Return what a call that has returned means; what is only begun means nothing."""
    said = {
        r"(io_getevents\(.*res=0|fdatasync\(\d+<.*\.part>\) += 0)": "bytes",
        r"rename\(.*\.part.*/instances/.*\) += 0": "rename",
        r"fsync\(\d+<.*/instances/[0-9a-f]{2}>\) += 0": "name synced",
        r"fdatasync\(\d+<.*index\.sqlite-wal>\) += 0": "row synced",
        r'write\(1<.*"stored"': "answer",
    }
    return next((step for pattern, step in said.items() if re.search(pattern, call)), None)
