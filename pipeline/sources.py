"""What a job is about: its stored instances, the stack that they form, and what an engine gets of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from domain.context import StudyContext
from domain.engine import Case
from domain.errors import EngineFailed
from domain.instance import StoredInstance
from domain.job import Job
from domain.ports import PatientHistory, SeriesIndex
from domain.prompt import Prompt
from domain.series import Stack
from pipeline.cases import decoded, images_of, placed_prompt
from pipeline.context import ContextBuilder
from pipeline.drawings import DrawingPlans
from pipeline.planning import Planner
from volume.kinds import kind_of


class Sources:
    """Finds what jobs work on in the store."""

    def __init__(
        self, *, index: SeriesIndex, planner: Planner, drawings: DrawingPlans, history: PatientHistory | None
    ) -> None:
        self._index = index
        self._planner = planner
        self._drawings = drawings
        self._context = ContextBuilder(history)

    def instances(self, job: Job) -> tuple[StoredInstance, ...]:
        """Return the instances of a job's images, in their order.

        Raises
        ------
        EngineFailed
            Some are no longer stored.
        """
        instances = self._index.instances_by_uid(job.sop_instance_uids)
        missing = len(job.sop_instance_uids) - len(instances)
        if missing:
            raise EngineFailed(f"{missing} instance(s) of the series are no longer stored; send the series again.")
        return instances

    def drawing(self, job: Job) -> tuple[StoredInstance, ...]:
        """Return the instance in which the job's prompt was drawn, if there is one, and those that it refers to."""
        return self._drawings.instances(job.drawing) if job.drawing else ()

    def stack(self, job: Job) -> tuple[Stack, dict[str, Path]]:
        """Return a job's stack, and the file of each of its instances."""
        instances = self.instances(job)
        paths = {instance.header.sop_instance_uid: instance.path for instance in instances}
        headers = images_of(job, instances)
        return Stack(name=job.stack, headers=headers, kind=kind_of(headers[0])), paths

    def prompt(self, job: Job, stack: Stack) -> Prompt | None:
        """Return what the engine is pointed at on the source's slices: what was drawn, else the route's default."""
        return self._drawings.prompt(job, stack) if job.drawing else self._planner.prompt(job.route)

    def context(self, stack: Stack, paths: dict[str, Path]) -> StudyContext:
        """Return what the headers say about a stack beside its pixels."""
        return self._context.of(stack, paths)

    def case(self, job: Job, progress: Callable[[float], None] | None) -> Case:
        """Decode what a job is about.

        Raises
        ------
        AssemblyError
            The stack is no regular volume, or its pixels cannot be used.
        StorageError
            A file is gone or cannot be read.
        """
        stack, paths = self.stack(job)
        allowed = self._planner.resample(job.route)
        return replace(
            decoded(stack, paths, allowed),
            context=self.context(stack, paths),
            options=self._planner.options(job.route),
            prompt=placed_prompt(self.prompt(job, stack), stack, allowed),
            progress=progress,
        )
