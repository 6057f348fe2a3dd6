"""The durable engine: a task happens once, and a killed process loses none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.jobs import jobs_url, migrate

WORKER = """
import sys, time
from pathlib import Path
from pipeline import taking
from pipeline.jobs import JobEngine, JobEngineSettings
from pipeline.task import Task

folder, url = Path(sys.argv[1]), sys.argv[2]

taking.IDLE_S = 600.0  # nothing is found by chance

def note(name):
    with (folder / "events").open("a") as file:
        file.write(name + "\\n")

def run(task):
    note(f"begin {task.step}")
    time.sleep(float(sys.argv[3]))
    note(f"end {task.step}")
    nexts = {"infer": ("encode", "cpu", 0.0), "encode": ("deliver", "deliver", 0.3)}
    if task.step not in nexts:
        return []
    step, queue, delay = nexts[task.step]
    return [Task(step=step, args=(task.args[0], 1, 1), queue=queue, delay_s=delay)]

engine = JobEngine(
    JobEngineSettings(
        url=url, executor_id="worker", queues=("cpu", "infer-cpu", "deliver"), bells=folder / "bells"
    ),
    run,
)
engine.start()
for number in range(int(sys.argv[4])):
    for _ in range(3):
        engine.enqueue(Task(step="infer", args=(f"job{number}" if number else "job", 1, 1), queue="infer-cpu"))
note("ready")
while not (folder / "stop").exists():
    time.sleep(0.02)
active = engine.active()
note(f"active {len(active)}")
engine.stop()
"""


def start(folder: Path, step_s: float, jobs: int = 1) -> subprocess.Popen[bytes]:
    url = jobs_url("", folder)
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), url, str(step_s), str(jobs)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": "."},
    )


def events(folder: Path) -> list[str]:
    file = folder / "events"
    return file.read_text().split("\n")[:-1] if file.exists() else []


def wait_for(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


def test_a_task_enqueued_three_times_runs_once_and_its_followers_run(tmp_path: Path) -> None:
    migrate(jobs_url("", tmp_path))
    process = start(tmp_path, 0.0)
    try:
        wait_for(lambda: "end deliver" in events(tmp_path))
        (tmp_path / "stop").touch()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    ran = [event for event in events(tmp_path) if event.startswith("begin")]
    assert ran == ["begin infer", "begin encode", "begin deliver"]


def test_as_many_run_at_a_time_as_a_queue_has_places_and_a_free_place_is_taken(tmp_path: Path) -> None:
    migrate(jobs_url("", tmp_path))
    process = start(tmp_path, 0.2, jobs=3)
    try:
        wait_for(lambda: events(tmp_path).count("end deliver") == 3)
    finally:
        process.kill()
        process.wait()
    engines = [event for event in events(tmp_path) if event.endswith("infer")]
    assert engines == ["begin infer", "end infer"] * 3


def test_a_step_that_was_killed_runs_again_and_finished_steps_do_not(tmp_path: Path) -> None:
    migrate(jobs_url("", tmp_path))
    process = start(tmp_path, 1.0)
    try:
        wait_for(lambda: "begin encode" in events(tmp_path))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process = start(tmp_path, 0.0)
        wait_for(lambda: "end deliver" in events(tmp_path))
    finally:
        process.kill()
        process.wait()
    ran = events(tmp_path)
    assert ran.count("begin infer") == 1
    assert ran.count("begin encode") == 2
    assert ran.count("end encode") == 1
    assert ran.count("end deliver") == 1


def test_identities_of_plans_do_not_contain_the_series_uid() -> None:
    from pipeline.task import Task

    task = Task(step="plan", args=("1.2.840.113619.2.55", 7, "abc"), queue="cpu")
    assert "113619" not in task.identity
    assert task.identity == Task(step="plan", args=("1.2.840.113619.2.55", 7, "abc"), queue="cpu").identity


COMPLAINING = """
import logging, sys
from pathlib import Path
from gateway.logs import set_up_logs
from pipeline.jobs import JobEngine, JobEngineSettings

set_up_logs(style="json", key=b"k", process="worker")
engine = JobEngine(
    JobEngineSettings(url=sys.argv[1], executor_id="worker", queues=("cpu",), bells=Path(sys.argv[2])),
    lambda task: [],
)
engine.start()
try:
    raise RuntimeError("SECRET^NAME")
except RuntimeError as error:
    for number in range(5):
        logging.getLogger("dbos").warning(f"Exception in queue thread: {error} {number}", exc_info=True)
engine.stop()
"""


def test_what_dbos_has_to_say_goes_through_our_log_and_only_now_and_then(tmp_path: Path) -> None:
    url = jobs_url("", tmp_path)
    migrate(url)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", COMPLAINING, url, str(tmp_path / "bells")],
        cwd=root,
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert [line["logger"] for line in lines] == ["dbos"]
    assert "SECRET" not in done.stdout + done.stderr


def test_a_worker_that_cannot_work_with_its_tables_says_what_to_look_at(
    tmp_path: Path,
) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "VOXGATE_STORE__PATH": str(tmp_path / "store")}

    def part(role: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway.process", role]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert part("prepare").returncode == 0
    (tmp_path / "store" / "jobs.sqlite").write_bytes(b"no database " * 1000)
    worker = part("worker")
    assert worker.returncode == 1
    assert "the tables of the jobs cannot be read or written" in worker.stderr
    assert "part failed" not in worker.stderr
