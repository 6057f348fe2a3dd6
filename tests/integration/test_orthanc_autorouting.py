"""A stock Orthanc with our plug-in forwards to a receiver that stands for Voxgate, whatever happens on the way."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from factories import ct_series, save
from orthanc_server import DICOMWEB_PLUGIN, PYTHON_PLUGIN, OrthancServer, free_port
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

pytestmark = pytest.mark.peer

SCRIPT = Path(__file__).resolve().parents[2] / "orthanc" / "voxgate_autorouting.py"
QUICK = {"RetrySeconds": 0.2, "MaximumRetrySeconds": 1.0}
SILENCE_S = 2.5
"""Long enough for Orthanc to call a series stable (StableAge 1) and for our plug-in to act."""


class Receiver:
    """A Storage SCP that stands for Voxgate: counts what it got, refuses what it is told to."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: Counter[str] = Counter()
        self.refuse: dict[str, int] = {}
        """Status for SOP Instance UIDs that are not taken."""
        self.refuse_all_with: int | None = None
        self._lock = threading.Lock()

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.refuse.get(uid, self.refuse_all_with or 0)
        if status == 0:
            with self._lock:
                self.received[uid] += 1
        return status

    @contextmanager
    def listening(self) -> Iterator[None]:
        ae = AE(ae_title="VOXGATE")
        ae.supported_contexts = AllStoragePresentationContexts
        ae.add_supported_context(Verification)
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        try:
            yield
        finally:
            server.shutdown()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def make_orthanc(
    peer: Callable[[str], str], tmp_path: Path, receiver: Receiver
) -> Iterator[Callable[..., OrthancServer]]:
    """Return a function that makes (and does not start) an Orthanc with our plug-in; its settings go on top."""
    executable = peer("Orthanc")
    if not PYTHON_PLUGIN.exists():
        pytest.skip("orthanc-python is not installed (make peers)")
    made: list[OrthancServer] = []

    def make(*, voxgate: dict[str, Any] | None = None, **more: Any) -> OrthancServer:
        configuration = {
            "PythonScript": str(SCRIPT),
            "StableAge": 1,
            "DicomModalities": {"voxgate": ["VOXGATE", "127.0.0.1", receiver.port]},
            "Voxgate": {**QUICK, **(voxgate or {})},
            **more,
        }
        made.append(
            OrthancServer(
                executable,
                tmp_path / "orthanc",
                configuration=configuration,
                plugins=(DICOMWEB_PLUGIN, PYTHON_PLUGIN),
            )
        )
        return made[-1]

    yield make
    for server in made:
        server.stop()


def eventually(holds: Callable[[], bool], *, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def uids(datasets: list[Dataset]) -> Counter[str]:
    return Counter(str(ds.SOPInstanceUID) for ds in datasets)


def test_each_instance_of_a_stable_series_is_forwarded_exactly_once(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(5)
    with receiver.listening(), make_orthanc() as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: receiver.received == uids(series))
        time.sleep(SILENCE_S)
        assert receiver.received == uids(series)
        status = orthanc.get("/voxgate/status")
        assert (status["waiting"], status["acknowledged_since_start"]) == (0, 5)
        assert "CANARY" not in orthanc.log
        assert series[0].SeriesInstanceUID not in orthanc.log


def test_late_slices_alone_are_forwarded_when_they_come(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(5)
    files = save(series, tmp_path / "in")
    with receiver.listening(), make_orthanc() as orthanc:
        for file in files[:3]:
            orthanc.upload(file)
        eventually(lambda: receiver.received == uids(series[:3]))
        for file in files[3:]:
            orthanc.upload(file)
        eventually(lambda: receiver.received == uids(series))


def test_a_series_that_came_while_the_target_was_down_is_forwarded_when_it_is_up(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(3)
    with make_orthanc() as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: orthanc.get("/voxgate/status")["failed_attempts_in_a_row"] >= 3)
        assert orthanc.get("/voxgate/status")["waiting"] == 1
        with receiver.listening():
            eventually(lambda: receiver.received == uids(series))
            eventually(lambda: orthanc.get("/voxgate/status")["waiting"] == 0)


def test_a_series_that_a_full_target_refused_is_forwarded_when_there_is_room(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(3)
    receiver.refuse_all_with = 0xA700
    with receiver.listening(), make_orthanc() as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: any(item["attempts"] >= 2 for item in orthanc.get("/voxgate/status")["series"]))
        receiver.refuse_all_with = None
        eventually(lambda: receiver.received == uids(series))


def test_one_refused_instance_does_not_keep_the_others_back(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(8)
    receiver.refuse[series[5].SOPInstanceUID] = 0xC000
    with receiver.listening(), make_orthanc() as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        others = set(uids(series)) - {series[5].SOPInstanceUID}
        eventually(lambda: set(receiver.received) == others)
        eventually(lambda: orthanc.get("/voxgate/status")["waiting"] == 1)
        receiver.refuse.clear()
        eventually(lambda: receiver.received[series[5].SOPInstanceUID] == 1)
        eventually(lambda: orthanc.get("/voxgate/status")["waiting"] == 0)


@pytest.mark.parametrize(
    "change",
    [
        {"Manufacturer": "Voxgate"},
        {"Modality": "SEG"},
        {"Modality": "SR", "Manufacturer": "Voxgate"},
        {"Modality": "CR"},
    ],
    ids=lambda change: " ".join(change.values()),
)
def test_results_and_other_modalities_are_never_forwarded(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path, change: dict[str, str]
) -> None:
    excluded, wanted = ct_series(2), ct_series(1)
    for ds in excluded:
        for keyword, value in change.items():
            setattr(ds, keyword, value)
    with receiver.listening(), make_orthanc() as orthanc:
        orthanc.upload(save(excluded, tmp_path / "excluded")[0].parent)
        orthanc.upload(save(wanted, tmp_path / "wanted")[0].parent)
        eventually(lambda: receiver.received == uids(wanted))
        eventually(lambda: orthanc.get("/voxgate/status")["waiting"] == 0)
        assert receiver.received == uids(wanted)


def test_a_series_is_forwarded_although_orthanc_was_killed_before_it_was_stable(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(4)
    with receiver.listening():
        orthanc = make_orthanc()
        orthanc.start()
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        orthanc.kill()
        assert not receiver.received
        orthanc.start()
        eventually(lambda: receiver.received == uids(series))


def test_late_slices_are_forwarded_although_orthanc_was_killed_before_they_were_stable(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(4)
    files = save(series, tmp_path / "in")
    with receiver.listening():
        orthanc = make_orthanc()
        orthanc.start()
        for file in files[:3]:
            orthanc.upload(file)
        eventually(lambda: orthanc.get("/voxgate/status")["acknowledged_since_start"] == 3)
        orthanc.upload(files[3])
        orthanc.kill()
        orthanc.start()
        eventually(lambda: receiver.received == uids(series))


def test_retrying_goes_on_after_orthanc_was_killed_while_the_target_was_down(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(2)
    orthanc = make_orthanc()
    orthanc.start()
    orthanc.upload(save(series, tmp_path / "in")[0].parent)
    eventually(lambda: orthanc.get("/voxgate/status")["failed_attempts_in_a_row"] >= 2)
    orthanc.kill()
    orthanc.start()
    assert not receiver.received
    with receiver.listening():
        eventually(lambda: set(receiver.received) == set(uids(series)))


def test_nothing_is_sent_twice_after_an_orderly_restart(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(2)
    with receiver.listening():
        orthanc = make_orthanc()
        orthanc.start()
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: orthanc.get("/voxgate/status")["acknowledged_since_start"] == 2)
        orthanc.stop()
        orthanc.start()
        time.sleep(SILENCE_S)
        assert receiver.received == uids(series)


def test_an_archive_is_not_forwarded_when_the_plug_in_is_installed(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    old, new = ct_series(2), ct_series(2)
    with receiver.listening():
        with make_orthanc(voxgate={"Enabled": False}) as before:
            before.upload(save(old, tmp_path / "old")[0].parent)
        with make_orthanc() as orthanc:
            orthanc.upload(save(new, tmp_path / "new")[0].parent)
            eventually(lambda: receiver.received == uids(new))
            eventually(lambda: orthanc.get("/voxgate/status")["waiting"] == 0)
            assert receiver.received == uids(new)


def test_a_series_that_is_deleted_while_it_waits_is_forgotten(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    with make_orthanc() as orthanc:
        orthanc.upload(save(ct_series(2), tmp_path / "in")[0].parent)
        eventually(lambda: orthanc.get("/voxgate/status")["failed_attempts_in_a_row"] >= 1)
        orthanc.clear()
        eventually(lambda: orthanc.get("/voxgate/status")["waiting"] == 0)


class Announcements(BaseHTTPRequestHandler):
    """Stands for Voxgate's HTTP port: takes what it is told, and STOW-RS requests."""

    got: list[tuple[str, str, str | None, bytes]]
    status = 204

    def _take(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.got.append((self.command, self.path, self.headers.get("Authorization"), body))
        answer = b"{}" if self.command == "POST" else b""
        self.send_response(200 if self.command == "POST" else self.status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST = _take  # noqa: N815

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def http_port() -> Iterator[tuple[str, type[Announcements]]]:
    """Return address and handler of a small HTTP server."""
    handler = type("Handler", (Announcements,), {"got": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_voxgate_is_told_how_many_instances_to_expect(
    make_orthanc: Callable[..., OrthancServer],
    receiver: Receiver,
    tmp_path: Path,
    http_port: tuple[str, type[Announcements]],
) -> None:
    url, handler = http_port
    series = ct_series(3)
    with receiver.listening(), make_orthanc(voxgate={"HttpUrl": url + "/", "HttpToken": "secret"}) as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: receiver.received == uids(series))
        method, path, authorization, body = handler.got[0]
        assert (method, authorization, json.loads(body)) == ("PUT", "Bearer secret", {"instances": 3})
        assert path == f"/api/v1/series/{series[0].SeriesInstanceUID}/expected-instances"
        assert "secret" not in orthanc.log


@pytest.mark.parametrize("status", [404, 500, None], ids=["refused", "broken", "nobody there"])
def test_a_failed_announcement_does_not_keep_the_series_back(
    make_orthanc: Callable[..., OrthancServer],
    receiver: Receiver,
    tmp_path: Path,
    http_port: tuple[str, type[Announcements]],
    status: int | None,
) -> None:
    url, handler = http_port
    if status is None:
        url = f"http://127.0.0.1:{free_port()}"
    else:
        handler.status = status
    series = ct_series(2)
    with receiver.listening(), make_orthanc(voxgate={"HttpUrl": url}) as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: receiver.received == uids(series))


def test_a_series_is_forwarded_by_stow_where_that_is_asked_for(
    make_orthanc: Callable[..., OrthancServer], tmp_path: Path, http_port: tuple[str, type[Announcements]]
) -> None:
    url, handler = http_port
    series = ct_series(2)
    servers = {"Enable": True, "Root": "/dicom-web/", "Servers": {"voxgate": {"Url": f"{url}/dicomweb"}}}
    with make_orthanc(voxgate={"Protocol": "stow"}, DicomWeb=servers) as orthanc:
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: orthanc.get("/voxgate/status")["acknowledged_since_start"] == 2)
        bodies = b"".join(
            body for method, path, _, body in handler.got if (method, path) == ("POST", "/dicomweb/studies")
        )
        assert all(ds.SOPInstanceUID.encode() in bodies for ds in series)


def test_a_faulty_configuration_says_every_fault_and_orthanc_does_not_start(
    make_orthanc: Callable[..., OrthancServer],
) -> None:
    orthanc = make_orthanc(voxgate={"Protocoll": "stow", "RetrySeconds": 0, "Modalities": "CT"})
    with pytest.raises(RuntimeError, match="did not start"):
        orthanc.start()
    for fault in ("Voxgate.Protocoll: unknown", "Voxgate.RetrySeconds: must", "Voxgate.Modalities: must"):
        assert fault in orthanc.log


def test_a_series_is_one_transfer(
    make_orthanc: Callable[..., OrthancServer], receiver: Receiver, tmp_path: Path
) -> None:
    first = ct_series(1)[0]
    with receiver.listening(), make_orthanc() as orthanc:
        series = []
        for number in range(40):
            first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            first.InstanceNumber = number
            orthanc.upload(save([first], tmp_path / str(number))[0])
            series.append(first.SOPInstanceUID)
        eventually(lambda: receiver.received == Counter(map(str, series)))
        assert sum(job["Type"] == "DicomModalityStore" for job in orthanc.get("/jobs", expand="")) == 1
