"""STOW-RS to Orthanc, and to servers that answer in every way."""

from __future__ import annotations

import email.parser
import email.policy
import json
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from factories import ct_series, save
from orthanc_server import OrthancServer, free_port
from pydicom import dcmread

from dicom_out.destinations import make_destination, send_files
from dicom_out.settings import StowSettings
from domain.errors import ClassRefused, DeliveryError, PeerOutOfResources, PeerRefused, PeerUnreachable
from domain.ports import SendReport

SETTINGS = StowSettings(name="web", url="http://127.0.0.1:1/dicom-web", timeout_s=2)


def module(stored: Sequence[str] = (), failed: Sequence[tuple[str, int]] = (), warning: int | None = None) -> bytes:
    """Return a Store Instances Response Module as JSON; like Orthanc's it always has a FailedSOPSequence."""

    def reference(uid: str, **more: int) -> dict[str, object]:
        return {
            "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
            "00081155": {"vr": "UI", "Value": [uid]},
            **{f"0008{tag[1:]}": {"vr": "US", "Value": [value]} for tag, value in more.items()},
        }

    extra = {} if warning is None else {"t1196": warning}
    document = {
        "00081190": {"vr": "UR", "Value": ["http://127.0.0.1/"]},
        "00081199": {"vr": "SQ", "Value": [reference(uid, **extra) for uid in stored]},
        "00081198": {"vr": "SQ", "Value": [reference(uid, t1197=reason) for uid, reason in failed]},
    }
    return json.dumps(document).encode()


@dataclass
class Request:
    """What a fake server got."""

    path: str
    headers: dict[str, str]
    parts: list[bytes]

    @property
    def uids(self) -> list[str]:
        return [str(dcmread(BytesIO(part)).SOPInstanceUID) for part in self.parts]


@dataclass
class FakeServer:
    """Answers POSTs with what ``answer`` makes of them: status, media type, body."""

    answer: Callable[[Request], tuple[int, str, bytes]]
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @contextmanager
    def running(self) -> Iterator[FakeServer]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
                parts = [bytes(part.get_payload(decode=True)) for part in message.iter_parts()]
                request = Request(self.path, dict(self.headers), parts)
                outer.requests.append(request)
                status, media_type, content = outer.answer(request)
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(content)))
                if 300 <= status < 400:
                    self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                outer.requests.append(Request(self.path, dict(self.headers), []))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Be quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def settings(self) -> StowSettings:
        return replace(SETTINGS, url=f"http://127.0.0.1:{self.port}/dicom-web/")


JSON = "application/dicom+json"


def stores_everything(request: Request) -> tuple[int, str, bytes]:
    return 200, JSON, module(stored=request.uids)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return save(ct_series(3), tmp_path / "objects")


def uids_of(paths: Sequence[Path]) -> list[str]:
    return [str(dcmread(path).SOPInstanceUID) for path in paths]


def errors(reports: Sequence[SendReport]) -> list[type[DeliveryError] | None]:
    return [type(report.error) if report.error else None for report in reports]


def test_posts_the_files_as_they_are_with_their_length_known(paths: list[Path]) -> None:
    with FakeServer(stores_everything).running() as server:
        reports = make_destination(server.settings()).send(paths)
    assert errors(reports) == [None] * 3
    assert [report.sop_instance_uid for report in reports] == uids_of(paths)
    (request,) = server.requests
    assert request.path == "/dicom-web/studies"
    assert request.headers["Accept"] == JSON
    assert [part.rstrip(b"\r\n") for part in request.parts] == [path.read_bytes() for path in paths]


def test_sends_credentials_and_headers_and_shows_them_nowhere(
    paths: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeServer(stores_everything).running() as server:
        bearer = replace(server.settings(), token="s3cret", headers={"X-Tenant": "t0p"})
        basic = replace(server.settings(), username="me", password="s3cret")
        for settings in (bearer, basic):
            assert errors(make_destination(settings).send(paths[:1])) == [None]
            assert "s3cret" not in repr(settings)
            assert "t0p" not in repr(settings)
    first, second = (request.headers for request in server.requests)
    assert (first["Authorization"], first["X-Tenant"]) == ("Bearer s3cret", "t0p")
    assert second["Authorization"].startswith("Basic ")
    assert "s3cret" not in caplog.text
    assert "CANARY" not in caplog.text


def test_each_object_has_its_own_answer(paths: list[Path]) -> None:
    first, second, third = uids_of(paths)
    answer = module(stored=[first], failed=[(second, 0xA700), (third, 0xC123)])
    with FakeServer(lambda _: (202, JSON, answer)).running() as server:
        reports = make_destination(server.settings()).send(paths)
    assert errors(reports) == [None, PeerOutOfResources, PeerRefused]
    assert "C123H" in str(reports[2].error)


def test_409_with_a_reason_for_each_is_a_refusal_for_each(paths: list[Path]) -> None:
    answer = module(failed=[(uid, 0x0122) for uid in uids_of(paths)])
    with FakeServer(lambda _: (409, JSON, answer)).running() as server:
        reports = make_destination(server.settings()).send(paths)
    assert errors(reports) == [ClassRefused] * 3
    assert "0122H" in str(reports[0].error)


def test_a_warning_means_stored_and_is_logged(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    answer = module(stored=uids_of(paths[:1]), warning=0xB000)
    with FakeServer(lambda _: (202, JSON, answer)).running() as server:
        assert errors(make_destination(server.settings()).send(paths[:1])) == [None]
    (record,) = [record for record in caplog.records if record.name == "dicom_out.stow"]
    assert record.__dict__["status"] == "B000"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (503, PeerOutOfResources),
        (429, PeerOutOfResources),
        (507, PeerOutOfResources),
        (500, PeerUnreachable),
        (502, PeerUnreachable),
        (504, PeerUnreachable),
        (400, PeerRefused),
        (401, PeerRefused),
        (403, PeerRefused),
        (404, PeerRefused),
        (415, PeerRefused),
    ],
)
def test_http_errors_without_a_module(paths: list[Path], status: int, error: type[DeliveryError]) -> None:
    with FakeServer(lambda _: (status, "text/html", b"<h1>no</h1>")).running() as server:
        (report,) = make_destination(server.settings()).send(paths[:1])
    assert type(report.error) is error
    assert str(status) in str(report.error)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/html", b"<html>Welcome</html>"),
        (JSON, b""),
        (JSON, b"{}"),
        (JSON, module()),
        (JSON, module(stored=["1.2.3"])),
        (JSON, b'{"00081199": 5}'),
        ("application/dicom+xml", b"<broken"),
    ],
)
def test_200_is_not_believed_where_it_does_not_name_the_object(
    paths: list[Path], media_type: str, body: bytes
) -> None:
    with FakeServer(lambda _: (200, media_type, body)).running() as server:
        assert errors(make_destination(server.settings()).send(paths[:1])) == [PeerUnreachable]


def test_an_answer_in_xml_is_understood(paths: list[Path]) -> None:
    first, second = uids_of(paths[:2])
    item = '<Item number="1"><DicomAttribute tag="00081155"><Value number="1">{}</Value></DicomAttribute>{}</Item>'
    reason = '<DicomAttribute tag="00081197" vr="US"><Value number="1">42752</Value></DicomAttribute>'
    body = (
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        f'<DicomAttribute tag="00081199" vr="SQ">{item.format(first, "")}</DicomAttribute>'
        f'<DicomAttribute tag="00081198" vr="SQ">{item.format(second, reason)}</DicomAttribute></NativeDicomModel>'
    )
    with FakeServer(lambda _: (202, "application/dicom+xml", body.encode())).running() as server:
        assert errors(make_destination(server.settings()).send(paths[:2])) == [None, PeerOutOfResources]


def test_a_refused_batch_that_says_too_little_is_sent_one_by_one(paths: list[Path]) -> None:
    bad = uids_of(paths)[1]

    def answer(request: Request) -> tuple[int, str, bytes]:
        return (400, "text/plain", b"") if bad in request.uids else stores_everything(request)

    with FakeServer(answer).running() as server:
        assert errors(make_destination(server.settings()).send(paths)) == [None, PeerRefused, None]
    assert [len(request.parts) for request in server.requests] == [3, 1, 1, 1]


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirection_is_not_followed(paths: list[Path], status: int) -> None:
    with FakeServer(lambda _: (status, "text/plain", b"")).running() as server:
        (report,) = make_destination(server.settings()).send(paths[:1])
    assert isinstance(report.error, PeerRefused)
    assert [request.path for request in server.requests] == ["/dicom-web/studies"]


def test_nobody_listening_is_unreachable(paths: list[Path]) -> None:
    settings = replace(SETTINGS, url=f"http://127.0.0.1:{free_port()}/dicom-web")
    assert errors(make_destination(settings).send(paths)) == [PeerUnreachable] * 3


def test_a_server_that_never_answers_is_unreachable(paths: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = replace(SETTINGS, url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)
        assert errors(make_destination(settings).send(paths)) == [PeerUnreachable] * 3


def trickling(head: bytes, *, filler: bytes = b" ") -> socket.socket:
    """Return a server that answers each connection with ``head`` and then a byte now and then, until it is closed."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(head)
                    while True:
                        connection.sendall(filler)
                        time.sleep(0.05)

    threading.Thread(target=answer, daemon=True).start()
    return server


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"],
    ids=["header", "body"],
)
def test_an_answer_that_trickles_without_an_end_is_none(paths: list[Path], head: bytes) -> None:
    with trickling(head) as server:
        settings = replace(SETTINGS, url=f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3)
        began = time.monotonic()
        assert errors(make_destination(settings).send(paths[:1])) == [PeerUnreachable]
        assert time.monotonic() - began < 10


def test_an_answer_that_is_far_too_large_is_not_kept(paths: list[Path]) -> None:
    with FakeServer(lambda _: (200, JSON, b" " * (40 << 20))).running() as server:
        tracemalloc.start()
        assert errors(make_destination(server.settings()).send(paths[:1])) == [PeerUnreachable]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 100 << 20  # the server's own 40 MiB are in it, and what is kept until it is too much


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(paths: list[Path]) -> None:
    with FakeServer(stores_everything).running() as server:
        settings = replace(SETTINGS, url=f"https://127.0.0.1:{server.port}")
        assert errors(make_destination(settings).send(paths[:1])) == [PeerUnreachable]
    assert server.requests == []


def test_many_files_go_in_requests_of_limited_size(tmp_path: Path) -> None:
    files = save(ct_series(60), tmp_path)
    with FakeServer(stores_everything).running() as server:
        reports = make_destination(server.settings()).send(files)
    assert errors(reports) == [None] * 60
    assert [len(request.parts) for request in server.requests] == [50, 10]


@pytest.mark.peer
def test_orthanc_stores_every_object_and_refuses_what_is_none(
    orthanc: OrthancServer, paths: list[Path], tmp_path: Path
) -> None:
    destination = make_destination(replace(SETTINGS, url=orthanc.dicomweb_url, timeout_s=20))
    (tmp_path / "objects" / "readme.txt").write_text("hello")
    sent = send_files([tmp_path / "objects"], destination)
    assert (sent.stored, sent.skipped) == (3, 1)
    assert sorted(ds.SOPInstanceUID for ds in orthanc.datasets("CT")) == sorted(uids_of(paths))
    # Truncated in the pixels: the header reads well, Orthanc does not take it
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(paths[0].read_bytes()[:700])
    reports = destination.send([broken, paths[1]])
    assert reports[0].error is not None
    assert reports[1].error is None
