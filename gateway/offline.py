"""The whole way of a series in one process, without network or durable queue: ``voxgate run`` and ``routes test``.

The same intake, planner, steps and writers as the server's, on a store that lives for one call.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dicom_out.profile import DEFAULT, Profile
from domain.engine import Answer, Verdict
from domain.errors import ConfigurationError
from domain.instance import StoredInstance
from domain.job import Job, JobState
from domain.series import Resample
from gateway import wiring
from gateway.config import Config
from gateway.file_intake import FilesReport, OnStep, take_files
from gateway.preview import Preview
from gateway.sections import DrawingSection, PromptSection, RouteSection
from inference.registry import Registry
from pipeline.completeness import CompletenessSettings
from pipeline.drawings import DrawingPlans, unused_drawings
from pipeline.planning import Planner
from pipeline.task import Task
from store.store import Store
from volume.drawings.reading import DRAWING_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReport:
    """What became of one stack of one series on one route."""

    series_instance_uid: str = field(repr=False)
    series: int
    """1, 2, … in the order in which the series were met."""
    instances: int
    stack: str
    route: str
    engine: str
    state: JobState
    code: str
    reason: str
    timings_s: dict[str, float]
    summary: list[dict[str, object]]
    objects: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What became of all that was given."""

    series: tuple[SeriesReport, ...]
    files: FilesReport
    preview: Path | None = None
    """The picture; ``None`` where none was asked for, or there was nothing to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteReport:
    """What the routes say to one stack."""

    series_instance_uid: str = field(repr=False)
    series: int
    instances: int
    stack: str
    code: str
    reason: str
    """Why nothing would run; empty when a route takes it."""
    verdicts: tuple[tuple[str, Verdict], ...]


def analyse(
    paths: Sequence[Path],
    out: Path,
    *,
    config: Config,
    engine: str | None = None,
    prompt: tuple[PromptSection, ...] = (),
    resample: tuple[Resample, ...] = (),
    profile: Profile = DEFAULT,
    on_step: OnStep | None = None,
    registry: Registry | None = None,
    preview: Path | None = None,
) -> Analysis:
    """Run what the routes say (or ``engine``, on everything, with ``prompt`` and ``resample``) on the DICOM files.

    Writes what a destination with ``profile`` would get of each job below ``out``; reports on every stack, also on
    those that nothing took, and on files. The engines are those of ``registry``, some of which may be loaded already.
    What was found is drawn into ``preview``, a PNG.

    Raises
    ------
    ConfigurationError
        No file is DICOM, or there is no such engine.
    """
    config = _with_engine(config, engine, prompt, resample) if engine else config
    # Whatever a drawing could wait for is here already
    completeness = config.completeness.model_copy(update={"drawing_wait_s": 0.0})
    config = config.model_copy(update={"completeness": completeness})
    say = on_step or (lambda what, share: None)
    with _filled(paths, config, say) as (store, order, files):
        analysed = 0

        def tell(share: float) -> None:
            say("analysing", (analysed + share) / len(order))

        pictures = Preview()
        joined = wiring.parts(
            config, store, to={}, progress=tell, profile=profile, engines=registry,
            around_writer=pictures.around if preview else None,
        )  # fmt: skip
        # Drawings last: they are about images, which must be planned by then.
        for analysed, uid in enumerate(sorted(order, key=lambda uid: _holds_drawings(store, uid))):  # noqa: B007
            tell(0.0)
            _work_off(joined, uid)
        # When all are done: a study's job comes with its last series, a drawing's with the drawing.
        reports = [
            _report(job, number, _kept(job, store, out))
            for number, uid in enumerate(order, start=1)
            for job in reversed(store.jobs.find(series_instance_uid=uid))
        ]
        say("analysing", 1.0)
        shown = preview if preview and _is_saved(pictures, preview) else None
        return Analysis(series=tuple(reports), files=files, preview=shown)


def _is_saved(pictures: Preview, path: Path) -> bool:
    try:
        return pictures.save(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: the picture cannot be written: {error.strerror}") from error


def explain_routes(paths: Sequence[Path], config: Config) -> list[RouteReport]:
    """Tell which route takes which stack of the DICOM files below ``paths``, and why the others do not."""
    with _filled(paths, config, lambda what, share: None) as (store, order, files):
        if not order:
            raise ConfigurationError(f"none of {files.given} file(s) could be taken; voxgate inspect says why")
        planner = wiring.parts(config, store, to={}).planner
        for arrival in store.series.arrivals():  # everything is here
            store.series.freeze(arrival.series_instance_uid, arrival.revision)
        drawings = DrawingPlans(
            index=store.series,
            jobs=store.jobs,
            planner=planner,
            clock=wiring.now,
            completeness=CompletenessSettings(drawing_wait_s=0.0),
        )
        return [
            report
            for position, uid in enumerate(order, start=1)
            for report in _answers_to(store.series.instances(uid), position, planner, drawings)
        ]


def _answers_to(
    instances: Sequence[StoredInstance], series: int, planner: Planner, drawings: DrawingPlans
) -> Iterator[RouteReport]:
    """Yield what the routes say to the stacks of a series, and to what is drawn in it."""
    drawn = [item for item in instances if drawings.takes(item.header)]
    others = [item for item in instances if item not in drawn]
    paths = {item.header.sop_instance_uid: item.path for item in others}
    for plan in planner.plan(others, sender=None) if others else ():
        refused, unused = plan.refused_for, unused_drawings(plan.stack.headers, paths, planner)
        yield RouteReport(
            series_instance_uid=instances[0].header.series_instance_uid,
            series=series,
            instances=len(plan.stack.headers),
            stack=plan.stack.name,
            code=refused.code if refused else "",
            reason=f"{refused.reason} {unused}".strip() if refused else "",
            verdicts=plan.verdicts,
        )
    for item in drawn:
        fate = drawings.fate(item)
        routes = dict.fromkeys(job.route for job in fate.jobs)
        yield RouteReport(
            series_instance_uid=item.header.series_instance_uid,
            series=series,
            instances=1,
            stack="",
            code="" if routes else fate.code,
            reason="" if routes else fate.reason,
            verdicts=tuple((route, Verdict(Answer.YES, "points its engine at something")) for route in routes),
        )


def _with_engine(
    config: Config, engine: str, prompt: tuple[PromptSection, ...], resample: tuple[Resample, ...]
) -> Config:
    registry = wiring.engine_registry(config)
    obstacle = registry.unavailable().get(engine)
    if obstacle is not None:
        raise ConfigurationError(f'the engine "{engine}" cannot be used: {obstacle}')
    known = [manifest.name for manifest in registry.manifests()]
    if engine not in known:
        raise ConfigurationError(f'no engine called "{engine}"; known: {", ".join(known)}')
    takes_prompts = registry.manifest(engine).takes_prompts
    if prompt and not takes_prompts:
        raise ConfigurationError(f'the engine "{engine}" cannot be pointed at anything: leave out --box and --point')
    drawn = DrawingSection() if not prompt and takes_prompts else None
    route = RouteSection(
        name=f"run {engine}", engine=engine, prompt=prompt, prompts_from_dicom=drawn, resample=resample
    )
    return config.model_copy(update={"routes": (route,)})


def _holds_drawings(store: Store, series_instance_uid: str) -> bool:
    return any(item.header.sop_class_uid in DRAWING_CLASSES for item in store.series.instances(series_instance_uid))


@contextmanager
def _filled(paths: Sequence[Path], config: Config, say: OnStep) -> Iterator[tuple[Store, list[str], FilesReport]]:
    """Take all files into a store that is gone afterwards; yields it with the series in the order met."""
    with tempfile.TemporaryDirectory(prefix="voxgate-") as folder:
        here = Path(folder)
        store_section = config.store.model_copy(update={"path": here / "store", "low_water_mb": 0})
        database = type(config.database)()
        local = config.model_copy(update={"store": store_section, "database": database})
        wiring.prepare_store(local)
        with wiring.opened_store(local) as store:
            unpacked = here / "unpacked"
            files = list(files_below(paths, unpacked))
            report = take_files(files, wiring.intake(store), say, shown=lambda path: as_given(path, paths, unpacked))
            if not report.taken and not report.refused:
                raise ConfigurationError(f"no DICOM instance among {len(files)} file(s)")
            yield store, [arrival.series_instance_uid for arrival in store.series.arrivals()], report


def files_below(paths: Sequence[Path], unpacked: Path) -> Iterator[Path]:
    """Yield the files in ``paths`` (files, folders, zip archives); archives are unpacked below ``unpacked``."""
    for number, path in enumerate(paths):
        if not path.exists():
            raise ConfigurationError(f"{path}: there is no such file or folder")
        if path.is_dir():
            yield from sorted(item for item in path.rglob("*") if item.is_file())
        elif zipfile.is_zipfile(path):
            target = unpacked / str(number)
            _unzip(path, target)
            yield from sorted(item for item in target.rglob("*") if item.is_file())
        else:
            yield path


def as_given(path: Path, paths: Sequence[Path], unpacked: Path) -> Path:
    """Return a file's path as the user knows it: in an archive, below the archive's own path."""
    if not path.is_relative_to(unpacked):
        return path
    number, *inner = path.relative_to(unpacked).parts
    return paths[int(number)].joinpath(*inner)


def _require_room(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    """Refuse an archive that would fill the disk; what it unpacks to is limited by what it says here."""
    needed = 2 * sum(item.file_size for item in archive.infolist())  # unpacked, and in the store
    if needed > shutil.disk_usage(folder).free:
        raise ConfigurationError(f"{path}: unpacked it would need {needed >> 20} MB of room in {folder}")


def _unzip(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _require_room(archive, path, target.parent.parent)
            archive.extractall(target)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:  # the last: encrypted
        raise ConfigurationError(f"{path}: the archive is damaged or encrypted") from error


def _work_off(joined: wiring.Parts, series_instance_uid: str) -> None:
    """Run a series' tasks one after the other; a step that asks to be tried later is not."""
    arrival = next(a for a in joined.store.series.arrivals() if a.series_instance_uid == series_instance_uid)
    waiting = deque([Task(step="plan", args=(series_instance_uid, arrival.revision, "offline"), queue="cpu")])
    while waiting:
        for task in joined.steps.run(waiting.popleft()):
            if not task.delay_s:
                waiting.append(task)
    joined.store.series.freeze(series_instance_uid, arrival.revision)


def _kept(job: Job, store: Store, out: Path) -> tuple[Path, ...]:
    """Copy a job's objects to where the user asked for them."""
    copies = []
    for item in store.jobs.objects(job.job_id):
        target = out / job.job_id[:12] / item.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.path, target)
        copies.append(target)
    return tuple(copies)


def _report(job: Job, number: int, objects: tuple[Path, ...]) -> SeriesReport:
    return SeriesReport(
        series_instance_uid=job.series_instance_uid,
        series=number,
        instances=len(job.sop_instance_uids),
        stack=job.stack,
        route=job.route,
        engine=job.engine,
        state=job.state,
        code=job.code,
        reason="" if job.state is JobState.DONE else job.reason,
        timings_s=job.timings_s,
        summary=job.summary,
        objects=objects,
    )
