"""A pipeline whose destination is a PACS of ``pacs.py``, on a clock that passes when it is told to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from factories import ct_series
from pacs import Pacs
from pydicom.dataset import Dataset
from working import Work, working

from dicom_out.commitment import DimseCommitter
from dicom_out.destinations import make_destination
from dicom_out.finding import DimseFinder
from dicom_out.settings import DimseSettings
from domain.job import DeliveryState, Job
from pipeline.confirming import Profile
from pipeline.delivery import DeliverySettings
from scp.commitment import ReportHandler
from scp.server import StorageCommitment, serving
from scp.settings import ScpSettings
from store.store import Store


def small_series() -> list[Dataset]:
    """Return four slices with a block inside air."""
    voxels = np.full((4, 8, 8), -1000, np.int16)
    voxels[1:-1, 2:6, 2:6] = 40
    return ct_series(4, voxels=voxels)


@contextmanager
def delivering(folder: Path, pacs: Pacs, **limits: float) -> Iterator[Work]:
    """A pipeline whose one destination is ``pacs``, with a series taken in."""
    with working(folder, destinations={"pacs": make_destination(pacs.settings(**limits))}) as work:
        work.receive(small_series())
        yield work


@contextmanager
def confirmed_by(
    pacs: Pacs,
    folder: Path,
    *,
    confirm: Sequence[str] = ("commitment", "query"),
    wait_s: float = 0.0,
    rounds: DeliverySettings | None = None,
) -> Iterator[Work]:
    """As ``delivering``, and ``pacs`` must confirm; our SCP hears what it says. Series are kept for a day."""

    def profiles(store: Store) -> Mapping[str, Profile]:
        made = profile(pacs.settings(), store, confirm=confirm, wait_s=wait_s)
        return {"pacs": replace(made, rounds=rounds or made.rounds)}

    to = {"pacs": make_destination(pacs.settings())}
    with pacs, working(folder, destinations=to, profiles=profiles, retention_days=1) as work, listening(work) as port:
        pacs.report_to = port
        work.receive(small_series())
        yield work


def profile(settings: DimseSettings, store: Store, *, confirm: Sequence[str], wait_s: float) -> Profile:
    """Return the profile of a DIMSE destination that can ``confirm``."""
    hearing = ReportHandler(transactions=store.transactions)
    committer = DimseCommitter(
        settings=settings, log=store.transactions, on_report=hearing.on_event_report, wait_s=wait_s
    )
    return Profile(
        committer=committer if "commitment" in confirm else None,
        finder=DimseFinder(settings=settings) if "query" in confirm else None,
    )


@contextmanager
def listening(work: Work, settings: ScpSettings | None = None) -> Iterator[int]:
    """Run our SCP on the pipeline's store; yield its port."""
    commitment = StorageCommitment(
        requests=work.store.commitment_requests, transactions=work.store.transactions, index=work.store.series
    )
    with serving(settings or ScpSettings(port=0), work.intake, commitment) as port:
        yield port


def finish(work: Work, *, hours: float) -> Job:
    """Let time pass from one task to the next, for so long at most; return the job."""
    end = work.clock() + timedelta(hours=hours)
    work.settle()
    while work.queue.waiting and (due := min(at for at, _ in work.queue.waiting)) <= end:
        work.settle(quiet_s=max(0.0, (due - work.clock()).total_seconds()))
    if work.queue.waiting:
        work.clock.now = end
    (job,) = work.store.jobs.find()
    return job


def result_uids(work: Work) -> set[str]:
    """Return the SOP Instance UIDs that the one job wrote for its destination, without what stands in for them."""
    (job,) = work.store.jobs.find()
    return {item.sop_instance_uid for item in work.store.jobs.objects(job.job_id) if item.destinations}


def states(work: Work) -> set[DeliveryState]:
    """Return how far the one job's objects are."""
    (job,) = work.store.jobs.find()
    return {item.state for item in work.store.jobs.deliveries(job.job_id)}
