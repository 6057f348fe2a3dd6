from __future__ import annotations

import json
import logging

import pytest
from factories import ct_series
from flask import Flask
from http_fakes import ScriptedSink, refused, stored
from stow_bodies import BOUNDARY, RELATED, multipart, part10
from werkzeug.test import Client, TestResponse

from dicomweb import problems
from dicomweb.stow import StowSettings, stow_blueprint
from domain.errors import ConflictingInstance, InstanceMismatch, MalformedInstance, OutOfSpace, StorageError

JSON = "application/dicom+json"


def client(sink: ScriptedSink, settings: StowSettings | None = None) -> Client:
    app = Flask(__name__)
    problems.install(app, retry_after_s=17)
    app.register_blueprint(stow_blueprint(sink, settings), url_prefix="/dicomweb")
    return app.test_client()


def post(
    sink: ScriptedSink,
    body: bytes | None = None,
    *,
    path: str = "/dicomweb/studies",
    content_type: str | None = RELATED,
    headers: dict[str, str] | None = None,
    settings: StowSettings | None = None,
) -> TestResponse:
    data = multipart([b"one", b"two"]) if body is None else body
    return client(sink, settings).post(path, data=data, content_type=content_type, headers=headers or {})


def nothing_is_left(sink: ScriptedSink) -> bool:
    return not sink.committed and all(item.discarded for item in sink.staged)


def test_keeps_every_part_exactly_as_received() -> None:
    sink = ScriptedSink()
    files = [part10(dataset) for dataset in ct_series(3)]
    assert post(sink, multipart(files)).status_code == 200
    assert sink.committed == files


def test_all_parts_of_a_request_are_committed_together() -> None:
    sink = ScriptedSink()
    post(sink, multipart([b"x"] * 200))
    assert len(sink.receptions) == 1


def test_a_post_to_studies_expects_no_study() -> None:
    sink = ScriptedSink()
    post(sink)
    (reception,) = sink.receptions
    assert (reception.transport, reception.address) == ("stow", "127.0.0.1")
    assert reception.expected_study_instance_uid is None
    assert reception.received_at.tzinfo is not None


@pytest.mark.parametrize("path", ["/dicomweb/studies/1.2.3", "/dicomweb/studies/1.2.3/"])
def test_a_post_to_a_study_expects_that_study(path: str) -> None:
    sink = ScriptedSink()
    assert post(sink, path=path).status_code == 200
    assert sink.receptions[0].expected_study_instance_uid == "1.2.3"


@pytest.mark.parametrize("uid", ["abc", "1..2", "1.2.", "1" * 65, "1.2%0a"])
def test_a_study_that_is_no_uid_is_bad_syntax(uid: str) -> None:
    sink = ScriptedSink()
    assert post(sink, path=f"/dicomweb/studies/{uid}").status_code == 400
    assert not sink.staged


def test_instances_of_another_study_are_a_conflict() -> None:
    sink = ScriptedSink(outcomes=[refused(InstanceMismatch()), refused(InstanceMismatch())])
    answer = post(sink, path="/dicomweb/studies/1.2.3")
    assert answer.status_code == 409
    assert answer.content_type == JSON
    reasons = [item["00081197"]["Value"] for item in answer.json["00081198"]["Value"]]  # type: ignore[index]
    assert reasons == [[43264], [43264]]


def test_some_stored_and_some_refused_is_accepted() -> None:
    answer = post(ScriptedSink(outcomes=[stored(), refused(ConflictingInstance())]))
    assert answer.status_code == 202
    assert {"00081190", "00081198", "00081199"} == set(answer.json or {})


@pytest.mark.parametrize(
    ("outcomes", "location"),
    [
        ([stored(1, "1.2.3"), stored(2, "1.2.3")], "/dicomweb/studies/1.2.3"),
        ([stored(1, "1.2.3"), stored(2, "1.2.4")], "/dicomweb/studies"),
        ([stored(1, "1.2.3"), refused(MalformedInstance())], "/dicomweb/studies/1.2.3"),
    ],
)
def test_location_names_what_was_made(outcomes: list[object], location: str) -> None:
    sink = ScriptedSink(outcomes=outcomes)  # type: ignore[arg-type]
    assert post(sink).headers["Location"] == location


def test_nothing_stored_has_no_location() -> None:
    answer = post(ScriptedSink(outcomes=[refused(MalformedInstance())]))
    assert answer.status_code == 409
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "content_type",
    [
        f"multipart/related; type=application/dicom; boundary={BOUNDARY}",
        f'multipart/related; boundary="{BOUNDARY}"; type="application/dicom"',
        f'MULTIPART/Related;Boundary={BOUNDARY};TYPE="Application/DICOM"',
        f"multipart/related; boundary={BOUNDARY}",
    ],
)
def test_content_type_may_be_written_in_every_way(content_type: str) -> None:
    assert post(ScriptedSink(), content_type=content_type).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/dicom",
        "application/octet-stream",
        f"multipart/form-data; boundary={BOUNDARY}",
        f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}',
        f'multipart/related; type="application/dicom+xml"; boundary={BOUNDARY}',
        "nonsense",
    ],
)
def test_other_media_types_are_unsupported(content_type: str | None) -> None:
    sink = ScriptedSink()
    answer = post(sink, content_type=content_type)
    assert answer.status_code == 415
    assert answer.content_type == "application/problem+json"
    assert "multipart/related" in json.loads(answer.data)["detail"]
    assert not sink.staged


def test_an_encoded_body_is_unsupported() -> None:
    assert post(ScriptedSink(), headers={"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize("content_type", ["application/dicom+json", "image/jpeg", "application/octet-stream"])
def test_parts_of_another_media_type_alone_are_unsupported(content_type: str) -> None:
    sink = ScriptedSink()
    assert post(sink, multipart([b"x"], headers={"Content-Type": content_type})).status_code == 415
    assert not sink.staged


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_parts_in_a_transfer_encoding_are_unsupported(encoding: str) -> None:
    headers = {"Content-Type": "application/dicom", "Content-Transfer-Encoding": encoding}
    assert post(ScriptedSink(), multipart([b"x"], headers=headers)).status_code == 415


def test_a_part_of_another_media_type_beside_good_ones_is_a_failure_of_its_own() -> None:
    foreign = f"--{BOUNDARY}\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n".encode()
    sink = ScriptedSink()
    answer = post(sink, foreign + multipart([b"good"]))
    assert answer.status_code == 202
    assert sink.committed == [b"good"]
    assert answer.json is not None
    assert answer.json["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [49152]}}]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/dicom"},
        {"content-type": 'Application/DICOM; transfer-syntax="1.2.840.10008.1.2.4.80"'},
        {"Content-Type": "application/dicom;transfer-syntax=*", "Content-Transfer-Encoding": "binary"},
        {"Content-Location": "instances/1"},
    ],
)
def test_part_headers_may_say_the_transfer_syntax_or_be_absent(headers: dict[str, str]) -> None:
    sink = ScriptedSink()
    assert post(sink, multipart([b"x"], headers=headers)).status_code == 200
    assert sink.committed == [b"x"]


def test_preamble_and_epilogue_are_ignored() -> None:
    sink = ScriptedSink()
    post(sink, multipart([b"x"], preamble=b"Hello -- world\r\n", epilogue=b"\r\nBye\r\n"))
    assert sink.committed == [b"x"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", RELATED),
        (b"no multipart at all", RELATED),
        (multipart([]), RELATED),
        (multipart([b"one", b"two"])[:-4], RELATED),
        (multipart([b"one"]), 'multipart/related; type="application/dicom"'),
        (multipart([b"one"]), 'multipart/related; type="application/dicom"; boundary=other'),
        (multipart([b"one"]).replace(b"Content-Type: ", b"Content Type "), RELATED),
    ],
)
def test_bad_syntax_stores_nothing(body: bytes, content_type: str) -> None:
    sink = ScriptedSink()
    answer = post(sink, body, content_type=content_type)
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert nothing_is_left(sink)


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom+json",
        "Application/DICOM+JSON; charset=utf-8",
        "*/*",
        "application/*;q=0.1",
        "application/dicom+xml, application/dicom+json;q=0.5",
        "text/html, */*;q=0.1",
    ],
)
def test_answers_in_json_to_whoever_takes_it(accept: str) -> None:
    answer = post(ScriptedSink(), headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.content_type == JSON


def test_answers_in_json_where_accept_is_missing() -> None:
    assert post(ScriptedSink()).content_type == JSON


@pytest.mark.parametrize(
    "accept", ["application/dicom+xml", "text/html", "image/*", "*/*, application/dicom+json;q=0", "*/*;q=0"]
)
def test_whoever_takes_no_json_is_refused_before_anything_is_stored(accept: str) -> None:
    sink = ScriptedSink()
    assert post(sink, headers={"Accept": accept}).status_code == 406
    assert not sink.staged


@pytest.mark.parametrize(
    "sink",
    [
        ScriptedSink(fail_with=OutOfSpace(), stage_fails_at=0),
        ScriptedSink(fail_with=OutOfSpace(), stage_fails_at=1),
        ScriptedSink(fail_with=OutOfSpace(), write_fails_after=2),
        ScriptedSink(fail_with=StorageError(), write_fails_after=2),
        ScriptedSink(commit_fails_with=OutOfSpace()),
    ],
)
def test_out_of_space_at_any_moment_stores_nothing_and_asks_to_come_back(sink: ScriptedSink) -> None:
    answer = post(sink)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "17"
    assert nothing_is_left(sink)


def test_too_many_parts_store_nothing() -> None:
    sink = ScriptedSink()
    answer = post(sink, multipart([b"x"] * 6), settings=StowSettings(max_parts=5))
    assert answer.status_code == 413
    assert nothing_is_left(sink)


def test_an_unexpected_fault_is_answered_without_its_text() -> None:
    sink = ScriptedSink(commit_fails_with=RuntimeError("CANARY"))
    answer = post(sink)
    assert answer.status_code == 500
    assert b"CANARY" not in answer.data
    assert nothing_is_left(sink)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_told_which_one_is_taken(method: str) -> None:
    answer = client(ScriptedSink()).open("/dicomweb/studies", method=method)
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert "POST" in json.loads(answer.data)["detail"]


def test_an_unknown_resource_is_a_problem_in_json() -> None:
    answer = client(ScriptedSink()).get("/dicomweb/nothing")
    assert answer.status_code == 404
    assert json.loads(answer.data)["status"] == 404


@pytest.mark.parametrize(
    "sink",
    [
        ScriptedSink(),
        ScriptedSink(outcomes=[stored(), refused(ConflictingInstance())]),
        ScriptedSink(outcomes=[refused(MalformedInstance())]),
        ScriptedSink(fail_with=OutOfSpace(), write_fails_after=2),
    ],
)
def test_logs_and_answers_name_no_patient(sink: ScriptedSink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    files = [part10(dataset) for dataset in ct_series(2)]
    answers = [
        post(sink, multipart(files)),
        post(sink, multipart(files)[:-9]),
        post(sink, multipart(files).replace(b"\r\n\r\n", b"\r\nCANARY^PHI\r\n\r\n", 1)),
        post(sink, multipart(files), content_type="multipart/related; boundary=CANARY"),
        post(sink, multipart(files), path="/dicomweb/studies/CANARY"),
    ]
    assert caplog.records
    assert "CANARY" not in caplog.text
    assert not any("CANARY" in repr(vars(record)) for record in caplog.records)
    assert not any(b"CANARY" in answer.data for answer in answers)


def test_a_part_is_finished_as_soon_as_the_next_one_begins() -> None:
    sink = ScriptedSink()
    post(sink, multipart([b"one", b"two", b"three"]))
    assert [item.finished for item in sink.staged] == [1, 1, 0]
