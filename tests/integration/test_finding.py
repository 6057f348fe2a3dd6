"""Destinations that answer a query for one object in ways that nobody asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pacs import FIND, Pacs
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event

from dicom_out import finding
from dicom_out.finding import DimseFinder, QidoFinder
from dicom_out.settings import StowSettings
from domain.errors import PeerRefused, PeerUnreachable
from domain.job import ResultObject

ONE = ResultObject(
    job_id="0" * 40,
    kind="SEG",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
    sop_instance_uid="2.25.3",
    series_instance_uid="2.25.2",
    path=Path("seg.dcm"),
)


def test_matches_without_an_end_are_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "_MOST_MATCHES", 50)

    def everything(event: Event) -> Iterator[tuple[int, Dataset | None]]:
        match = Dataset()
        match.QueryRetrieveLevel = "IMAGE"
        match.SOPInstanceUID = "2.25.9"
        while event.assoc.is_established:
            yield 0xFF00, match

    ae = AE("PACS")
    ae.add_supported_context(FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, everything)])
    assert server is not None
    settings = Pacs(port=server.server_address[1]).settings()
    try:
        with pytest.raises(PeerRefused, match="more than 50 objects"):
            DimseFinder(settings=settings).visible("2.25.1", [ONE])
    finally:
        server.shutdown()


@contextmanager
def answering(body: bytes) -> Iterator[StowSettings]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield StowSettings(name="web", url=f"http://127.0.0.1:{server.server_address[1]}", timeout_s=2)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "body", [b"", b"7", b"null", b'"text"', b"[3]", b'[{"00080018": ["2.25.3"]}]', b"[" * 100_000, b"<html>\xff"]
)
def test_an_answer_that_cannot_be_read_is_asked_for_again(body: bytes) -> None:
    with answering(body) as settings, pytest.raises(PeerUnreachable, match="cannot be read"):
        QidoFinder(settings=settings).visible("2.25.1", [ONE])


@pytest.mark.parametrize(
    "body", [b"[]", b'[{"00080018": {"vr": "UI"}}, {}]', b'[{"00080018": {"Value": ["2.25.4"]}}]']
)
def test_other_objects_are_not_the_one(body: bytes) -> None:
    with answering(body) as settings:
        assert QidoFinder(settings=settings).visible("2.25.1", [ONE]) == set()
