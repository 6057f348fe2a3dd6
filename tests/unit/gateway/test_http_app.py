from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from http_fakes import ListedJobs, NotingIndex, ScriptedSink
from stow_bodies import RELATED, multipart
from werkzeug.test import Client

from domain.codes import Code
from domain.engine import EngineManifest
from domain.job import Delivery, DeliveryState, Job, JobState, ResultObject
from gateway.http import HttpSettings, create_app

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TOKEN = "opensesame-é"
LUNGS = EngineManifest(
    name="lungs",
    version="1.0",
    title="Lungs in CT",
    device="cpu",
    algorithm_name="lungs",
    algorithm_family=Code("123109", "DCM", "Manual Processing"),
    manufacturer="Voxgate",
    licence="Apache-2.0",
    intended_use="research",
    segments=(),
)


def healthy() -> Mapping[str, object]:
    return {"status": "ok", "instances": 3}


def client(
    *,
    sink: ScriptedSink | None = None,
    index: NotingIndex | None = None,
    jobs: ListedJobs | None = None,
    settings: HttpSettings | None = None,
    health: object = healthy,
) -> Client:
    app = create_app(
        sink or ScriptedSink(),
        (index or NotingIndex()).as_index(),
        (jobs or ListedJobs()).as_log(),
        settings or HttpSettings(),
        health,  # type: ignore[arg-type]
        version="1.2.3",
        engines=[LUNGS],
    )
    return app.test_client()


def job(job_id: str, *, series: str = "1.2.3", state: JobState = JobState.DONE) -> Job:
    return Job(
        job_id=job_id,
        series_instance_uid=series,
        study_instance_uid="1.2",
        stack="axial",
        sop_instance_uids=("1.2.3.1", "1.2.3.2"),
        route="chest ct",
        engine="lungs",
        state=state,
        code="missing-slices" if state is JobState.NOT_RUN else "",
        reason="Slices are missing." if state is JobState.NOT_RUN else "",
        timings_s={"assemble": 0.25},
        summary=[{"label": "Left lung", "volume_ml": 2000.5}],
        created_at=NOON,
    )


JOBS = ListedJobs(
    listed=[job("a1"), job("b2", series="1.2.4", state=JobState.NOT_RUN)],
    delivered=[
        Delivery(job_id="a1", destination="pacs", sop_instance_uid="2.25.7", state=DeliveryState.STORED, attempts=2)
    ],
    results=[
        ResultObject(
            job_id="a1",
            kind="SEG",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
            sop_instance_uid="2.25.7",
            series_instance_uid="2.25.8",
            path=Path("/somewhere/secret.dcm"),
        )
    ],
)


def test_health_answers_200_with_the_state_while_all_is_well() -> None:
    answer = client().get("/health")
    assert (answer.status_code, answer.json) == (
        200,
        {"status": "healthy", "instances": 3},
    )


def test_health_answers_503_when_something_is_wrong() -> None:
    answer = client(health=lambda: {"status": "degraded"}).get("/health")
    assert (answer.status_code, answer.json) == (503, {"status": "degraded"})


def test_health_answers_503_when_the_check_itself_fails() -> None:
    def broken() -> Mapping[str, object]:
        raise OSError("CANARY")

    answer = client(health=broken).get("/health")
    assert (answer.status_code, answer.json) == (503, {"status": "failed"})


def test_info_names_version_and_engines() -> None:
    body = client().get("/info").json
    assert body is not None
    assert (body["name"], body["version"]) == ("voxgate", "1.2.3")
    assert [(engine["name"], engine["version"], engine["device"]) for engine in body["engines"]] == [
        ("lungs", "1.0", "cpu")
    ]


def test_a_sender_says_how_many_instances_a_series_has() -> None:
    index = NotingIndex()
    answer = client(index=index).put("/api/v1/series/1.2.3/expected-instances", json={"instances": 120})
    assert (answer.status_code, answer.data) == (204, b"")
    assert index.expected == {"1.2.3": 120}


def test_a_body_of_nothing_but_brackets_is_refused() -> None:
    path, sent = "/api/v1/series/1.2.3/expected-instances", b"[" * 50_000
    assert client().put(path, data=sent, content_type="application/json").status_code == 400


@pytest.mark.parametrize(
    "body", [{}, {"instances": 0}, {"instances": "12"}, {"instances": True}, [5], {"instances": 2.0}]
)
def test_a_senseless_number_of_instances_is_refused(body: object) -> None:
    index = NotingIndex()
    answer = client(index=index).put("/api/v1/series/1.2.3/expected-instances", json=body)
    assert answer.status_code == 400
    assert "instances" in json.loads(answer.data)["detail"]
    assert not index.expected


def test_a_hint_that_is_no_json_or_too_long_is_refused() -> None:
    path = "/api/v1/series/1.2.3/expected-instances"
    assert client().put(path, data=b"instances=3").status_code == 400
    assert client().put(path, data=b" " * 100_000, content_type="application/json").status_code == 413


def test_a_hint_for_what_is_no_series_uid_is_refused() -> None:
    assert client().put("/api/v1/series/CANARY/expected-instances", json={"instances": 1}).status_code == 400


def test_jobs_are_listed_with_everything_known_about_them() -> None:
    body = client(jobs=JOBS).get("/api/v1/jobs").json
    assert body is not None
    assert [listed["job_id"] for listed in body["jobs"]] == ["a1", "b2"]
    first = body["jobs"][0]
    assert first["state"] == "done"
    assert first["final"] is True
    assert first["instances"] == 2
    assert first["timings_s"] == {"assemble": 0.25}
    assert first["summary"] == [{"label": "Left lung", "volume_ml": 2000.5}]
    assert first["created_at"] == "2026-01-02T12:00:00+00:00"
    assert first["objects"][0]["kind"] == "SEG"
    assert first["deliveries"] == [
        {
            "destination": "pacs",
            "sop_instance_uid": "2.25.7",
            "state": "stored",
            "attempts": 2,
            "reason": "",
            "updated_at": None,
        }
    ]
    assert (body["jobs"][1]["code"], body["jobs"][1]["reason"]) == ("missing-slices", "Slices are missing.")


def test_jobs_show_no_file_names() -> None:
    assert b"secret" not in client(jobs=JOBS).get("/api/v1/jobs").data


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("series=1.2.4", ["b2"]),
        ("study=1.2", ["a1", "b2"]),
        ("study=1.9", []),
        ("state=done", ["a1"]),
        ("series=1.2.3&state=not-run", []),
        ("limit=1", ["a1"]),
        ("series=&state=", ["a1", "b2"]),
    ],
)
def test_jobs_are_found_by_series_study_and_state(query: str, found: list[str]) -> None:
    body = client(jobs=JOBS).get(f"/api/v1/jobs?{query}").json
    assert body is not None
    assert [listed["job_id"] for listed in body["jobs"]] == found


@pytest.mark.parametrize(
    "query", ["state=sleeping", "series=CANARY", "limit=0", "limit=x", "limit=²", "limit=99999999999"]
)
def test_a_senseless_search_is_told_what_is_taken(query: str) -> None:
    answer = client(jobs=JOBS).get(f"/api/v1/jobs?{query}")
    assert answer.status_code == 400
    assert b"CANARY" not in answer.data


def test_one_job_is_shown_by_its_id() -> None:
    body = client(jobs=JOBS).get("/api/v1/jobs/b2").json
    assert body is not None
    assert body["series_instance_uid"] == "1.2.4"
    assert client(jobs=JOBS).get("/api/v1/jobs/c3").status_code == 404


@pytest.mark.parametrize("path", ["/info", "/api/v1/jobs", "/nowhere"])
def test_with_a_token_set_a_request_without_it_is_refused(path: str) -> None:
    answer = client(settings=HttpSettings(token=TOKEN)).get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer wrong", "Basic opensesame", "opensesame", "Bearer opensesame", "Bearer öpensesame"]
)
def test_a_wrong_token_is_refused_before_the_body_is_stored(header: str) -> None:
    sink = ScriptedSink()
    answer = client(sink=sink, settings=HttpSettings(token="opensesame2")).post(
        "/dicomweb/studies", data=multipart([b"x"]), content_type=RELATED, headers={"Authorization": header}
    )
    assert answer.status_code == 401
    assert not sink.staged


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_right_token_opens(scheme: str) -> None:
    settings = HttpSettings(token="opensesame")
    assert (
        client(settings=settings).get("/info", headers={"Authorization": f"{scheme} opensesame"}).status_code == 200
    )


def test_health_needs_no_token() -> None:
    assert client(settings=HttpSettings(token=TOKEN)).get("/health").status_code == 200


def test_the_token_is_in_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = HttpSettings(token=TOKEN)
    client(settings=settings).get("/info", headers={"Authorization": "Bearer guess"})
    assert "guess" not in caplog.text
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/dicomweb/studies"])
def test_every_answer_forbids_sniffing_framing_and_caching(path: str) -> None:
    headers = client().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("settings", "exposed"),
    [
        (HttpSettings(), False),
        (HttpSettings(host="localhost"), False),
        (HttpSettings(host="::1"), False),
        (HttpSettings(host="0.0.0.0"), True),
        (HttpSettings(host="::"), True),
        (HttpSettings(host="gateway.example"), True),
        (HttpSettings(host="0.0.0.0", token="t"), False),
        (HttpSettings(host="0.0.0.0", allow_unauthenticated=True), False),
    ],
)
def test_listening_beyond_loopback_needs_a_token_or_a_word(settings: HttpSettings, exposed: bool) -> None:
    assert settings.is_exposed_without_token is exposed
