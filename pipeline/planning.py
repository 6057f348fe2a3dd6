"""From an arrived set of instances to jobs, and to a stated reason where there is none."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domain.engine import Answer, EngineRegistry, Verdict, job_id
from domain.errors import AssemblyError, GatewayError
from domain.image import Raster
from domain.instance import Header, StoredInstance
from domain.job import Job, JobState
from domain.prompt import Prompt
from domain.series import RefusalCode, Resample, SeriesFacts, Stack, StackKind
from domain.volume import Grid
from pipeline.rules import Route
from pipeline.statements import PART_OF_STUDY, not_run, why_no_route
from volume.drawings.placing import Contours
from volume.drawings.sketch import SketchedObject
from volume.facts import facts
from volume.frames import frame_numbers, image_names
from volume.geometry import geometry
from volume.grouping import received_order
from volume.image_attributes import read_view
from volume.image_format import MOST_BYTES, bytes_needed, raster_of
from volume.repeats import group_stored
from volume.resample import resampling_of
from volume.views import VIEW_POSITIONS
from volume.words import stacks_in_words

Sender = Callable[[str], str | None]
"""Calling AE title that a series came from."""

STAT = 1
FEW = 8
"""Volumes of a series of which each has a statement of its own, though all are alike."""
_TOLD = frozenset(
    (
        RefusalCode.MISSING_SLICES, RefusalCode.VARIABLE_SPACING, RefusalCode.DUPLICATE_POSITION,
        RefusalCode.GANTRY_TILT, RefusalCode.IN_PLANE_DRIFT,
    )
)  # fmt: skip
"""Refusals of what is a series of slices and does not form a volume: to be told where a route asks for it."""
_PRIORITIES = {"STAT": STAT, "HIGH": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPlan:
    """One stack with what is to happen to it: jobs on routes, or one statement why nothing does."""

    stack: Stack
    grid: Grid | None
    """Of a volume."""
    raster: Raster | None
    """Of an image or a cine."""
    jobs: tuple[Job, ...]
    verdicts: tuple[tuple[str, Verdict], ...] = ()
    """Every route's answer, by route name."""
    resample: frozenset[Resample] = frozenset()
    """What is taken out of the slices for the routes that allow it; ``grid`` is then the resampled one."""

    @property
    def refused_for(self) -> Job | None:
        """The statement why nothing works on the stack; ``None`` where a route takes it, alone or with its study."""
        first = self.jobs[0]
        return first if first.state is JobState.NOT_RUN and first.code != PART_OF_STUDY else None


class Planner:
    """Groups a series into stacks, proves their geometry from the headers and asks every route."""

    def __init__(self, routes: Sequence[Route], engines: EngineRegistry, destinations: Sequence[str]) -> None:
        self._routes = tuple(routes)
        self._engines = engines
        self._destinations = tuple(destinations)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a route, an engine or its weights change: the same series may then be planned again."""
        digest = hashlib.sha256(repr((self._routes, self._destinations)).encode())
        for manifest in self._engines.manifests():
            digest.update(
                repr((manifest.name, manifest.version, manifest.weights_digest, manifest.settings)).encode()
            )
        return digest.hexdigest()[:12]

    def options(self, route: str) -> dict[str, str | int | float | bool]:
        """Return the engine options of a route; empty when the route is gone from the configuration."""
        return next((dict(item.options) for item in self._routes if item.name == route), {})

    def prompt(self, route: str) -> Prompt | None:
        """Return the default prompt of a route."""
        return next((item.prompt for item in self._routes if item.name == route), None)

    def resample(self, route: str) -> tuple[Resample, ...]:
        """Return what a route allows to be resampled."""
        return next((item.resample for item in self._routes if item.name == route), ())

    def reports_refusals(self, route: str) -> bool:
        """Tell whether a route's destinations are to be told why there is no result."""
        return any(item.report_refusals for item in self._routes if item.name == route)

    @property
    def takes_drawings(self) -> bool:
        """Some route opts in to prompts from received drawings."""
        return any(route.prompts_from_dicom is not None for route in self._routes)

    def drawn_objects(
        self, route: str, objects: Sequence[SketchedObject], sender: str | None
    ) -> tuple[tuple[SketchedObject, ...], Verdict]:
        """Return which objects of a drawing a route takes, and why it takes none."""
        rule = next((item.prompts_from_dicom for item in self._routes if item.name == route), None)
        return rule.chosen(objects, sender) if rule else ((), Verdict(Answer.NO, "it takes no drawings"))

    def contours(self, route: str) -> Contours:
        """Return what closed shapes become on a route."""
        rule = next((item.prompts_from_dicom for item in self._routes if item.name == route), None)
        return rule.contours if rule else "traced"

    def ask_drawn(self, plan: StackPlan, sender: str | None) -> list[tuple[Route, str | None]]:
        """Return the routes that take drawings, each with why it does not take this stack, if so."""
        if plan.grid is None:
            return []
        known = facts(plan.stack, plan.grid, sender)
        asked = []
        for route in self._routes:
            if route.prompts_from_dicom is not None:
                verdict = self._verdict(route, known)
                asked.append((route, None if verdict.answer is Answer.YES else verdict.reason))
        return asked

    def drawn_job(self, plan: StackPlan, route: Route, prompt: Prompt) -> Job:
        """Return the job that a drawing starts on a stack."""
        return self._job(plan.stack, route, frozenset(), prompt)

    @property
    def study_routes(self) -> tuple[Route, ...]:
        """The routes that work on studies."""
        return tuple(route for route in self._routes if route.unit == "study")

    def plan(self, instances: Sequence[StoredInstance], *, sender: str | None) -> tuple[StackPlan, ...]:
        """Plan one series; every stack ends up in at least one job.

        Every instance is in one stack, except images that came twice under different UIDs: the first one is used.

        Raises
        ------
        StorageError
            A stored file cannot be read.
        """
        paths = {instance.header.sop_instance_uid: instance.path for instance in instances}
        stacks = group_stored([instance.header for instance in instances], paths)
        return _with_joint_statements([self._plan_stack(stack, sender) for stack in stacks])

    def _plan_stack(self, stack: Stack, sender: str | None) -> StackPlan:
        # A geometric refusal takes precedence over a route's reason: it is what the administrator can act upon.
        try:
            ordered, grid, raster = _placed(stack)
        except AssemblyError as error:
            return self._plan_irregular(stack, sender, error)
        verdicts = self._ask(ordered, grid, sender)
        jobs = self._jobs(ordered, verdicts)
        if not jobs:
            jobs = (self._why_not(ordered, verdicts),)
        return StackPlan(stack=ordered, grid=grid, raster=raster, jobs=jobs, verdicts=tuple(verdicts))

    def _plan_irregular(self, stack: Stack, sender: str | None, refusal: AssemblyError) -> StackPlan:
        """Give a stack to the routes that allow it to be resampled; without one the refusal stands."""
        try:
            proven = geometry(stack, tuple(Resample))
        except AssemblyError as error:
            also = f" {error}" if error.code != refusal.code else ""
            job = not_run(stack, refusal.code, f"{refusal}{also}")
            return StackPlan(stack=stack, grid=None, raster=None, jobs=self._told(stack, sender) or (job,))
        needed, grid = proven.resample, resampling_of(proven).regular
        ordered = replace(stack, headers=proven.headers, refusal=None)
        answers = self._ask(ordered, grid, sender)
        unwilling = {route.name for route in self._routes if not needed <= set(route.resample)}
        setting = f"resample = {_setting(needed)}"
        verdicts = tuple(
            (name, Verdict(Answer.NO, f"{refusal.code}: does not say {setting}"))
            if name in unwilling and verdict.answer is Answer.YES
            else (name, verdict)
            for name, verdict in answers
        )
        jobs = self._jobs(ordered, verdicts, needed)
        if jobs:
            return StackPlan(stack=ordered, grid=grid, raster=None, jobs=jobs, verdicts=verdicts, resample=needed)
        willing = [name for name, verdict in answers if verdict.answer is Answer.YES]
        here = f" (here: {', '.join(map(repr, willing))})" if willing else ""
        reason = f"{refusal} Or let a route say {setting}{here}: it then works on a resampled volume."
        jobs = self._told(stack, sender) or (not_run(stack, refusal.code, reason),)
        return StackPlan(stack=stack, grid=None, raster=None, jobs=jobs, verdicts=verdicts)

    def _told(self, stack: Stack, sender: str | None) -> tuple[Job, ...]:
        """Return jobs that find the refusal again and tell destinations: on routes that ask for it."""
        try:
            geometry(replace(stack, refusal=None))
            return ()
        except AssemblyError as error:
            if error.code not in _TOLD:
                return ()  # not one set of slices of a patient: none of its images is what a route is for
        known = facts(stack, None, sender)
        asking = [route for route in self._routes if route.report_refusals and route.unit != "study"]
        taking = [route for route in asking if route.match(known).answer is Answer.YES]
        return tuple(self._job(stack, route, frozenset()) for route in taking)

    def _why_not(self, stack: Stack, verdicts: Sequence[tuple[str, Verdict]]) -> Job:
        takers = [name for name, verdict in verdicts if verdict.answer is Answer.YES]
        if not takers:
            return not_run(stack, "no-route", why_no_route(verdicts))
        reason = f"Part of the study's job on route {', '.join(map(repr, takers))}, with the study's other images."
        return not_run(stack, PART_OF_STUDY, reason)

    def study_job(self, route: Route, images: Sequence[Header], priors: Sequence[Header]) -> Job:
        """Return the job of a study: its images, frontal ones first, then those of earlier studies.

        Parameters
        ----------
        images
            At least one, in any order.
        priors
            In the order that they are to have.
        """
        ordered = sorted(images, key=view_order)
        stack = Stack(name="study", headers=(*ordered, *priors), kind=StackKind.IMAGE)
        needed = sum(map(bytes_needed, stack.headers))
        if needed > MOST_BYTES:
            reason = (
                f"The images of the study on route {route.name!r} need {needed >> 20} MiB of memory together, more "
                f"than {MOST_BYTES >> 20} MiB. Let the route take fewer of them."
            )
            return not_run(stack, RefusalCode.TOO_LARGE, reason)
        return self._job(stack, route, frozenset())

    def images_of_study(self, route: Route, instances: Sequence[StoredInstance], sender: Sender) -> list[Header]:
        """Return the images of one study that a route takes; ``sender`` is asked for each series."""
        series: dict[str, list[StoredInstance]] = defaultdict(list)
        for instance in instances:
            series[instance.header.series_instance_uid].append(instance)
        found = []
        for uid, members in series.items():
            paths = {instance.header.sop_instance_uid: instance.path for instance in members}
            for stack in group_stored([instance.header for instance in members], paths):
                if stack.refusal is None and self._takes(route, stack, sender(uid)):
                    found.append(_with_view(stack.headers[0], paths))
        return found

    def _takes(self, route: Route, stack: Stack, sender: str | None) -> bool:
        return self._verdict(route, facts(stack, None, sender)).answer is Answer.YES

    def _jobs(
        self, stack: Stack, verdicts: Sequence[tuple[str, Verdict]], resample: frozenset[Resample] = frozenset()
    ) -> tuple[Job, ...]:
        taken = {name for name, verdict in verdicts if verdict.answer is Answer.YES}
        return tuple(
            self._job(stack, route, resample)
            for route in self._routes
            if route.name in taken and route.unit == "series"
        )

    def _ask(self, stack: Stack, grid: Grid | None, sender: str | None) -> list[tuple[str, Verdict]]:
        known = facts(stack, grid, sender)
        answers = []
        for route in self._routes:
            verdict = self._verdict(route, known)
            if verdict.answer is Answer.YES and route.prompts_from_dicom is not None and route.prompt is None:
                verdict = Verdict(Answer.NO, "nothing was pointed at; it waits for a drawing on the series")
            answers.append((route.name, verdict))
        return answers

    def _verdict(self, route: Route, known: SeriesFacts) -> Verdict:
        if route.unit == "study" and known.kind is not StackKind.IMAGE:
            return Verdict(Answer.NO, f"works on the single images of a study; this is {known.kind.in_words}")
        verdict = route.match(known)
        if verdict.answer is not Answer.YES:
            return verdict
        try:
            verdict = self._engines.accepts(route.engine, known)
            takes_none = (
                route.prompts_from_dicom is not None and not self._engines.manifest(route.engine).takes_prompts
            )
        except GatewayError as error:
            return Verdict(Answer.NO, str(error))
        return Verdict(Answer.NO, "its engine takes no prompts") if takes_none else verdict

    def _job(self, stack: Stack, route: Route, resample: frozenset[Resample], drawn: Prompt | None = None) -> Job:
        manifest = self._engines.manifest(route.engine)
        options = repr(sorted(route.options.items())) if route.options else ""
        if resample:  # a regular stack gives the same result, and so the same job, whatever a route allows
            options += f" resample {' '.join(sorted(resample))}"
        prompt = "" if route.prompt is None else route.prompt.digest
        drawing = ""
        if drawn is not None and drawn.drawing is not None:
            drawing = drawn.drawing.sop_instance_uid
            prompt = f"{drawn.digest} {drawing}"  # the result names its drawing, so that another one is another job
        return Job(
            job_id=job_id(
                image_names(stack.headers), route=route.name, engine=manifest, options=options, prompt=prompt
            ),
            series_instance_uid=stack.headers[0].series_instance_uid,
            study_instance_uid=stack.headers[0].study_instance_uid,
            stack=stack.name,
            sop_instance_uids=tuple(header.sop_instance_uid for header in stack.headers),
            frame_numbers=frame_numbers(stack.headers),
            route=route.name,
            engine=manifest.name,
            engine_version=manifest.version,
            destinations=self._destinations if route.destinations is None else route.destinations,
            priority=min(route.priority, _requested_priority(stack.headers)),
            drawing=drawing,
        )


def _with_view(header: Header, paths: Mapping[str, Path]) -> Header:
    """Read from the file what the index does not know: the code of a view."""
    if header.view_position in VIEW_POSITIONS:
        return header
    return replace(header, view_position=read_view(header, paths[header.sop_instance_uid]) or None)


def view_order(header: Header) -> tuple[int, tuple[bool, int, str, int]]:
    """Put frontal projections first and lateral ones last; what does not say stays between."""
    view = (header.view_position or "").upper()
    rank = 0 if view in ("PA", "AP") else 2 if view in ("LL", "RL", "LLO", "RLO", "LATERAL", "LAT") else 1
    return rank, received_order(header)


def _placed(stack: Stack) -> tuple[Stack, Grid | None, Raster | None]:
    """Return the stack in order, with where its pixels lie."""
    if stack.kind is not StackKind.VOLUME and stack.refusal is None:
        return stack, None, raster_of(stack.headers[0])
    proven = geometry(stack)
    return replace(stack, headers=proven.headers), proven.grid, None


def _with_joint_statements(plans: Sequence[StackPlan]) -> tuple[StackPlan, ...]:
    """Say once what is to be said alike of many stacks: a series of ultrasound or fMRI may hold hundreds."""
    alike: dict[tuple[str, str, bool], list[StackPlan]] = defaultdict(list)
    for plan in plans:
        if not plan.jobs[0].route:
            is_volume = plan.stack.kind is StackKind.VOLUME
            alike[plan.jobs[0].code, plan.jobs[0].reason, is_volume].append(plan)
    joint: dict[str, Job] = {}
    for (code, reason, is_volume), members in alike.items():
        if len(members) == 1 or (is_volume and len(members) <= FEW):
            continue
        headers = tuple(header for plan in members for header in plan.stack.headers)
        names = [plan.stack.name for plan in members]
        name = stacks_in_words(names) if is_volume else f"{len(members)} images"
        job = not_run(Stack(name=name, headers=headers), code, reason)
        joint |= {plan.jobs[0].job_id: job for plan in members}
    return tuple(replace(plan, jobs=tuple(joint.get(job.job_id, job) for job in plan.jobs)) for plan in plans)


def _setting(resample: frozenset[Resample]) -> str:
    """Return the setting as a configuration file has it."""
    words = ", ".join(f'"{word}"' for word in sorted(resample))
    return words if len(resample) == 1 else f"[{words}]"


def _requested_priority(headers: Sequence[Header]) -> int:
    asked = {header.requested_procedure_priority for header in headers}
    return min((rank for word, rank in _PRIORITIES.items() if word in asked), default=10)
