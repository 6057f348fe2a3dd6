"""What files hold and what would become of it, without storing anything: ``voxgate inspect``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID

from domain.context import StudyContext
from domain.engine import Answer, Verdict
from domain.errors import ConfigurationError, GatewayError, MalformedInstance
from domain.image import Raster, UltrasoundRegion
from domain.instance import Header, StoredInstance
from domain.job import Job
from domain.series import Resample, SeriesArrival, Stack
from domain.volume import Grid
from gateway import wiring
from gateway.config import Config
from gateway.file_intake import DIRECTORY, LeftOut, OnStep, is_directory
from gateway.offline import as_given, files_below
from pipeline.completeness import CompletenessSettings
from pipeline.context import ContextBuilder
from pipeline.drawings import DrawingFate, DrawingPlans, unused_drawings
from pipeline.planning import Planner, StackPlan
from volume.calibration import region_fault
from volume.digest import inspect, read_header
from volume.image_attributes import read_regions
from volume.kinds import ULTRASOUND_CLASSES
from volume.pet import suv_scale
from volume.pixel_format import unit_of
from volume.words import orientation_in_words, raster_in_words, size_in_words

_REPEATED = (
    "the same image as another one of its series (equal pixels, position and acquisition) under another UID; the one "
    "with the lower InstanceNumber is used"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackReport:
    """One stack: what it is, where it lies, and what becomes of it."""

    study: int
    """1, 2, … in the order in which the studies were met."""
    series: int
    stack: Stack = field(repr=False)
    paths: dict[str, Path] = field(repr=False)
    grid: Grid | None
    """``None`` where it is no volume."""
    raster: Raster | None
    """Of an image or a cine; ``None`` for anything else."""
    routes: tuple[str, ...]
    """That take it."""
    code: str
    reason: str
    """Why nothing would run; empty where a route takes it."""
    verdicts: tuple[tuple[str, Verdict], ...]
    prompts: bool = False
    """It is a drawing; ``routes`` are those whose engines it points at something."""
    resample: frozenset[Resample] = frozenset()
    """What the routes that take it have resampled; ``grid`` is then the resampled one."""

    @property
    def kind(self) -> str:
        """Modality and SOP Class in words."""
        mosaic = "" if self._first.tile is None else ", tiles of a mosaic"
        return f"{self._first.modality or 'no modality'}, {sop_class_in_words(self._first.sop_class_uid)}{mosaic}"

    @property
    def has_burned_in(self) -> bool:
        """Its header says that pixels identify the patient."""
        return any(header.burned_in_annotation == "YES" for header in self.stack.headers)

    @property
    def geometry(self) -> str:
        """Size and orientation of a volume, the matrix of anything else; empty where there is no image."""
        if self.grid is not None:
            return f"{size_in_words(self.grid)}, {orientation_in_words(self.grid)}"
        if self.raster is not None:
            return raster_in_words(self.raster)
        first = self._first
        if not first.has_pixel_data or not first.rows or not first.columns:
            return ""
        frames = f", {first.number_of_frames} frames" if (first.number_of_frames or 1) > 1 else ""
        return f"{first.columns} x {first.rows} pixels{frames}"

    @property
    def regions(self) -> tuple[tuple[UltrasoundRegion, str], ...]:
        """In ultrasound the calibrated regions, read from the file, each with why it cannot be measured in."""
        if self.raster is None or self._first.sop_class_uid not in ULTRASOUND_CLASSES:
            return ()
        try:
            found = read_regions(self._first, self.paths[self._first.sop_instance_uid])
        except GatewayError:
            return ()
        return tuple((region, region_fault(region, self.raster)) for region in found)

    @property
    def unit(self) -> str:
        """Unit of a volume's voxels; empty where it is arbitrary."""
        return unit_of(self._first) if self.grid is not None else ""

    @property
    def suv(self) -> tuple[float | None, str]:
        """In PET the factor to SUV by body weight, or why there is none."""
        if self.grid is None or self._first.modality != "PT":
            return None, ""
        scale = suv_scale(self.stack.headers)
        return scale.factor, scale.reason

    @property
    def verdict(self) -> str:
        """Which routes take it, or the named cause why none does."""
        how = f", resampled ({', '.join(sorted(self.resample))})" if self.resample else ""
        if self.prompts and self.routes:
            return "prompts " + ", ".join(self.routes)
        return "taken by " + ", ".join(self.routes) + how if self.routes else self.code

    @property
    def _first(self) -> Header:
        return self.stack.headers[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found."""

    stacks: tuple[StackReport, ...]
    left_out: tuple[LeftOut, ...]

    def context_of(self, report: StackReport) -> StudyContext:
        """Return what a model would be told beside the pixels; these files stand for the store."""
        return ContextBuilder(self).of(report.stack, report.paths)

    def other_studies(self, study_instance_uid: str) -> tuple[StoredInstance, ...] | None:
        """See ``PatientHistory.other_studies``; nobody knows what else the store holds, so that none is unknown."""
        found = [
            StoredInstance(header=first, path=item.paths[first.sop_instance_uid], received_at=wiring.now())
            for item in self.stacks
            for first in item.stack.headers[:1]
        ]
        mine = {item.header.patient for item in found if item.header.study_instance_uid == study_instance_uid}
        others = tuple(item for item in found if item.header.study_instance_uid != study_instance_uid)
        return tuple(item for item in others if mine == {item.header.patient}) or None if None not in mine else None


@contextmanager
def inspected(paths: Sequence[Path], config: Config, say: OnStep) -> Iterator[Inspection]:
    """Read all files and ask the planner; archives stay unpacked as long as the context is open."""
    with tempfile.TemporaryDirectory(prefix="voxgate-") as folder:
        unpacked = Path(folder)
        found = _Reader(lambda path: as_given(path, paths, unpacked))
        files = list(files_below(paths, unpacked))
        if not files:
            raise ConfigurationError("no DICOM instance among 0 file(s)")
        for number, path in enumerate(files):
            say("reading", number / len(files))
            found.read(path)
        planner = Planner(
            wiring.routes(config), wiring.engine_registry(config), [item.name for item in config.destinations]
        )
        say("proving geometry", 0.0)
        yield Inspection(stacks=tuple(found.reports(planner)), left_out=tuple(found.left_out))


class _Reader:
    """Collects instances by series, as intake and store would."""

    def __init__(self, shown: Callable[[Path], Path]) -> None:
        self._shown = shown
        self.left_out: list[LeftOut] = []
        self._series: dict[str, list[StoredInstance]] = {}
        self._paths: dict[str, Path] = {}

    def read(self, path: Path) -> None:
        """Take one file, or say why not."""
        try:
            header = read_header(path)
            first = self._paths.setdefault(header.sop_instance_uid, path)
            is_same = first is not path and inspect(first)[1] == inspect(path)[1]
        except MalformedInstance as error:
            reason = DIRECTORY if is_directory(path) else str(error)
            self.left_out.append(LeftOut(path=self._shown(path), reason=reason))
            return
        except OSError as error:
            self.left_out.append(LeftOut(path=self._shown(path), reason=f"cannot be read (errno {error.errno})"))
            return
        if first is not path:
            same = "the same instance again" if is_same else "SOPInstanceUID is there with another dataset"
            self.left_out.append(LeftOut(path=self._shown(path), reason=f"{same}; the first one is used"))
            return
        instance = StoredInstance(header=header, path=path, received_at=wiring.now())
        self._series.setdefault(header.series_instance_uid, []).append(instance)

    def reports(self, planner: Planner) -> Iterator[StackReport]:
        """Yield every stack of every series, studies and series in the order met."""
        studies: dict[str, int] = {}
        at_once = CompletenessSettings(drawing_wait_s=0.0)
        drawings = DrawingPlans(
            index=_Files(self._series), jobs=_NoJobs(), planner=planner, clock=wiring.now, completeness=at_once
        )
        for uid, instances in self._series.items():
            studies.setdefault(instances[0].header.study_instance_uid, len(studies) + 1)
            number = list(self._series).index(uid) + 1
            paths = {item.header.sop_instance_uid: item.path for item in instances}
            study = studies[instances[0].header.study_instance_uid]
            drawn = [item for item in instances if drawings.takes(item.header)]
            others = [item for item in instances if item not in drawn]
            plans = planner.plan(others, sender=None) if others else ()
            self._leave_out_repeated(others, plans)
            for plan in plans:
                unused = unused_drawings(plan.stack.headers, paths, planner)
                yield _report(plan, paths, study=study, series=number, note=unused)
            for item in drawn:
                yield _drawing_report(item, drawings.fate(item), paths, study=study, series=number)

    def _leave_out_repeated(self, instances: Sequence[StoredInstance], plans: Sequence[StackPlan]) -> None:
        """List the images that are in no stack: they are there once more (``volume.repeats``)."""
        used = {header.sop_instance_uid for plan in plans for header in plan.stack.headers}
        for item in instances:
            if item.header.sop_instance_uid not in used:
                self.left_out.append(LeftOut(path=self._shown(item.path), reason=_REPEATED))


class _NoJobs:
    """Nothing has been analysed yet."""

    def find(self, *, series_instance_uid: str) -> list[Job]:
        return []

    def get(self, job_id: str) -> Job | None:
        return None


class _Files:
    """The instances that were given, in place of a store's index; see ``pipeline.drawings.DrawingIndex``."""

    def __init__(self, series: Mapping[str, list[StoredInstance]]) -> None:
        self._series = series

    def instances(self, series_instance_uid: str) -> Sequence[StoredInstance]:
        return self._series.get(series_instance_uid, [])

    def instances_by_uid(self, sop_instance_uids: Sequence[str]) -> Sequence[StoredInstance]:
        wanted = set(sop_instance_uids)
        return [item for items in self._series.values() for item in items if item.header.sop_instance_uid in wanted]

    def conflicts(self, series_instance_uid: str) -> int:
        return 0

    def arrivals(self) -> list[SeriesArrival]:
        return []

    def sender(self, series_instance_uid: str) -> str | None:
        return None

    def series_in_study(self, study_instance_uid: str) -> list[str]:
        studies = {uid: items[0].header.study_instance_uid for uid, items in self._series.items()}
        return [uid for uid, study in studies.items() if study == study_instance_uid]


def _drawing_report(
    instance: StoredInstance, fate: DrawingFate, paths: dict[str, Path], *, study: int, series: int
) -> StackReport:
    routes = tuple(dict.fromkeys(job.route for job in fate.jobs))
    return StackReport(
        study=study,
        series=series,
        stack=Stack(name="", headers=(instance.header,)),
        paths=paths,
        grid=None,
        raster=None,
        routes=routes,
        code="" if routes else fate.code,
        reason="" if routes else fate.reason,
        verdicts=(),
        prompts=True,
    )


def _report(plan: StackPlan, paths: dict[str, Path], *, study: int, series: int, note: str = "") -> StackReport:
    refused = plan.refused_for
    return StackReport(
        study=study,
        series=series,
        stack=plan.stack,
        paths=paths,
        grid=plan.grid,
        raster=plan.raster,
        routes=tuple(name for name, verdict in plan.verdicts if verdict.answer is Answer.YES),
        code=refused.code if refused else "",
        reason=f"{refused.reason} {note}".strip() if refused else "",
        verdicts=plan.verdicts,
        resample=plan.resample,
    )


def sop_class_in_words(uid: str) -> str:
    """Return the name of a SOP Class without the word that they all share."""
    name = UID(uid).name
    if name == uid:
        return "private SOP class" if UID(uid).is_private else "SOP class not known here"
    return name.removesuffix(" Storage")
