"""Drawings in the series of images, their own and each other's: every series is planned once a change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from drawn import rectangle, report, scoord
from factories import ct_series, two_phases
from pointing import pointing, settle
from pydicom.dataset import Dataset
from working import Work

from domain.job import Job


def sr(series: Sequence[Dataset], k: int = 1, **more: Any) -> Dataset:
    """Return a report with a box on slice ``k``."""
    return report(series, [scoord(series[k], "POLYLINE", rectangle(3, 4, 9, 10))], **more)


def jobs(work: Work, *, drawn: bool = True) -> list[Job]:
    """Return the jobs of drawings, or the statements; oldest first."""
    return [job for job in reversed(work.store.jobs.find()) if bool(job.drawing) is drawn]


@pytest.mark.parametrize("late", [1, 0])
def test_a_drawing_in_the_series_of_its_images_is_planned_once_a_change(tmp_path: Path, late: int) -> None:
    series = ct_series(5)
    ds = sr(series)
    ds.SeriesInstanceUID = series[0].SeriesInstanceUID
    with pointing(tmp_path) as (work, _engine):
        work.receive([*series[: 5 - late], ds])
        settle(work)
        if late:
            work.receive(series[-late:])
            settle(work)
        settled = revision(work, str(ds.StudyInstanceUID))
        for _ in range(3):
            settle(work)
        assert revision(work, str(ds.StudyInstanceUID)) == settled
        assert len(jobs(work)) == 1 + late


def revision(work: Work, study: str) -> int:
    (arrival,) = work.store.series.study_arrivals(study)
    return arrival.revision


def revisions(work: Work, study: str) -> dict[str, int]:
    return {item.series_instance_uid: item.revision for item in work.store.series.study_arrivals(study)}


def in_one_study(*parts: Sequence[Dataset]) -> str:
    """Put series into the study of the first, each with its drawing, its last dataset; return the study."""
    study = str(parts[0][0].StudyInstanceUID)
    for part in parts:
        for dataset in part:
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, part[0].SeriesInstanceUID
    return study


def test_two_series_with_drawings_whose_images_never_come_leave_each_other_in_peace(tmp_path: Path) -> None:
    first, second, missing = ct_series(4), ct_series(4), ct_series(4)
    parts = [*first, sr(missing)], [*second, sr(missing)]
    study = in_one_study(*parts)
    with pointing(tmp_path) as (work, _engine):
        for part in parts:
            work.receive(part)
        settle(work)
        work.settle(quiet_s=3700)
        settle(work)
        assert [item.code for item in jobs(work, drawn=False)].count("images-missing") == 2
        settled = revisions(work, study)
        for _ in range(3):
            settle(work)
        assert revisions(work, study) == settled


def test_two_series_whose_drawings_are_on_a_part_of_each_other_leave_each_other_in_peace(tmp_path: Path) -> None:
    first, second = two_phases(), two_phases()
    on_second, on_first = sr(second[4:]), sr(first[4:])
    study = in_one_study([*first, on_second], [*second, on_first])
    with pointing(tmp_path) as (work, engine):
        work.receive([*first, on_second])
        work.receive([*second, on_first])
        settle(work)
        work.settle(quiet_s=3700)  # each series has come, and waits for the other one to be planned
        settle(work)
        assert len(engine.prompts) == len(jobs(work)) == 2
        settled = revisions(work, study)
        for _ in range(3):
            settle(work)
        assert revisions(work, study) == settled
        assert len(jobs(work)) == 2


@pytest.mark.parametrize("count", [2, 3])
def test_series_with_images_and_drawings_on_the_next_one_do_not_wait_for_each_other(
    tmp_path: Path, count: int
) -> None:
    images = [ct_series(4) for _ in range(count)]
    parts = [[*series, sr(images[(number + 1) % count])] for number, series in enumerate(images)]
    study = in_one_study(*parts)
    with pointing(tmp_path) as (work, engine):
        for part in parts:
            work.receive(part)
        settle(work)  # minutes at the most, and not drawing_wait_s
        assert len(engine.prompts) == len(jobs(work)) == count
        assert {job.code for job in jobs(work, drawn=False)} == {"drawing"}
        settled = revisions(work, study)
        settle(work)
        assert revisions(work, study) == settled
        assert work.store.series.arrivals() == []


def test_a_drawing_waits_for_a_series_that_grows_though_a_drawing_in_it_waits(tmp_path: Path) -> None:
    first, second, missing = ct_series(4), ct_series(4), ct_series(4)
    waiting, on_first = sr(missing), sr(first)
    in_one_study([*first, waiting], [*second, on_first])
    with pointing(tmp_path) as (work, engine):
        work.receive([*first[:3], waiting])
        settle(work)
        work.receive([*second, on_first])
        work.clock.sleep(9)
        work.receive([first[3]])
        work.settle(quiet_s=2.0)  # the second series is whole now, the first is not
        assert not engine.prompts
        settle(work)
        assert [len(job.sop_instance_uids) for job in jobs(work)] == [4]
