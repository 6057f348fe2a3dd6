from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from factories import ct_series
from pydicom.dataset import Dataset

from domain.instance import Reception
from domain.job import Job, JobState
from gateway import wiring
from gateway.commands.jobs import list_jobs
from gateway.config import Config, load_config

SLICES = ct_series(3)
SERIES = str(SLICES[0].SeriesInstanceUID)
ARRIVING = "3 instances, still arriving: it is whole when nothing has come for 600 s"
SHORT = "2 of 100 announced instances are here: it waits for the others, at most 3600 s after the first"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "voxgate.toml"
    file.write_text(f"[store]\npath = '{tmp_path / 'store'}'\nlow_water_mb = 0\n[completeness]\nquiet_s = 600\n")
    return load_config(file, {})


def receive(
    config: Config,
    count: int,
    *,
    slices: Sequence[Dataset] = SLICES,
    announced: int | None = None,
    plan: JobState | None = None,
) -> None:
    wiring.prepare_store(config)
    with wiring.opened_store(config) as store:
        sink = wiring.intake(store)
        staged = []
        for dataset in slices[:count]:
            item = sink.stage()
            encoded = BytesIO()
            dataset.save_as(encoded, enforce_file_format=True)
            item.write(encoded.getvalue())
            staged.append(item)
        sink.commit(staged, Reception(transport="file", sender="", address="", received_at=datetime.now(UTC)))
        if announced is not None:
            store.series.expect(SERIES, announced)
        if plan is not None:
            (arrival,) = store.series.arrivals()
            store.jobs.add(job_of(plan))
            store.series.freeze(SERIES, arrival.revision)


def job_of(state: JobState) -> Job:
    return Job(
        job_id="a" * 40,
        series_instance_uid=SERIES,
        study_instance_uid="1.2",
        stack="",
        sop_instance_uids=("1.2.3.4",),
        route="",
        destinations=(),
        state=state,
        code="no-route",
        reason="Nothing takes it.",
    )


def listed(
    config: Config,
    series: str | None = SERIES,
    *,
    study: str | None = None,
    state: str | None = None,
    as_json: bool = False,
) -> int:
    return list_jobs(config, series=series, study=study, state=state, limit=100, as_json=as_json)


def test_a_series_that_still_arrives_is_said_to(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    receive(config, 3)
    assert listed(config) == 0
    assert capsys.readouterr().out == f"{ARRIVING}\n"


def test_a_series_that_is_short_of_what_was_announced_says_by_how_much(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(config, 2, announced=100)
    assert listed(config) == 0
    assert capsys.readouterr().out == f"{SHORT}\n"
    assert listed(config, as_json=True) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["state"], said["instances"], said["expected"], said["final"]) == ("arriving", 2, 100, False)
    assert (said["series_instance_uid"], said["reason"]) == (SERIES, SHORT)


def test_a_whole_series_without_a_job_is_said_to_be_planned_next(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(config, 3, announced=3)
    assert listed(config) == 0
    assert capsys.readouterr().out == "all 3 announced instances are here; it is planned next\n"


def test_a_series_never_seen_is_said_to_be_unknown(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    receive(config, 1)
    assert listed(config, "1.2.3") == 1
    assert capsys.readouterr().out == "no instance of this series was received\n"
    assert listed(config, "1.2.3", as_json=True) == 1
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["job_id"], said["state"]) == (None, "unknown")


def test_of_a_planned_series_only_its_jobs_are_listed(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    receive(config, 3, plan=JobState.NOT_RUN)
    assert listed(config) == 0
    assert "Nothing takes it." in capsys.readouterr().out
    assert listed(config, as_json=True) == 0
    assert [job["state"] for job in json.loads(capsys.readouterr().out)] == ["not-run"]


def test_a_state_that_was_asked_for_is_all_that_scripts_get(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(config, 3)
    assert listed(config, state="done", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_list_of_all_jobs_tells_what_series_without_a_job_wait_for(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(config, 3)
    assert listed(config, None) == 0
    assert capsys.readouterr().out == f"1 series has no job yet\n  {ARRIVING}\n"
    receive(config, 3, announced=100)
    assert listed(config, None, study=str(SLICES[0].StudyInstanceUID)) == 0
    assert "  3 of 100 announced instances are here: " in capsys.readouterr().out
    assert listed(config, None, study="1.2.3") == 0
    assert capsys.readouterr().out == "no jobs\n"


def test_many_series_that_wait_alike_are_said_once(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        receive(config, 3, slices=ct_series(3))
    assert listed(config, None) == 0
    assert capsys.readouterr().out == f"2 series have no job yet\n  {ARRIVING} (2 series)\n"


def test_a_planned_series_that_is_looked_at_again_is_not_said_to_have_no_job(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(config, 3, announced=3, plan=JobState.NOT_RUN)
    with wiring.opened_store(config) as store:
        store.series.thaw(SERIES)
    assert listed(config, None) == 0
    said = capsys.readouterr().out
    assert "Nothing takes it." in said
    assert "no job yet" not in said


def test_an_empty_list_of_one_state_says_nothing_of_other_series(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(config, 3)
    assert listed(config, None, state="done") == 0
    assert capsys.readouterr().out == "no jobs\n"


def test_a_limit_beyond_all_numbers_is_no_limit(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    receive(config, 3, plan=JobState.NOT_RUN)
    assert list_jobs(config, series=None, study=None, state=None, limit=10**20, as_json=False) == 0
    assert "Nothing takes it." in capsys.readouterr().out
