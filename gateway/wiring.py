"""The composition root: makes the parts from the configuration and joins them. The one module that knows them all.

Each part is imported where it is joined, so that a receiver does not carry what only a worker needs.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_out.profile import DEFAULT, Profile
from domain.errors import ConfigurationError, StorageError
from domain.job import JobState
from domain.ports import Destination, ResultWriter
from gateway.bells import bell_of, bells_folder, tells_of_arrivals
from gateway.config import Config
from gateway.devices import gpu_queues
from gateway.health import health
from gateway.runfiles import run_folder
from pipeline.bell import ARRIVALS
from pipeline.completeness import CompletenessSettings
from pipeline.intake import Intake
from store.database import translated
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

if TYPE_CHECKING:
    from flask import Flask

    from inference.api import MakesDicom
    from inference.registry import Registry
    from pipeline.guard import EngineGuard
    from pipeline.jobs import JobEngine
    from pipeline.planning import Planner
    from pipeline.rules import Route
    from pipeline.steps import Steps

log = logging.getLogger(__name__)

Ready = Callable[..., None]
_SAY_S = 2.0
_HTTP_PROCESSES = 4
"""At most, where nothing is said: more of them would wait for the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a process that works on jobs needs."""

    store: Store
    engines: Registry
    planner: Planner
    steps: Steps


def store_settings(config: Config) -> StoreSettings:
    """Return ``[store]`` as the store takes it."""
    return StoreSettings(path=config.store.path, low_water_mb=config.store.low_water_mb)


@contextmanager
def opened_store(config: Config) -> Iterator[Store]:
    """Open files and index; the database must have been migrated (``prepare``)."""
    with open_store(store_settings(config), config.database.url.get_secret_value()) as store:
        yield store


def prepare_store(config: Config) -> None:
    """Create or migrate the store's folder and index."""
    url = config.database.url.get_secret_value()
    try:
        migrate_store(store_settings(config), url)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) or not url:
            raise
        raise StorageError(
            "database.url: the database cannot be reached and written with this address, user and password"
        ) from error


def prepare(config: Config) -> None:
    """Migrate the database and bring files and index into agreement; before any other part runs."""
    from pipeline.jobs import jobs_url, migrate

    prepare_store(config)
    with translated():
        migrate(jobs_url(config.database.url.get_secret_value(), config.store.path))
    with opened_store(config) as store:
        found = store.reconcile()
        log.info("store reconciled", extra={"found": found})


def engine_registry(config: Config) -> Registry:
    """Return the engines of this installation with their settings."""
    from inference.registry import Registry

    settings = {name: section.model_dump() for name, section in config.engines.items()}
    return Registry(settings, weights=weights_folder(config))


def weights_folder(config: Config) -> Path | None:
    """Return ``[weights] path``; ``None`` where it is below a home directory and there is none."""
    try:
        return config.weights.path.expanduser()
    except RuntimeError:
        return None


def routes(config: Config) -> tuple[Route, ...]:
    """Return ``[[routes]]`` as the pipeline takes them."""
    from gateway.prompts import prompt_of
    from pipeline.rules import DrawingRule, Route

    return tuple(
        Route(
            **section.model_dump(exclude={"prompt", "prompts_from_dicom"}),
            prompt=prompt_of(section.prompt),
            prompts_from_dicom=DrawingRule(**rule.model_dump()) if (rule := section.prompts_from_dicom) else None,
        )
        for section in config.routes
    )


def destinations(config: Config) -> dict[str, Destination]:
    """Return ``[[destinations]]`` by name."""
    from gateway import destinations

    return destinations.destinations(config.destinations)


def parts(
    config: Config,
    store: Store,
    *,
    to: Mapping[str, Destination] | None = None,
    guard: EngineGuard | None = None,
    progress: Callable[[float], None] | None = None,
    profile: Profile = DEFAULT,
    engines: Registry | None = None,
    around_writer: Callable[[ResultWriter], ResultWriter] | None = None,
) -> Parts:
    """Join planner, engines, writers and destinations (default: the configured ones) on an open store.

    ``progress`` is told how much of a case is done, by engines that can tell. ``profile`` says what is written of a
    job without a destination. ``around_writer`` returns what writes in place of the writer that it is given.
    """
    from dicom_out.kind import WriterSettings
    from dicom_out.writer import Writer
    from gateway.destinations import profiles
    from gateway.profiles import profiles_of_destinations
    from pipeline.confirming import Confirming
    from pipeline.delivering import Delivering
    from pipeline.delivery import DeliverySettings
    from pipeline.planning import Planner
    from pipeline.steps import Steps

    to = destinations(config) if to is None else to
    engines = engines or engine_registry(config)
    retries = DeliverySettings(**config.delivery.model_dump())
    planner = Planner(routes(config), engines, tuple(to))
    known = profiles(config.destinations, store)
    confirming = Confirming(jobs=store.jobs, transactions=store.transactions, profiles=known, clock=now)
    writer = Writer(
        WriterSettings(software_version=version("voxgate")),
        profiles=profiles_of_destinations(config),
        default=profile,
    )
    steps = Steps(
        index=store.series,
        history=store.series,
        jobs=store.jobs,
        planner=planner,
        engines=engines,
        writer=around_writer(writer) if around_writer else writer,
        delivering=Delivering(jobs=store.jobs, destinations=to, settings=retries, confirming=confirming),
        retries=retries,
        results=store.results,
        clock=now,
        guard=guard,
        progress=progress,
        completeness=completeness(config),
    )
    return Parts(store=store, engines=engines, planner=planner, steps=steps)


def completeness(config: Config) -> CompletenessSettings:
    """Return ``[completeness]`` as the pipeline takes it."""
    return CompletenessSettings(**config.completeness.model_dump())


def now() -> datetime:
    """Return the time; timezone-aware UTC."""
    return datetime.now(UTC)


def intake(store: Store, *, on_kept: Callable[[], None] = lambda: None) -> Intake:
    """Return the way in for every transport."""
    return Intake(store.instances, on_kept=on_kept)


def run_scp(config: Config, ready: Ready, stop: threading.Event) -> None:
    """Take instances by DIMSE until ``stop`` is set."""
    from scp.server import StorageCommitment, serving
    from scp.settings import ScpSettings

    settings = ScpSettings(**config.scp.model_dump(exclude={"allow_any_peer"}))
    with opened_store(config) as store:
        commitment = StorageCommitment(
            requests=store.commitment_requests, transactions=store.transactions, index=store.series
        )
        with serving(settings, intake(store, on_kept=tells_of_arrivals(config)), commitment) as port:
            ready(port=port, host=config.scp.host, ae_title=config.scp.ae_title)
            stop.wait()


def http_processes(config: Config) -> int:
    """Return how many processes take requests; those that answer questions are one, which holds the models."""
    if config.predict.enabled:
        return 1
    return config.http.processes or min(_HTTP_PROCESSES, len(os.sched_getaffinity(0)))


def run_http(config: Config, ready: Ready, stop: threading.Event) -> None:
    """Take instances by STOW-RS and answer questions about jobs, until ``stop`` is set or a signal comes."""
    from gateway.http import HttpSettings, create_app
    from gateway.http_server import serve
    from inference.api import PredictService
    from inference.predict_settings import PredictSettings

    settings = HttpSettings(**{**config.http.plain(), "processes": http_processes(config)})
    stack = ExitStack()  # held by the worker process that gunicorn forks: the store must be opened after the fork

    def make() -> Flask:
        store = stack.enter_context(opened_store(config))
        registry = engine_registry(config)
        asking = config.engines.get(config.predict.engine)
        return create_app(
            intake(store, on_kept=tells_of_arrivals(config)),
            store.series,
            store.jobs,
            settings,
            lambda: health(config, store),
            version=version("voxgate"),
            engines=registry.manifests(),
            predict=PredictService(
                registry,
                PredictSettings(**config.predict.model_dump(), folder=config.store.path / "predictions"),
                asking.device if asking else "",
                _dicom_answers(config, registry) if config.predict.enabled else None,
            ),
        )

    def listening(port: int) -> None:
        # gunicorn has put its own signal handlers in place; whoever else wants an end goes through them.
        threading.Thread(target=_end_on, args=(stop,), name="stop", daemon=True).start()
        ready(port=port, host=config.http.host)

    with stack:  # empty but in the process that made the application: the end of that one unwinds through here too
        serve(settings, make, on_listening=listening)


def _dicom_answers(config: Config, registry: Registry) -> MakesDicom:
    from gateway.dicom_answers import dicom_answers

    return dicom_answers(config, registry)


def _end_on(stop: threading.Event) -> None:
    stop.wait()
    os.kill(os.getpid(), signal.SIGTERM)


def run_worker(config: Config, ready: Ready, stop: threading.Event) -> None:
    """Plan, encode and deliver until ``stop`` is set; hands on complete series and looks after the store."""
    from pipeline.watch import Watch, WatchSettings

    with opened_store(config) as store, _job_engine(config, store, "worker", ("cpu", "deliver")) as (joined, engine):
        watch = Watch(
            index=store.series,
            jobs=store.jobs,
            queue=engine,
            steps=joined.steps,
            planner=joined.planner,
            completeness=completeness(config),
            settings=WatchSettings(retention_days=config.store.retention_days, results=store.results),
            sweep=store.sweep,
            clock=now,
            bell=bell_of(config, ARRIVALS),
        )
        ready()
        watch.run(stop)


def run_gpu(
    config: Config,
    ready: Ready,
    stop: threading.Event,
    *,
    queue: str,
    report: Callable[[Mapping[str, object]], None],
) -> None:
    """Run the engines of one CUDA device, one case at a time, until ``stop`` is set.

    Where the device is not there no case is taken: another host may have it. Jobs that wait say so.
    """
    from inference.devices import device_fault

    device = gpu_queues(config).get(queue)
    if device is None:
        raise ConfigurationError(f"no engine has this device: [engines.*] device (queue {queue})")
    fault = device_fault(device)
    with opened_store(config) as store:
        if fault is not None:
            _without_device(config, store, queue, f"{device} cannot be used: {fault}", ready, stop)
            return
        with _job_engine(config, store, queue, (queue,), report=report):
            ready(device=device)
            stop.wait()


def _without_device(
    config: Config, store: Store, queue: str, fault: str, ready: Ready, stop: threading.Event
) -> None:
    """Say of every job that waits for a device why this host does not run it."""
    log.error("device cannot be used", extra={"queue": queue, "why": fault})
    engines = engine_registry(config)
    mine = {manifest.name for manifest in engines.manifests() if manifest.device == queue}
    reason = (
        f"Waits for the device of its engine: {fault}. Mend that and start Voxgate again, set another "
        f"[engines.*] device, or run voxgate serve --role gpu on the host that has it."
    )
    ready(fault=fault)
    while not stop.wait(_SAY_S):
        try:
            for job in store.jobs.find(state=JobState.QUEUED):
                if job.engine in mine and job.reason != reason:
                    store.jobs.update(job.job_id, reason=reason)
        except StorageError:
            log.warning("index unreachable; what waits is stated later")


def run_infer(
    config: Config, ready: Ready, stop: threading.Event, *, report: Callable[[Mapping[str, object]], None]
) -> None:
    """Run the engines that compute on the CPU, one case at a time, until ``stop`` is set."""
    with opened_store(config) as store, _job_engine(config, store, "infer", ("infer-cpu",), report=report):
        ready()
        stop.wait()


@contextmanager
def _job_engine(
    config: Config,
    store: Store,
    role: str,
    queues: tuple[str, ...],
    *,
    report: Callable[[Mapping[str, object]], None] = lambda message: None,
) -> Iterator[tuple[Parts, JobEngine]]:
    from gateway.crashes import CrashNotes, SupervisedEngine
    from pipeline.jobs import JobEngine, JobEngineSettings, jobs_url, reached
    from pipeline.liveness import liveness, new_executor_id
    from pipeline.takeover import Reaper

    guard = SupervisedEngine(CrashNotes(config.store.path), report)
    joined = parts(config, store, guard=guard)
    url = jobs_url(config.database.url.get_secret_value(), config.store.path)
    executor_id = new_executor_id(role)
    locks = liveness(url, run_folder(config.store.path) / "workers", executor_id)
    settings = JobEngineSettings(
        url=url, executor_id=executor_id, queues=queues, devices=tuple(gpu_queues(config)), bells=bells_folder(config)
    )
    with reached():
        locks.keep()  # before the first task is taken: who owns one and has no lock is dead
        engine = JobEngine(settings, joined.steps.run)
        reaper = Reaper(engine, locks, executor_id)
        engine.start()
    reaper.start()
    try:
        yield joined, engine
    finally:
        reaper.stop()
        engine.stop()
        if not engine.busy():  # a step that still runs ends with the process, and only then the lock
            locks.release()
