"""The steps of one job: plan, infer, encode, deliver, confirm. Each may run more than once.

A step does not raise for what a series, an engine or a peer does: it records the outcome in the job log and names
what comes next. Everything else ends the job as failed, or, where trying again may help, is tried again.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from domain.engine import Case, EngineRegistry
from domain.errors import (
    AssemblyError,
    ClaimLost,
    EngineFailed,
    GatewayError,
    NotApplicable,
    StorageError,
    VerificationFailed,
)
from domain.findings import Findings
from domain.job import DeliveryState, Job, JobState
from domain.ports import JobLog, PatientHistory, Result, ResultWriter, SeriesIndex
from pipeline.cases import misplaced, place_of
from pipeline.completeness import CompletenessSettings
from pipeline.delivering import Delivering
from pipeline.delivery import DeliverySettings
from pipeline.drawings import DrawingPlans
from pipeline.findings_file import load_findings, save_findings
from pipeline.guard import MAX_CRASHES, EngineGuard, Unguarded
from pipeline.notices import DAMAGED, code_of, is_notice, outcome, write_notice
from pipeline.plan_step import PlanStep
from pipeline.planning import Planner
from pipeline.result_folder import keep_only, newest_findings, storage
from pipeline.sources import Sources
from pipeline.study_step import StudyStep
from pipeline.summary import summary
from pipeline.task import Task
from pipeline.unchanged import unchanged

log = logging.getLogger(__name__)


class Steps:
    """What the workers run. Blocking; an engine is used by one step at a time in one process."""

    def __init__(
        self,
        *,
        index: SeriesIndex,
        jobs: JobLog,
        planner: Planner,
        engines: EngineRegistry,
        writer: ResultWriter,
        delivering: Delivering,
        retries: DeliverySettings,
        results: Path,
        clock: Callable[[], datetime],
        guard: EngineGuard | None = None,
        progress: Callable[[float], None] | None = None,
        completeness: CompletenessSettings | None = None,
        history: PatientHistory | None = None,
    ) -> None:
        self._guard = guard or Unguarded()
        self._index = index
        self._jobs = jobs
        self._planner = planner
        self._engines = engines
        self._writer = writer
        self._delivering = delivering
        self._retries = retries
        self._results = results
        self._clock = clock
        self._progress = progress
        completeness = completeness or CompletenessSettings()
        drawings = DrawingPlans(index=index, jobs=jobs, planner=planner, clock=clock, completeness=completeness)
        self._sources = Sources(index=index, planner=planner, drawings=drawings, history=history)
        self._plans = PlanStep(index=index, jobs=jobs, planner=planner, next_task=self.next_task, drawings=drawings)
        self._studies = StudyStep(
            index=index,
            jobs=jobs,
            planner=planner,
            plans=self._plans,
            next_task=self.next_task,
            history=history,
        )

    def run(self, task: Task) -> list[Task]:
        """Run one step; return what comes next."""
        try:
            if task.step == "plan":
                return self._attempt(task, lambda: self._plans.run(task))
            if task.step == "plan-study":
                return self._attempt(task, lambda: self._studies.run(task))
            # Destinations are worked off side by side, so each delivery is a part of its own.
            part = f"deliver/{task.args[1]}" if task.step in ("deliver", "confirm") else task.step
            with self._jobs.claiming(str(task.args[0]), part) as claim:
                return self._attempt(task, lambda: self._advance(task, claim))
        except ClaimLost:
            log.warning("step was taken over; this process lets go of it", extra={"step": task.step})
            return []
        except StorageError as error:
            return self._again(task, error)

    def _attempt(self, task: Task, act: Callable[[], list[Task]]) -> list[Task]:
        try:
            return act()
        except ClaimLost:
            raise
        except StorageError as error:
            return self._again(task, error)
        except Exception as error:
            log.exception("step broke", extra={"step": task.step})
            self._broke(task, error)
            return []

    def reopen_unconfirmed_jobs(self) -> int:
        """Bring on jobs whose destination confirmed after the alarm; return how many."""
        return sum(self._delivering.reopen(job) for job in self._jobs.find(state=JobState.UNCONFIRMED))

    def waits_for_device(self, job: Job) -> bool:
        """Tell whether a job has its turn in the queue of a device."""
        return job.state is JobState.QUEUED and any(task.queue.startswith("gpu") for task in self.next_task(job))

    def next_task(self, job: Job) -> list[Task]:
        """Return what brings an open job on from where the job log says it stands."""
        if job.state is JobState.DELIVERING:
            return self._delivering.first_attempts(job)
        try:
            device = self._engines.manifest(job.engine).device
        except GatewayError:
            device = "cpu"  # the engine is gone: the step says so and ends the job
        queue = "infer-cpu" if device == "cpu" else device
        return [Task(step="infer", args=(job.job_id, job.attempt, 1), queue=queue, priority=job.priority)]

    # ---------------------------------------------------------------------------------------------- job steps

    def _advance(self, task: Task, claim: int) -> list[Task]:
        job = self._jobs.get(str(task.args[0]))
        if job is not None and job.state.is_final:
            self._tidy(job)
        if job is None or job.state.is_final or job.attempt != int(task.args[-2]):
            return []  # cancelled, finished by an earlier run of this step, or retried by an operator since
        try:
            if task.step == "infer":
                return self._infer(job, claim)
            if task.step == "encode":
                return self._encode(job, claim)
            return self._deliver(job, task.step, str(task.args[1]), int(task.args[-1]))
        except (StorageError, ClaimLost):
            raise
        except AssemblyError as error:
            return self._refuse(job, claim, JobState.NOT_RUN, error.code, str(error))
        except NotApplicable as error:
            return self._refuse(job, claim, JobState.NOT_APPLICABLE, "not-applicable", str(error))
        except GatewayError as error:
            if error.retryable:
                return self._again(task, error)
            return self._refuse(job, claim, JobState.FAILED, code_of(error), str(error))

    def _infer(self, job: Job, claim: int) -> list[Task]:
        """Decode what the job is about and run the engine; the findings go into a folder of this claim's own."""
        crashes = self._guard.crashes(job.job_id, job.attempt)
        if len(crashes) >= MAX_CRASHES:
            reason = f"The engine ended {len(crashes)} times on this series: {'; '.join(crashes)}."
            return self._refuse(job, claim, JobState.FAILED, "engine-crashed", reason)
        if self._engines.manifest(job.engine).version != job.engine_version:
            self._plan_again(job)
            reason = "The engine was replaced by another version before it began; the series is planned again."
            return self._end(job, JobState.CANCELLED, "superseded", reason)
        # The cause too: a process may have died between refusing the series and telling so, and this run may succeed
        self._jobs.update(job.job_id, state=JobState.RUNNING, code="", reason="")
        began, started_at = time.perf_counter(), self._clock()
        with unchanged((*self._sources.instances(job), *self._sources.drawing(job))):
            case = self._sources.case(job, self._progress)
            assembled = time.perf_counter()
            findings = self._run_engine(job, case)
        finished = time.perf_counter()
        with self._own_folder(job, f"findings-{claim}") as mine:
            with storage("the findings"):
                save_findings(findings, started_at, mine)
            self._jobs.update(
                job.job_id,
                timings_s={"assemble": assembled - began, "engine": finished - assembled},
                summary=summary(findings),
            )
        return [Task(step="encode", args=(job.job_id, job.attempt, 1), queue="cpu", priority=job.priority)]

    def _plan_again(self, job: Job) -> None:
        """Have the series planned again from which the job comes: that of its drawing, where it has one."""
        drawing = self._sources.drawing(job)
        self._index.thaw(drawing[0].header.series_instance_uid if drawing else job.series_instance_uid)

    def _run_engine(self, job: Job, case: Case) -> Findings:
        deadline_s = self._engines.manifest(job.engine).deadline_s
        try:
            with self._guard.running(job.job_id, job.attempt, deadline_s):
                findings = self._engines.engine(job.engine).run(case)
        except GatewayError:
            raise
        except MemoryError as error:
            raise EngineFailed("The engine ran out of memory on this series.") from error
        except Exception as error:
            log.exception("engine broke down", extra={"job": job.job_id, "engine": job.engine})
            raise EngineFailed(f"The engine broke down with {type(error).__name__}; see the log.") from error
        fault = misplaced(findings, case)
        if fault:
            raise EngineFailed(fault)
        return findings

    def _encode(self, job: Job, claim: int) -> list[Task]:
        """Write SEG and SR, decode them again and compare; then queue them for every destination."""
        folder = self._results / job.job_id
        if not self._are_written(job):
            found = newest_findings(folder)
            if found is None:
                return self.next_task(replace(job, state=JobState.QUEUED))
            with self._own_folder(job, f"objects-{claim}") as mine:
                self._write_objects(job, *load_findings(found), mine)
        keep_only(folder, {item.path.parent for item in self._jobs.objects(job.job_id)})
        current = self._jobs.get(job.job_id)
        if current is None or current.state.is_final:
            return []  # cancelled meanwhile
        if not job.destinations:
            return self._end(job, JobState.DONE, "", "No destination is configured; the results stay in the store.")
        if current.code:  # an earlier run of this step, which died, had refused what this one has verified
            self._jobs.update(job.job_id, code="")
        return self._delivering.begin(replace(current, code=""))

    def _are_written(self, job: Job) -> bool:
        """Tell whether the job's objects lie in the store; somebody may have cleared the folder."""
        objects = self._jobs.objects(job.job_id)
        return any(not is_notice(item) for item in objects) and all(item.path.is_file() for item in objects)

    def _write_objects(self, job: Job, findings: Findings, started_at: datetime, folder: Path) -> None:
        began = time.perf_counter()
        # The file that says whose the result is, and what the engine was pointed at
        with unchanged((*self._sources.instances(job)[:1], *self._sources.drawing(job))):
            result = self._result(job, findings, started_at)
            with storage("the result objects"):
                objects = self._writer.write(result, folder)
            written = time.perf_counter()
            self._writer.verify(result, objects)
        verified = time.perf_counter()
        self._jobs.update(job.job_id, timings_s={"encode": written - began, "verify": verified - written})
        self._jobs.put_objects(objects)

    @contextmanager
    def _own_folder(self, job: Job, name: str) -> Iterator[Path]:
        """Give a claim a folder that nobody else writes to; it goes when the claim is lost or the step fails."""
        folder = self._results / job.job_id / name
        with storage("a folder of the job"):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        except Exception:
            with suppress(StorageError):  # a commit that broke may have happened: then the files are the job's
                if folder not in {item.path.parent for item in self._jobs.objects(job.job_id)}:
                    shutil.rmtree(folder, ignore_errors=True)
            raise

    def _result(self, job: Job, findings: Findings, started_at: datetime) -> Result:
        stack, paths = self._sources.stack(job)
        place = place_of(stack, paths, self._planner.resample(job.route))
        lying, analysed = place.findings_on_source(findings)
        return Result(
            job_id=job.job_id,
            findings=lying,
            grid=place.grid,
            source_paths=place.source_paths,
            source_frames=place.source_frames,
            tiles=place.tiles,
            manifest=self._engines.manifest(job.engine),
            route=job.route,
            stack=job.stack,
            started_at=started_at,
            context=self._sources.context(stack, paths),
            generation=job.generation,
            predecessors=self._jobs.objects(job.predecessor) if job.predecessor else (),
            prompt=self._sources.prompt(job, stack),
            destinations=job.destinations,
            analysed=analysed,
        )

    def _deliver(self, job: Job, step: str, destination: str, number: int) -> list[Task]:
        self._jobs.confirm_claim()
        bring_on = self._delivering.confirm if step == "confirm" else self._delivering.attempt
        following, settled = bring_on(job, destination, number)
        if not settled:
            return following
        short = [item for item in self._jobs.deliveries(job.job_id) if not item.state.ended_well]
        reason = "; ".join(dict.fromkeys(f"{item.destination}: {item.reason}" for item in short))
        told = outcome(job)
        if told is not None:
            return self._end(job, told, job.code, f"{job.reason} Not told to {reason}" if short else job.reason)
        if any(item.state is DeliveryState.DEAD for item in short):
            return self._end(job, JobState.FAILED, "not-delivered", reason)
        if short:
            return self._end(job, JobState.UNCONFIRMED, "not-confirmed", reason)
        notes = (self._delivering.statement(job), self._plans.note_of(job))
        return self._end(job, JobState.DONE, "", " ".join(note for note in notes if note))

    # ---------------------------------------------------------------------------------------------- endings

    def _refuse(self, job: Job, claim: int, state: JobState, code: str, reason: str) -> list[Task]:
        """End a job without a result; where its route asks for it, when the reason has been delivered."""
        is_told = job.destinations and job.state is not JobState.DELIVERING and code != DAMAGED
        if not is_told or not self._planner.reports_refusals(job.route):
            return self._end(job, state, code, reason)
        try:
            with self._own_folder(job, f"notice-{claim}") as mine, storage("the notice"):
                stack, paths = self._sources.stack(job)
                manifest = self._engines.manifest(job.engine)
                objects = write_notice(
                    job, state, code, reason,
                    headers=stack.headers, paths=paths, manifest=manifest, writer=self._writer, clock=self._clock,
                    folder=mine,
                )  # fmt: skip
                self._jobs.put_objects(objects)
        except (EngineFailed, VerificationFailed) as error:
            return self._end(job, state, code, f"{reason} Nobody was told: {error}")
        self._guard.forget(job.job_id)
        self._jobs.update(job.job_id, code=code)
        return self._delivering.begin(replace(job, code=code), reason)

    def _end(self, job: Job, state: JobState, code: str, reason: str) -> list[Task]:
        self._jobs.update(job.job_id, state=state, code=code, reason=reason)
        self._guard.forget(job.job_id)
        if state is not JobState.DONE:
            self._tidy(job)
        log.info("job ended", extra={"job": job.job_id, "state": str(state), "code": code, "engine": job.engine})
        return []

    def _tidy(self, job: Job) -> None:
        """Remove the findings of a job that ended before its objects were written."""
        if not self._jobs.objects(job.job_id):
            shutil.rmtree(self._results / job.job_id, ignore_errors=True)

    def _again(self, task: Task, error: GatewayError) -> list[Task]:
        """Return the same step under its next number, after a delay; an operator sees why it waits."""
        number = int(task.args[-1]) if task.step != "plan" else 1
        delay_s = self._retries.delay_s(number)
        log.warning("step will be tried again", extra={"step": task.step, "delay_s": delay_s, "number": number})
        with suppress(StorageError):  # the fault may be that nothing can be written; the log has it
            self._say_why_it_waits(task, error)
        if task.step == "plan":
            series, revision, fingerprint = task.args[:3]
            tried = int(task.args[3]) if len(task.args) > 3 else 1
            return [
                replace(task, args=(series, revision, fingerprint, tried + 1), delay_s=self._retries.delay_s(tried))
            ]
        if number >= self._retries.attempts():
            self._broke(task, error)
            return []
        return [replace(task, args=(*task.args[:-1], number + 1), delay_s=delay_s)]

    def _say_why_it_waits(self, task: Task, error: GatewayError) -> None:
        reason = f"{error} It is tried again."
        if task.step == "plan":
            self._plans.state_fate(str(task.args[0]), int(task.args[1]), "waiting", reason)
            return
        job = self._jobs.get(str(task.args[0]))
        if job is not None and not job.state.is_final:
            self._jobs.update(job.job_id, reason=reason)

    def _broke(self, task: Task, error: Exception) -> None:
        """Record a fault of ours as the fate of the job, or of the series that could not be planned."""
        reason = f"A fault inside the gateway ({type(error).__name__}); see the log, then: voxgate jobs retry."
        if task.step == "plan":
            self._plans.state_fate(str(task.args[0]), int(task.args[1]), "internal-error", reason)
            self._index.freeze(str(task.args[0]), int(task.args[1]))
            return
        if task.step == "plan-study":
            self._plans.state_fate(str(task.args[1]), int(task.args[2]), "internal-error", reason)
            return
        job = self._jobs.get(str(task.args[0]))
        if job is not None and not job.state.is_final:
            self._end(job, JobState.FAILED, "internal-error", reason)
