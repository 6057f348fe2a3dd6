"""A pipeline in one process for tests: the real store, planner, steps and writers; a queue that runs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from dicom_out.writer import Writer
from domain.codes import MILLILITRE, Code
from domain.engine import Answer, Case, Engine, EngineManifest, Verdict
from domain.errors import DeliveryError, EngineFailed
from domain.findings import Findings, Measurement, SegmentDescription
from domain.instance import Outcome, Reception
from domain.ports import Destination, ResultWriter, SendReport
from domain.series import SeriesFacts
from pipeline.bell import FileBell
from pipeline.completeness import CompletenessSettings
from pipeline.confirming import Confirming, Profile
from pipeline.delivering import Delivering
from pipeline.delivery import DeliverySettings
from pipeline.guard import EngineGuard
from pipeline.intake import Intake
from pipeline.planning import Planner
from pipeline.rules import Route
from pipeline.steps import Steps
from pipeline.task import Task
from pipeline.watch import Watch, WatchSettings
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

BODY = SegmentDescription(
    key="body",
    label="Body",
    category=Code("123037004", "SCT", "Anatomical Structure"),
    type=Code("38266002", "SCT", "Entire body as a whole"),
)
MANIFEST = EngineManifest(
    name="threshold",
    version="1.0",
    title="Threshold",
    device="cpu",
    algorithm_name="Threshold",
    algorithm_family=Code("123109", "DCM", "Manual Processing"),
    manufacturer="Voxgate",
    licence="Apache-2.0",
    intended_use="tests",
    segments=(BODY,),
)


class ThresholdEngine:
    """An ``Engine`` that takes everything above -500; set ``fail_with`` to make it fail."""

    def __init__(self) -> None:
        self.manifest = MANIFEST
        self.fail_with: Exception | None = None
        self.runs = 0

    def load(self) -> None:
        """Nothing to read."""

    def run(self, case: Case) -> Findings:
        self.runs += 1
        if self.fail_with is not None:
            raise self.fail_with
        labels = (case.the_volume().voxels > -500).astype(np.uint8)
        volume_ml = float(labels.sum()) * case.the_volume().grid.voxel_volume_ml
        concept = Code("118565006", "SCT", "Volume")
        measured = Measurement(segment="body", concept=concept, value=volume_ml, unit=MILLILITRE, label="Volume")
        return Findings(labels=labels, segments=(BODY,), measurements=(measured,))


@dataclass
class OneEngine:
    """An ``EngineRegistry`` with the threshold engine; ``manifest_now`` can be replaced by a newer version."""

    only: ThresholdEngine = field(default_factory=ThresholdEngine)
    manifest_now: EngineManifest = MANIFEST

    def manifests(self) -> tuple[EngineManifest, ...]:
        return (self.manifest_now,)

    def manifest(self, name: str) -> EngineManifest:
        if name != self.manifest_now.name:
            raise EngineFailed("There is no such engine.")
        return self.manifest_now

    def accepts(self, name: str, facts: SeriesFacts) -> Verdict:
        return Verdict(Answer.YES, "takes it")

    def engine(self, name: str) -> Engine:
        return self.only


@dataclass
class RecordingDestination:
    """A ``Destination`` in memory; ``fail_with`` is given as the answer to everything while it is set."""

    name: str = "pacs"
    fail_with: DeliveryError | None = None
    sent: list[Path] = field(default_factory=list)
    attempts: int = 0

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        self.attempts += 1
        if self.fail_with is None:
            self.sent += paths
        return [SendReport(sop_instance_uid="", error=self.fail_with) for _ in paths]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class LocalQueue:
    """A ``TaskQueue`` that runs tasks by hand; delays are honoured by the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: set[str] = set()
        self.waiting: list[tuple[datetime, Task]] = []

    def enqueue(self, task: Task) -> None:
        if task.identity not in self._known:
            self._known.add(task.identity)
            self.waiting.append((self._clock() + timedelta(seconds=task.delay_s), task))

    def active(self) -> set[str]:
        return {task.identity for _, task in self.waiting}

    def prune(self, older_than: timedelta) -> int:
        return 0

    def take(self) -> Task | None:
        """Return the next task that is due, by priority."""
        due = [entry for entry in self.waiting if entry[0] <= self._clock()]
        if not due:
            return None
        entry = min(due, key=lambda item: item[1].priority)
        self.waiting.remove(entry)
        return entry[1]


@dataclass
class Work:
    """The parts, joined; ``settle()`` lets the quiet period pass and works off what is due."""

    store: Store
    intake: Intake
    engines: OneEngine
    destination: RecordingDestination
    clock: Clock
    queue: LocalQueue
    steps: Steps
    watch: Watch

    def receive(self, datasets: Sequence[Dataset], *, sender: str = "CT01") -> list[Outcome]:
        """Take datasets in, as one group."""
        staged = []
        for dataset in datasets:
            item = self.intake.stage()
            dataset.save_as(item.path, enforce_file_format=True)
            staged.append(item)
        reception = Reception(transport="dimse", sender=sender, address="127.0.0.1", received_at=self.clock())
        return self.intake.commit(staged, reception)

    def settle(self, *, quiet_s: float = 11.0) -> None:
        """Let time pass, hand on what is complete, run everything that is due."""
        self.clock.sleep(quiet_s)
        self.watch.hand_on_complete_series()
        self.watch.bring_on_open_jobs()
        while (task := self.queue.take()) is not None:
            for following in self.steps.run(task):
                self.queue.enqueue(following)

    def keep_for(self, days: float) -> None:
        """Keep series for so long from now on, and let three times as long pass."""
        self.watch._settings = replace(self.watch._settings, retention_days=days)
        self.clock.sleep(3 * days * 86400)


@contextmanager
def working(
    folder: Path,
    *,
    routes: Sequence[Route] = (Route(name="all", engine="threshold"),),
    engines: OneEngine | None = None,
    database_url: str = "",
    retention_days: float = 0.0,
    destinations: Mapping[str, Destination] | None = None,
    writer: ResultWriter | None = None,
    guard: EngineGuard | None = None,
    profiles: Mapping[str, Profile] | Callable[[Store], Mapping[str, Profile]] | None = None,
) -> Iterator[Work]:
    """Join the parts on a store in ``folder``; profiles that need the store are made from it."""
    settings = StoreSettings(path=folder, low_water_mb=0)
    migrate_store(settings, database_url)
    engines, destination, clock = engines or OneEngine(), RecordingDestination(), Clock()
    to = {destination.name: destination} if destinations is None else destinations
    retries = DeliverySettings()
    with open_store(settings, database_url) as store:
        planner = Planner(routes, engines, tuple(to))
        made = profiles(store) if callable(profiles) else profiles or {}
        confirming = Confirming(jobs=store.jobs, transactions=store.transactions, profiles=made, clock=clock)
        steps = Steps(
            index=store.series,
            history=store.series,
            jobs=store.jobs,
            planner=planner,
            engines=engines,
            writer=writer or Writer(),
            guard=guard,
            delivering=Delivering(jobs=store.jobs, destinations=to, settings=retries, confirming=confirming),
            retries=retries,
            results=store.results,
            clock=clock,
        )
        queue = LocalQueue(clock)
        watch = Watch(
            index=store.series,
            jobs=store.jobs,
            queue=queue,
            steps=steps,
            planner=planner,
            completeness=CompletenessSettings(),
            settings=WatchSettings(results=store.results, retention_days=retention_days),
            sweep=store.sweep,
            clock=clock,
            bell=FileBell(folder / "bells"),
        )
        yield Work(
            store=store,
            intake=Intake(store.instances),
            engines=engines,
            destination=destination,
            clock=clock,
            queue=queue,
            steps=steps,
            watch=watch,
        )
