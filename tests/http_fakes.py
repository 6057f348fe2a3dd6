"""Fakes behind the HTTP application: sinks that are watched, an index that notes, a job log that lists."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from domain.errors import GatewayError, MalformedInstance
from domain.instance import Disposition, Outcome, Reception
from domain.job import Delivery, Job, JobState, ResultObject
from domain.ports import InstanceSink, JobLog, SeriesIndex, StagedInstance


@dataclass
class StagedBytes:
    """A ``StagedInstance`` in memory."""

    fail_after: int | None = None
    fail_with: GatewayError | None = None
    data: bytearray = field(default_factory=bytearray)
    discarded: bool = False
    finished: int = 0

    @property
    def path(self) -> Path:
        raise NotImplementedError

    def write(self, data: bytes | memoryview) -> None:
        self.data += data
        if self.fail_with is not None and self.fail_after is not None and len(self.data) > self.fail_after:
            raise self.fail_with

    def finish(self) -> None:
        self.finished += 1

    def begin_sync(self) -> None:
        """Nothing waits for the disk."""

    def discard(self) -> None:
        self.discarded = True


@dataclass
class ScriptedSink:
    """An ``InstanceSink`` in memory that answers with ``outcomes``, or raises."""

    outcomes: Sequence[Outcome] = ()
    stage_fails_at: int | None = None
    """Number of the part, from 0."""
    write_fails_after: int | None = None
    fail_with: GatewayError | None = None
    commit_fails_with: Exception | None = None
    staged: list[StagedBytes] = field(default_factory=list)
    committed: list[bytes] = field(default_factory=list)
    receptions: list[Reception] = field(default_factory=list)

    def stage(self) -> StagedInstance:
        if self.fail_with is not None and len(self.staged) == self.stage_fails_at:
            raise self.fail_with
        self.staged.append(StagedBytes(fail_after=self.write_fails_after, fail_with=self.fail_with))
        return self.staged[-1]

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        if self.commit_fails_with is not None:
            raise self.commit_fails_with
        self.committed += [bytes(cast(StagedBytes, item).data) for item in staged]
        self.receptions.append(reception)
        return list(self.outcomes) or [stored(number) for number in range(len(staged))]


def stored(number: int = 0, study: str = "1.2.3") -> Outcome:
    """Return the outcome of an instance that was kept."""
    return Outcome(
        disposition=Disposition.STORED,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.3.4.{number}",
        study_instance_uid=study,
    )


def refused(error: GatewayError, *, sop_instance_uid: str | None = "1.2.3.5.1") -> Outcome:
    """Return the outcome of an instance that was not kept."""
    return Outcome(
        disposition=Disposition.REFUSED,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=sop_instance_uid,
        error=error,
    )


class DiscardedInstance:
    """A ``StagedInstance`` that keeps nothing but the size."""

    def __init__(self) -> None:
        self.size = 0

    @property
    def path(self) -> Path:
        raise NotImplementedError

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)

    def finish(self) -> None:
        """Nothing is read."""

    def begin_sync(self) -> None:
        """Nothing waits for the disk."""

    def discard(self) -> None:
        """Nothing was kept."""


class DiscardingSink:
    """An ``InstanceSink`` that keeps nothing, for figures about the transport alone."""

    def stage(self) -> StagedInstance:
        return DiscardedInstance()

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        return [stored(number) for number in range(len(staged))]


class FileInFolder:
    """A ``StagedInstance`` that is a file; opened for each write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def write(self, data: bytes | memoryview) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def finish(self) -> None:
        """Every write is in the file already."""

    def begin_sync(self) -> None:
        """Nothing waits for the disk."""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


class FolderSink:
    """An ``InstanceSink`` that keeps instances as ``<number>.kept`` in a folder which a test can look into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._staged = self._kept = 0

    def stage(self) -> StagedInstance:
        with self._lock:
            self._staged += 1
            return FileInFolder(self._folder / f"{self._staged:05d}.staged")

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        return [self._keep(item) for item in staged]

    def _keep(self, item: StagedInstance) -> Outcome:
        if item.path.stat().st_size == 0:
            item.discard()
            return refused(MalformedInstance("empty"), sop_instance_uid=None)
        with self._lock:
            self._kept += 1
            item.path.rename(self._folder / f"{self._kept:05d}.kept")
            return stored(self._kept)


def check_sinks_fit() -> tuple[InstanceSink, ...]:
    """Let mypy compare the fakes with the port."""
    return ScriptedSink(), DiscardingSink(), FolderSink(Path())


class NotingIndex:
    """The part of a ``SeriesIndex`` that the API calls."""

    def __init__(self) -> None:
        self.expected: dict[str, int] = {}

    def expect(self, series_instance_uid: str, instances: int) -> None:
        self.expected[series_instance_uid] = instances

    def as_index(self) -> SeriesIndex:
        return cast(SeriesIndex, self)


@dataclass
class ListedJobs:
    """The part of a ``JobLog`` that the API calls."""

    listed: list[Job] = field(default_factory=list)
    delivered: list[Delivery] = field(default_factory=list)
    results: list[ResultObject] = field(default_factory=list)

    def get(self, job_id: str) -> Job | None:
        return next((job for job in self.listed if job.job_id == job_id), None)

    def find(
        self,
        *,
        series_instance_uid: str | None = None,
        study_instance_uid: str | None = None,
        state: JobState | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        found = [
            job
            for job in self.listed
            if series_instance_uid in (None, job.series_instance_uid)
            and study_instance_uid in (None, job.study_instance_uid)
            and state in (None, job.state)
        ]
        return found[:limit]

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        return tuple(delivery for delivery in self.delivered if delivery.job_id == job_id)

    def objects(self, job_id: str) -> tuple[ResultObject, ...]:
        return tuple(result for result in self.results if result.job_id == job_id)

    def as_log(self) -> JobLog:
        return cast(JobLog, self)
