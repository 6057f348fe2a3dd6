"""How many jobs a second the durable engine brings through its three steps, on SQLite and on PostgreSQL.

The steps do nothing: what is measured is the engine with its checkpoints, claims of the job log left out. Two worker
processes for each database, as two hosts would be on PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from postgres_server import postgres_programs, postgres_server

from pipeline.jobs import jobs_url, migrate

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sys, time
from pathlib import Path
from pipeline.jobs import JobEngine, JobEngineSettings
from pipeline.liveness import liveness
from pipeline.takeover import Reaper
from pipeline.task import Task

folder, url, name, jobs = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
nexts = {"infer": ("encode", "cpu"), "encode": ("deliver", "deliver")}

def run(task):
    if task.step == "deliver":
        with (folder / f"done-{name}").open("a") as file:
            file.write(".")
        return []
    step, queue = nexts[task.step]
    return [Task(step=step, args=task.args, queue=queue)]

locks = liveness(url, folder / "workers", name)
locks.keep()
engine = JobEngine(
    JobEngineSettings(
        url=url, executor_id=name, queues=("cpu", "infer-cpu", "deliver"), bells=folder / "bells"
    ),
    run,
)
engine.start()
Reaper(engine, locks, name).start()
began = time.perf_counter()
for number in range(jobs):
    engine.enqueue(Task(step="infer", args=(f"{name}-{number}", 1, 1), queue="cpu"))
(folder / f"enqueued-{name}").write_text(str(time.perf_counter() - began))
while True:
    time.sleep(1)
"""


def one_database(name: str, url: str, jobs: int, folder: Path) -> None:
    """Print what one database does."""
    migrate(url)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    workers = ("one", "two")
    began = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), url, worker, str(jobs // 2)], cwd=ROOT, env=environment
        )
        for worker in workers
    ]
    try:
        done, first = 0, 0.0
        while done < jobs // 2 * 2:
            time.sleep(0.05)
            done = sum(path.stat().st_size for path in folder.glob("done-*"))
            first = first or (time.perf_counter() if done else 0.0)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ended = time.perf_counter()
    enqueue_s = sum(float((folder / f"enqueued-{worker}").read_text()) for worker in workers)
    print(
        f"{name}: {jobs / (ended - first):.1f} jobs/s through three steps ({jobs} jobs, two workers; "
        f"{1000 * enqueue_s / jobs:.1f} ms to enqueue one; {first - began:.1f} s to the first)"
    )


def main() -> None:
    """Run both databases one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        one_database("SQLite", jobs_url("", Path(temporary)), given.jobs, Path(temporary))
    programs = postgres_programs()
    if programs is None:
        print("PostgreSQL is not installed")
        return
    with postgres_server(programs) as url, tempfile.TemporaryDirectory() as temporary:
        one_database("PostgreSQL", f"{url}/postgres", given.jobs, Path(temporary))


if __name__ == "__main__":
    main()
