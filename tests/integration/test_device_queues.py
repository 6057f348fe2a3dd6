"""Cases of a device wait in its queue, and nobody wonders why."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from factories import ct_series
from working import MANIFEST, working

from domain.job import JobState
from pipeline.jobs import jobs_url, migrate
from pipeline.watch import WAITS_FOR_DEVICE

ROOT = Path(__file__).resolve().parents[2]


def test_a_case_of_a_device_waits_in_its_queue_and_says_so(tmp_path: Path) -> None:
    with working(tmp_path) as work:
        work.engines.manifest_now = replace(MANIFEST, device="gpu-1")
        work.receive(ct_series(4))
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        plan = work.queue.take()
        assert plan is not None
        (task,) = work.steps.run(plan)
        assert (task.step, task.queue) == ("infer", "gpu-1")
        assert work.watch.say_what_is_waited_for() == 0
        work.clock.now = datetime.now(UTC) + timedelta(minutes=5)
        assert work.watch.say_what_is_waited_for() == 1
        (job,) = work.store.jobs.find(state=JobState.QUEUED)
        assert job.reason == WAITS_FOR_DEVICE
        assert work.watch.say_what_is_waited_for() == 0


ENQUEUE = """
import sys
from pathlib import Path
from pipeline.jobs import JobEngine, JobEngineSettings
from pipeline.task import Task

url, bells, devices = sys.argv[1], Path(sys.argv[2]), tuple(sys.argv[3:])
settings = JobEngineSettings(url=url, executor_id="worker", queues=("cpu",), devices=devices, bells=bells)
engine = JobEngine(settings, lambda task: [])
engine.start()
if "gpu" in devices:
    engine.enqueue(Task(step="infer", args=("job", 1, 1), queue="gpu"))
print("active", sorted(engine.active()))
engine.stop()
"""


def test_what_waits_for_a_device_that_is_configured_no_more_is_no_work_that_goes_on(tmp_path: Path) -> None:
    url = jobs_url("", tmp_path)
    migrate(url)

    def active(*devices: str) -> str:
        command = [sys.executable, "-c", ENQUEUE, url, str(tmp_path / "bells"), *devices]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        return next(line for line in done.stdout.splitlines() if line.startswith("active"))

    assert active("gpu") == "active ['infer/job/1/1']"
    assert active("gpu-1") == "active []"  # the watch starts its job again, in the queue that is served now
    assert active("gpu") == "active ['infer/job/1/1']"
