"""From a received drawing to jobs on the images that it is about, or to a stated reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from domain.errors import DrawingRefused, GatewayError, StorageError
from domain.instance import Header, StoredInstance
from domain.job import Job, JobState
from domain.prompt import Prompt
from domain.series import SeriesArrival, Stack
from pipeline.completeness import CompletenessSettings, readiness
from pipeline.planning import Planner, StackPlan
from volume.drawing_file import read_drawing
from volume.drawings.placing import Slices, is_on, prompt_on
from volume.drawings.reading import DRAWING_CLASSES
from volume.drawings.sketch import Sketch, SketchedObject
from volume.geometry import geometry

T = TypeVar("T")

PROMPTS, WAITING, MISSING = "drawing", "waiting", "images-missing"
REFUSED, SUPERSEDED = "drawing-refused", "superseded"


class DrawingIndex(Protocol):
    """What is looked up of stored instances; see ``domain.ports.SeriesIndex``."""

    def instances(self, series_instance_uid: str) -> Sequence[StoredInstance]: ...

    def instances_by_uid(self, sop_instance_uids: Sequence[str]) -> Sequence[StoredInstance]: ...

    def arrivals(self) -> list[SeriesArrival]: ...

    def conflicts(self, series_instance_uid: str) -> int: ...

    def sender(self, series_instance_uid: str) -> str | None: ...

    def series_in_study(self, study_instance_uid: str) -> list[str]: ...


class DrawnJobs(Protocol):
    """The jobs that earlier drawings have started; see ``domain.ports.JobLog``."""

    def find(self, *, series_instance_uid: str) -> list[Job]: ...

    def get(self, job_id: str) -> Job | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingFate:
    """What becomes of one drawing."""

    code: str
    reason: str
    jobs: tuple[Job, ...] = ()
    outdated: tuple[Job, ...] = field(default=(), repr=False)
    """Earlier jobs that these replace; its own where it is superseded."""
    answered: tuple[Job, ...] = field(default=(), repr=False)
    """Statements about the images that no longer hold: that nothing runs on them."""

    @property
    def waits(self) -> bool:
        """Look again later."""
        return self.code == WAITING


class _Waits(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class DrawingPlans:
    """Plans drawings, and finds a job's prompt again."""

    def __init__(
        self,
        *,
        index: DrawingIndex,
        jobs: DrawnJobs,
        planner: Planner,
        clock: Callable[[], datetime],
        completeness: CompletenessSettings,
    ) -> None:
        self._index = index
        self._jobs = jobs
        self._planner = planner
        self._clock = clock
        self._completeness = completeness
        self._wait_s = completeness.drawing_wait_s

    def takes(self, header: Header) -> bool:
        """Tell whether an instance may prompt: a route opts in, it can hold a drawing, and it is not our own."""
        return self._planner.takes_drawings and header.sop_class_uid in DRAWING_CLASSES and not header.is_own_result

    def delay_s(self, drawings: Sequence[StoredInstance]) -> float:
        """Return when to look again: within seconds at first, every half minute in the end."""
        return min(max(min(map(self._waited_s, drawings)) / 4, 1.0), 30.0)

    def fate(self, instance: StoredInstance, *, planned: str = "") -> DrawingFate:
        """Return what becomes of a drawing now; ``planned`` is a series that is about to be planned, and whole."""
        try:
            return self._planned(instance, self._sketch(instance), planned)
        except DrawingRefused as error:
            return DrawingFate(code=REFUSED, reason=f"It is no prompt. {error}")
        except _Waits as wait:
            if not self._is_overdue(instance):
                return DrawingFate(code=WAITING, reason=f"{wait} It waits for them, at most {self._wait_s:g} s.")
            return DrawingFate(
                code=MISSING,
                reason=f"{wait} It has waited {self._wait_s:g} s; when they come it is looked at again.",
            )

    def brings_news(self, drawing: StoredInstance, planned: str, *, said: str = "") -> bool:
        """Tell whether a drawing of another series is worth a plan of its own, now that ``planned`` is whole.

        It is where something else than ``said`` becomes of it, or a job that is not known. To plan it in any other
        case might have it and ``planned``, if that holds a drawing too, wake each other for ever.
        """
        try:
            fate = self.fate(drawing, planned=planned)
        except StorageError:
            return True  # its own plan says so, and not that of the series that asks
        return (said not in ("", fate.code)) or any(self._jobs.get(job.job_id) is None for job in fate.jobs)

    def instances(self, drawing: str) -> tuple[StoredInstance, ...]:
        """Return what a drawing is made of, as far as it is stored: itself, and the segmentations it refers to."""
        found = tuple(self._index.instances_by_uid((drawing,)))
        try:
            uids = [uid for item in found for uid in _referred(read_drawing(item.path))]
        except DrawingRefused:
            return found
        return (*found, *self._index.instances_by_uid(uids))

    def prompt(self, job: Job, stack: Stack) -> Prompt:
        """Return the prompt of a job that comes from a drawing.

        Raises
        ------
        DrawingRefused
            The drawing is no longer stored, or the route takes nothing of it any more.
        """
        (instance,) = self._index.instances_by_uid((job.drawing,)) or (None,)
        if instance is None:
            raise DrawingRefused("The drawing is no longer stored; send it again.")
        proven = geometry(stack)
        slices = Slices(headers=proven.headers, grid=proven.grid)
        try:
            sketch = self._sketch(instance)
        except _Waits:
            raise DrawingRefused("A segmentation that it refers to is no longer stored; send it again.") from None
        wanted, _ = self._planner.drawn_objects(job.route, _objects(sketch, slices), self._sender(instance))
        if not wanted:
            raise DrawingRefused("The route takes nothing of the drawing any more.")
        return prompt_on(sketch, wanted, slices, self._planner.contours(job.route))

    # -- Planning -----------------------------------------------------------------------------------------------

    def _planned(self, instance: StoredInstance, sketch: Sketch, planned: str) -> DrawingFate:
        jobs, said, answered = [], [], []
        prompts: dict[str, Prompt] = {}
        sender = self._sender(instance)
        for uid in self._series(sketch, planned, is_overdue=self._is_overdue(instance)):
            for plan in self._planner.plan(self._index.instances(uid), sender=self._index.sender(uid)):
                own, reasons = self._on_stack(plan, sketch, sender, self._index.sender(uid), prompts)
                jobs += own
                said += reasons
                # What is said of many stacks at once stays true of the others.
                alone = [job for job in plan.jobs if len(job.sop_instance_uids) == len(plan.stack.headers)]
                answered += [job for job in alone if own and job.state is JobState.NOT_RUN]
        if not jobs:
            raise DrawingRefused(" ".join(dict.fromkeys(said)) or "It is not drawn on the images that it names.")
        return self._in_succession(instance, sketch, jobs, answered, prompts)

    def _on_stack(
        self,
        plan: StackPlan,
        sketch: Sketch,
        sender: str | None,
        images_sender: str | None,
        prompts: dict[str, Prompt],
    ) -> tuple[list[Job], list[str]]:
        """Return the jobs that a drawing starts on a stack, and what speaks against others; notes their prompts."""
        uids = {header.sop_instance_uid for header in plan.stack.headers}
        named = bool(uids & sketch.images)
        if sketch.images and not named:
            return [], []
        if plan.grid is None:
            cause = (
                plan.jobs[0].reason if plan.jobs[0].state is JobState.NOT_RUN else "they lie nowhere in the patient."
            )
            return [], [f"The images that it is drawn on are no volume: {cause}"]
        if plan.resample:
            return [], [
                "The images that it is drawn on must be resampled to be a volume; drawings are not moved there."
            ]
        slices = Slices(headers=plan.stack.headers, grid=plan.grid)
        objects = _objects(sketch, slices)
        if not objects and plan.stack.headers[0].tile is not None:
            return [], ["It is drawn on the pixels of a mosaic; draw in the frame of reference, or on single slices."]
        if not objects:
            return [], []
        jobs, said = [], []
        for route, verdict in self._planner.ask_drawn(plan, images_sender):
            wanted, chosen = self._planner.drawn_objects(route.name, objects, sender)
            if verdict is not None or not wanted:
                said.append(f"route {route.name!r}: {verdict or chosen.reason}.")
                continue
            try:
                prompt = prompt_on(sketch, wanted, slices, self._planner.contours(route.name))
                jobs.append(self._planner.drawn_job(plan, route, prompt))
                prompts[jobs[-1].job_id] = prompt
            except DrawingRefused as error:
                said.append(str(error))
        return jobs, said

    def _in_succession(
        self,
        instance: StoredInstance,
        sketch: Sketch,
        jobs: list[Job],
        answered: list[Job],
        prompts: dict[str, Prompt],
    ) -> DrawingFate:
        """Let the jobs follow those of earlier versions of the drawing, or stand back behind a later version."""
        own = {job.job_id for job in jobs}
        outdated, named = [], []
        for job in jobs:
            for other in self._jobs.find(series_instance_uid=job.series_instance_uid):  # newest first
                if not other.drawing or other.job_id in own or (other.route, other.engine) != (job.route, job.engine):
                    continue
                newer = self._is_newer(instance, sketch, other)
                if newer is None:
                    continue
                if not newer:
                    return DrawingFate(
                        code=SUPERSEDED,
                        reason="An edited version of it is here, and is used.",
                        outdated=tuple(item for uid in sorted(own) if (item := self._jobs.get(uid)) is not None),
                    )
                outdated.append(other)
                if job.predecessor is None and other.state is not JobState.QUEUED and other.code != SUPERSEDED:
                    job = replace(job, generation=other.generation + 1, predecessor=other.job_id)
            named.append(job)
        started = ", ".join(
            dict.fromkeys(
                f"{job.job_id[:12]} (route {job.route!r}, as {prompts[job.job_id].in_words})" for job in named
            )
        )
        return DrawingFate(
            code=PROMPTS,
            reason=f"It is the prompt of job {started} on the images that it is drawn on.",
            jobs=tuple(named),
            outdated=tuple(outdated),
            answered=tuple(answered),
        )

    def _is_newer(self, instance: StoredInstance, sketch: Sketch, other: Job) -> bool | None:
        """Tell whether a drawing replaces that of another job; ``None``: they have nothing to do with each other."""
        uid = sketch.drawing.sop_instance_uid
        if other.drawing == uid:
            return True  # the set of images, or the route, has changed
        (earlier,) = self._index.instances_by_uid((other.drawing,)) or (None,)
        if earlier is None:
            return None
        try:
            before = self._sketch(earlier)
        except (DrawingRefused, _Waits):
            return None
        if before.drawing.sop_instance_uid in sketch.predecessors:
            return True
        if uid in before.predecessors:
            return False
        if not sketch.replaces(before):
            return None
        # The UID, since all of one STOW-RS request came at the same time: each must not replace the other
        return (sketch.made_at, instance.received_at, uid) > (before.made_at, earlier.received_at, other.drawing)

    # -- Finding ------------------------------------------------------------------------------------------------

    def _sketch(self, instance: StoredInstance) -> Sketch:
        """Return what is drawn, with the masks of the segmentations that a report refers to."""
        sketch = read_drawing(instance.path)
        uids = _referred(sketch)
        if not uids:
            return sketch
        stored = self._index.instances_by_uid(uids)
        if len(stored) < len(uids):
            raise _Waits("The segmentation that it refers to has not come, nor may its images have.")
        if any(item.header.is_own_result for item in stored):
            raise DrawingRefused("It refers to a segmentation that Voxgate made itself; own results never prompt.")
        return sketch.with_segments(tuple(read_drawing(item.path) for item in stored))

    def _series(self, sketch: Sketch, planned: str, *, is_overdue: bool) -> list[str]:
        """Return the series that a drawing is about, all of them complete; when it is overdue those that came."""
        shown = {shape.image.sop_instance_uid for item in sketch.objects for shape in item.shapes if shape.image}
        named = self._index.instances_by_uid(sorted(sketch.images))
        found = _distinct(item.header.series_instance_uid for item in named if not _is_drawing(item.header))
        if not found:
            found = list(self._by_series(sketch))
        if not found:
            raise _Waits("No image that it is drawn on has come.")
        if not is_overdue and not shown <= {item.header.sop_instance_uid for item in named}:
            raise _Waits("Some images that it is drawn on have not come.")
        # Its own series, should it hold the images too, is the one that is being planned
        others = set(found) - {sketch.drawing.series_instance_uid, planned}
        arrivals = (arrival for arrival in self._index.arrivals() if arrival.series_instance_uid in others)
        if not all(map(self._is_planned_but_for_drawings, arrivals)):
            raise _Waits("The images that it is drawn on are still arriving.")
        return found

    def _is_planned_but_for_drawings(self, arrival: SeriesArrival) -> bool:
        """Tell whether a series is whole and only a drawing in it waits: for images that may wait for this one."""
        conflicts = self._index.conflicts(arrival.series_instance_uid)
        if not readiness(arrival, self._clock(), self._completeness, conflicts=conflicts).ready:
            return False
        stated = self._jobs.find(series_instance_uid=arrival.series_instance_uid)
        return any(job.code == WAITING for job in stated)

    def _by_series(self, sketch: Sketch) -> Iterator[str]:
        """Yield the named series, or where none is named those of the study in the same frame of reference."""
        for uid in sketch.series or self._index.series_in_study(sketch.study_instance_uid):
            headers = [item.header for item in self._index.instances(uid)]
            frames = {header.frame_of_reference_uid for header in headers if not _is_drawing(header)}
            if frames and (sketch.series or frames & sketch.frames_of_reference):
                yield uid

    def _sender(self, instance: StoredInstance) -> str | None:
        return self._index.sender(instance.header.series_instance_uid)

    def _is_overdue(self, instance: StoredInstance) -> bool:
        return self._waited_s(instance) >= self._wait_s

    def _waited_s(self, instance: StoredInstance) -> float:
        return (self._clock() - instance.received_at).total_seconds()


def unused_drawings(headers: Sequence[Header], paths: Mapping[str, Path], planner: Planner) -> str:
    """Return a sentence about drawings where no route takes any; empty where there are none."""
    if planner.takes_drawings:
        return ""
    drawn = [h for h in headers if h.sop_class_uid in DRAWING_CLASSES and not h.is_own_result]
    count = sum(_is_drawn_in(paths[header.sop_instance_uid]) for header in drawn)
    if not count:
        return ""
    return (
        f"In {count} of them something is drawn that an engine could be pointed at; no route takes drawings "
        "(prompts_from_dicom)."
    )


def _is_drawn_in(path: Path) -> bool:
    try:
        return bool(read_drawing(path).objects)
    except GatewayError:
        return False


def _referred(sketch: Sketch) -> tuple[str, ...]:
    """Return the SOP Instance UIDs of the segmentations that a drawing refers to."""
    return tuple(dict.fromkeys(item.sop_instance_uid for item in sketch.segments))


def _objects(sketch: Sketch, slices: Slices) -> tuple[SketchedObject, ...]:
    return tuple(item for item in sketch.objects if is_on(item, sketch, slices))


def _distinct(values: Iterator[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _is_drawing(header: Header) -> bool:
    return header.sop_class_uid in DRAWING_CLASSES or not header.has_pixel_data
