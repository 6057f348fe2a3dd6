"""Where the siblings meet. Each protocol says what its caller may rely on; ``gateway.wiring`` joins them.

What an engine must do is in ``domain.engine``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from domain.context import StudyContext
from domain.engine import EngineManifest
from domain.errors import DeliveryError
from domain.findings import Findings
from domain.instance import Header, Outcome, Reception, StoredInstance, Tile
from domain.job import Delivery, DeliveryState, Job, JobState, ResultObject
from domain.series import SeriesArrival

if TYPE_CHECKING:
    from domain.image import Raster
    from domain.prompt import Prompt
    from domain.volume import Grid


class StagedInstance(Protocol):
    """A Part 10 file on its way into the store, under a temporary name on the store's file system."""

    @property
    def path(self) -> Path:
        """Where the bytes are until ``commit``; complete once the writer stopped writing."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, unbuffered beyond the operating system.

        Raises
        ------
        OutOfSpace
            The low-water mark is reached or the disk is full.
        StorageError
            The bytes could not be written.
        """
        ...

    def finish(self) -> None:
        """Say that all bytes are written, so that reading and syncing may begin; ``commit`` works without it too."""
        ...

    def begin_sync(self) -> None:
        """Say that all bytes are written and this thread goes on with them: the disk may begin meanwhile, or not."""
        ...

    def discard(self) -> None:
        """Remove the temporary file; harmless after ``commit`` and when called twice."""
        ...


class InstanceSink(Protocol):
    """Takes instances from any transport (C-STORE, STOW-RS, folder). Thread-safe."""

    def stage(self) -> StagedInstance:
        """Open a temporary file for one instance.

        Raises
        ------
        OutOfSpace
            The store has reached its low-water mark.
        """
        ...

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        """Keep the staged instances; return, in order, what became of each.

        When this returns, every instance whose disposition is STORED or DUPLICATE survives a power cut: its bytes,
        its directory entry and its index row are on disk. A refused instance has its reason in ``Outcome.error``
        (an ``InstanceRejected``). Several instances share the syncs. Temporary files are gone afterwards, whatever
        happened.

        Raises
        ------
        StorageError
            The gateway is at fault (``OutOfSpace`` among others); none of the instances may be acknowledged.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A staged instance that was read and may be kept."""

    staged: StagedInstance
    header: Header
    digest: str
    """Canonical dataset digest (``volume.digest``): equal for re-encoded copies of the same dataset."""


class InstanceStore(Protocol):
    """Keeps instances and their index rows. Thread-safe, and safe for several processes on one folder."""

    def stage(self) -> StagedInstance:
        """See ``InstanceSink.stage``."""
        ...

    def keep(self, candidates: Sequence[Candidate], reception: Reception) -> list[Outcome]:
        """Keep the candidates durably, in one group of syncs and one transaction; see ``InstanceSink.commit``.

        The same SOP Instance UID with the same digest is a DUPLICATE; with another digest it goes to quarantine, is
        REFUSED with ``ConflictingInstance``, and raises the series' revision so that its job can say so.
        """
        ...


class SeriesIndex(Protocol):
    """What has arrived."""

    def arrivals(self) -> list[SeriesArrival]:
        """Return the series whose revision is above their frozen revision, those first that began to arrive first."""
        ...

    def freeze(self, series_instance_uid: str, revision: int) -> None:
        """Record that the set up to ``revision`` was handed on; never lowers the frozen revision."""
        ...

    def thaw(self, series_instance_uid: str) -> None:
        """Ask for the series to be planned again, under a new revision (routes or engines changed, a fault gone)."""
        ...

    def expect(self, series_instance_uid: str, instances: int) -> None:
        """Note how many instances a sender announced, before or after they arrive."""
        ...

    def instances(self, series_instance_uid: str, revision: int | None = None) -> tuple[StoredInstance, ...]:
        """Return the stored instances of a series in order of arrival, up to ``revision`` (default: all)."""
        ...

    def instances_by_uid(self, sop_instance_uids: Sequence[str]) -> tuple[StoredInstance, ...]:
        """Return the stored instances with these UIDs, in the order asked for; missing ones are left out."""
        ...

    def study(self, study_instance_uid: str) -> tuple[StoredInstance, ...]:
        """Return the stored instances of a study in order of arrival."""
        ...

    def study_arrivals(self, study_instance_uid: str) -> list[SeriesArrival]:
        """Return how far each series of a study has arrived, also those that were frozen."""
        ...

    def conflicts(self, series_instance_uid: str) -> int:
        """Return how many instances of the series lie in quarantine."""
        ...

    def sender(self, series_instance_uid: str) -> str | None:
        """Return the calling AE title of the last instance received for the series."""
        ...

    def series_in_study(self, study_instance_uid: str) -> list[str]:
        """Return the series of which instances are stored, in order of arrival."""
        ...

    def series_older_than(self, moment: datetime) -> list[str]:
        """Return the series whose last instance arrived before ``moment``."""
        ...

    def remove_series(self, series_instance_uid: str) -> int:
        """Delete a series' instances, index rows first, then files; return how many. Its jobs stay listed."""
        ...


class PatientHistory(Protocol):
    """Which stored studies belong to one patient; how that is known stays inside."""

    def other_studies(self, study_instance_uid: str) -> tuple[StoredInstance, ...] | None:
        """Return one instance of each series of the patient's other studies; ``None`` for an unknown patient.

        Same are PatientID, IssuerOfPatientID and PatientBirthDate, in every instance of both studies; nothing else
        tells patients apart beyond doubt. Which study is earlier, their files say.
        """
        ...


class JobLog(Protocol):
    """The record of every job: what ``voxgate jobs`` shows. Idempotent, durable on return."""

    def claiming(self, job_id: str, part: str) -> AbstractContextManager[int]:
        """Claim a part of a job's work (e.g. ``infer``); yields a number that grows with every claim of the part.

        While the block runs, what this thread writes about the job counts only as long as nobody has claimed the
        part since: a worker that was frozen and has been replaced cannot write when it resumes.

        Raises
        ------
        ClaimLost
            From every write within the block once somebody else has claimed the part; nothing was written.
        """
        ...

    def confirm_claim(self) -> None:
        """Raise ``ClaimLost`` where a write within ``claiming`` would; for what a database cannot take back."""
        ...

    def add(self, job: Job) -> bool:
        """Insert ``job`` unless its id exists; return whether it was inserted."""
        ...

    def get(self, job_id: str) -> Job | None: ...

    def find(
        self,
        *,
        series_instance_uid: str | None = None,
        study_instance_uid: str | None = None,
        state: JobState | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """Return jobs, newest first."""
        ...

    def update(
        self,
        job_id: str,
        *,
        state: JobState | None = None,
        code: str | None = None,
        reason: str | None = None,
        attempt: int | None = None,
        timings_s: Mapping[str, float] | None = None,
        summary: Sequence[Mapping[str, object]] | None = None,
    ) -> None:
        """Change what is given; timings are merged by key.

        A job that has ended goes on only with a new ``attempt``: without one, a state that is not final changes
        nothing, so that a step which had begun does not undo an operator's cancellation.
        """
        ...

    def remove(self, job_id: str) -> None:
        """Delete a job and its objects' rows; used where a later statement replaces an earlier one."""
        ...

    def put_objects(self, objects: Sequence[ResultObject]) -> None: ...

    def objects(self, job_id: str) -> tuple[ResultObject, ...]: ...

    def set_delivery(
        self,
        job_id: str,
        destination: str,
        sop_instance_uid: str,
        *,
        state: DeliveryState,
        reason: str = "",
        attempted: bool = True,
    ) -> None:
        """Insert or change one delivery.

        Counts an attempt to send, unless ``attempted`` is false or the state is QUEUED without a reason, i.e. not
        tried.
        """
        ...

    def replace_deliveries(
        self, job_id: str, destination: str, *, replaced: Sequence[str], by: Sequence[str], reason: str
    ) -> None:
        """Queue the objects ``by`` for a destination in place of the objects ``replaced``, all at once.

        Both are SOP Instance UIDs. Of ``by``, what is queued or further already stays as it is.
        """
        ...

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysed:
    """What an engine said on a regular grid that was computed from the source's slices.

    It lies in the same frame of reference as the source. The SEG on the source's slices is made from it.
    """

    findings: Findings
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """Everything that the writers need to encode one job's findings."""

    job_id: str
    findings: Findings
    grid: Grid | Raster
    """Where the masks lie: in the patient, or only in the (first) image."""
    source_paths: tuple[Path, ...]
    """Part 10 files of the source instances, in slice order of ``grid``; an enhanced one, or a cine, once for each
    frame. Of several images one each, in the order of the case."""
    manifest: EngineManifest
    route: str
    stack: str
    started_at: datetime
    """Start of the analysis, timezone-aware UTC (IHE AIR: content date and time)."""
    context: StudyContext = StudyContext()
    generation: int = 1
    predecessors: tuple[ResultObject, ...] = field(default=())
    """Objects of the earlier generation, oldest last."""
    source_frames: tuple[int | None, ...] = ()
    """Frame of each source instance, from 1; empty where each slice is a whole instance."""
    tiles: tuple[Tile, ...] = ()
    """Place of each slice in its source instance, where that is a mosaic; otherwise empty."""
    prompt: Prompt | None = None
    """What the engine was pointed at."""
    analysed: Analysed | None = None
    """Set where the engine worked on a resampled volume; ``findings`` and ``grid`` are then those that were brought
    back to the source's slices, with the numbers measured on the regular grid."""
    destinations: tuple[str, ...] = ()
    """Names of those who get it: their profiles say what is written. Empty: what the default profile asks for."""
    is_notice: bool = False
    """Its statements say why there is no result: only reports are written."""

    @property
    def patient_grid(self) -> Grid:
        """The grid of a result on a volume; ``TypeError`` where the images have no patient coordinates."""
        from domain.volume import Grid  # the receivers import this module, and do without numpy

        if not isinstance(self.grid, Grid):
            raise TypeError("the images of this result have no patient coordinates")
        return self.grid


class ResultWriter(Protocol):
    """Encodes findings as DICOM objects and proves that they say what the engine said."""

    def write(self, result: Result, folder: Path) -> tuple[ResultObject, ...]:
        """Write what the profiles of the result's destinations ask for; the same result gives the same UIDs.

        Each file is written under a temporary name, synced and renamed.
        """
        ...

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        """Decode the objects again and compare them with ``result`` in patient millimetres.

        Raises
        ------
        VerificationFailed
            They differ; nothing may be sent.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReport:
    """What a destination said about one object; ``error`` is ``None`` when it stored it."""

    sop_instance_uid: str = field(repr=False)
    error: DeliveryError | None = None


class Destination(Protocol):
    """A PACS, or whatever takes our results."""

    @property
    def name(self) -> str: ...

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        """Send Part 10 files; return one report for each, in order.

        Only an explicit success (or a warning that means stored, B0xx) counts as stored: an association that is
        aborted before the answer is not delivered. Does not raise for what the peer does.
        """
        ...
