"""The durable engine while its tables cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sqlite3, sys, threading, time
from pathlib import Path
from pipeline.jobs import JobEngine, JobEngineSettings, jobs_url, migrate
from pipeline.task import Task

folder, ran, over = Path(sys.argv[1]), [], threading.Event()
url = jobs_url("", folder)
migrate(url)
tables = sqlite3.connect(folder / "jobs.sqlite", check_same_thread=False)
WRITES = ("INSERT ON operation_outputs", "INSERT ON workflow_status", "UPDATE ON workflow_status")

def run(task):
    ran.append(task.step)
    if len(ran) == 1:
        for number, what in enumerate(WRITES):
            tables.execute(
                f"CREATE TRIGGER full{number} BEFORE {what} BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
            )
        tables.commit()
    if task.step == "encode":
        over.set()
        return []
    return [Task(step="encode", args=("job", 1, 1), queue="cpu")]

engine = JobEngine(JobEngineSettings(url=url, executor_id="worker", queues=("cpu",), bells=folder / "bells"), run)
engine.start()
engine.enqueue(Task(step="infer", args=("job", 1, 1), queue="cpu"))
time.sleep(2)
print(*ran, flush=True)
for number in range(len(WRITES)):
    tables.execute(f"DROP TRIGGER full{number}")
tables.commit()
for _ in range(100):
    engine.put_back_dropped(0.5)  # what the reaper of every worker does
    if over.wait(0.2):
        break
print(over.is_set(), flush=True)
engine.stop()
"""


def test_a_task_goes_on_by_itself_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    while_full, went_on = done.stdout.splitlines()
    assert set(while_full.split()) == {"infer"}
    assert went_on == "True"
