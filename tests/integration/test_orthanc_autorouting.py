"""A stock Orthanc with our plug-in forwards to a receiver that stands for Voxgate, whatever happens on the way."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from factories import ct_series, save
from orthanc_server import DICOMWEB_PLUGIN, PYTHON_PLUGIN, OrthancServer, free_port
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

pytestmark = pytest.mark.peer

SCRIPT = Path(__file__).resolve().parents[2] / "orthanc" / "voxgate_autorouting.py"
QUICK = {"RetrySeconds": 0.2, "MaximumRetrySeconds": 0.5}
SILENCE_S = 2.5
"""Long enough for Orthanc to call a series stable (StableAge 1) and for our plug-in to act."""
Make = Callable[..., OrthancServer]


class Receiver:
    """A Storage SCP that stands for Voxgate: counts what it got, refuses what it is told to."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: Counter[str] = Counter()
        self.refuse: dict[str, int] = {}
        """Status for SOP Instance UIDs that are not taken."""
        self.refuse_all_with: int | None = None
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget what came and what is refused."""
        self.received.clear()
        self.refuse.clear()
        self.refuse_all_with = None

    def _store(self, event: evt.Event) -> int:
        uid = str(event.file_meta.MediaStorageSOPInstanceUID)
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
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._store)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None  # because it does not block
        try:
            yield
        finally:
            server.shutdown()


class Listener(BaseHTTPRequestHandler):
    """Stands for Voxgate's HTTP port: takes announcements and STOW-RS requests (PS3.18 10.5)."""

    got: list[tuple[str, str, str | None, bytes]]
    announcements_end_with = 204

    def do_PUT(self) -> None:
        self._note(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self._answer(self.announcements_end_with, b"")

    def do_POST(self) -> None:
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        body = b"".join(self._chunks()) if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        self._note(body)
        message = message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
        answer = Dataset()
        answer.ReferencedSOPSequence = []
        for part in message.walk():
            if not part.is_multipart():
                ds = dcmread(BytesIO(cast(bytes, part.get_payload(decode=True))))
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
                answer.ReferencedSOPSequence.append(item)
        self._answer(200, answer.to_json().encode())

    def _note(self, body: bytes) -> None:
        self.got.append((self.command, self.path, self.headers.get("Authorization"), body))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@contextmanager
def http_listener() -> Iterator[tuple[str, type[Listener]]]:
    """Give the address and the handler class of a small HTTP server."""
    handler = type("Handler", (Listener,), {"got": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()


def make_in(folder: Path, executable: str, receiver: Receiver) -> tuple[Make, list[OrthancServer]]:
    """Return a function that makes an Orthanc with our plug-in in ``folder``, and the list of those it made."""
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
        plugins = (DICOMWEB_PLUGIN, PYTHON_PLUGIN)
        made.append(OrthancServer(executable, folder, configuration=configuration, plugins=plugins))
        return made[-1]

    return make, made


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def make_orthanc(peer: Callable[[str], str], tmp_path: Path, receiver: Receiver) -> Iterator[Make]:
    """Return a function that makes (and does not start) an Orthanc of this test's own."""
    make, made = make_in(tmp_path / "orthanc", peer("Orthanc"), receiver)
    yield make
    for server in made:
        server.kill()


@dataclass(frozen=True)
class Running:
    """An Orthanc that runs, its target, and what HTTP requests came."""

    orthanc: OrthancServer
    receiver: Receiver
    http: type[Listener]

    def waiting(self) -> int:
        return int(self.orthanc.get("/voxgate/status")["waiting"])


@pytest.fixture(scope="module")
def one_for_all(
    peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OrthancServer, Receiver, type[Listener]]]:
    receiver = Receiver()
    with http_listener() as (url, handler):
        make, _ = make_in(tmp_path_factory.mktemp("orthanc"), peer("Orthanc"), receiver)
        orthanc = make(voxgate={"HttpUrl": url + "/", "HttpToken": "secret"})
        orthanc.start()
        yield orthanc, receiver, handler
        orthanc.kill()


@pytest.fixture
def running(one_for_all: tuple[OrthancServer, Receiver, type[Listener]]) -> Running:
    """An Orthanc that is shared by the tests of this module, empty, its target not yet listening."""
    orthanc, receiver, handler = one_for_all
    orthanc.clear()
    receiver.reset()
    handler.got.clear()
    handler.announcements_end_with = 204
    return Running(orthanc, receiver, handler)


def eventually(holds: Callable[[], bool], *, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def uids(datasets: list[Dataset]) -> Counter[str]:
    return Counter(str(ds.SOPInstanceUID) for ds in datasets)


def test_a_stable_series_is_forwarded_once_in_one_transfer(running: Running, tmp_path: Path) -> None:
    series = ct_series(5)
    earlier = set(running.orthanc.get("/jobs"))
    with running.receiver.listening():
        running.orthanc.upload(save(series, tmp_path)[0].parent)
        eventually(lambda: running.receiver.received == uids(series))
        time.sleep(SILENCE_S)
        assert running.receiver.received == uids(series)
    assert running.waiting() == 0
    jobs = [job for job in running.orthanc.get("/jobs", expand="") if job["ID"] not in earlier]
    assert [job["Content"]["InstancesCount"] for job in jobs if job["Type"] == "DicomModalityStore"] == [5]


def test_the_log_names_neither_patient_nor_series_nor_secret(running: Running, tmp_path: Path) -> None:
    series = ct_series(2)
    with running.receiver.listening():
        running.orthanc.upload(save(series, tmp_path)[0].parent)
        eventually(lambda: running.receiver.received == uids(series))
        eventually(lambda: running.waiting() == 0)
    assert "Voxgate: acknowledged" in running.orthanc.log
    for secret in ("CANARY", series[0].SeriesInstanceUID, series[0].StudyInstanceUID, '"secret"'):
        assert secret not in running.orthanc.log


def test_late_slices_alone_are_forwarded_when_they_come(running: Running, tmp_path: Path) -> None:
    series = ct_series(5)
    files = save(series, tmp_path)
    with running.receiver.listening():
        for file in files[:3]:
            running.orthanc.upload(file)
        eventually(lambda: running.receiver.received == uids(series[:3]))
        for file in files[3:]:
            running.orthanc.upload(file)
        eventually(lambda: running.receiver.received == uids(series))


def test_a_series_that_came_while_the_target_was_down_is_forwarded_when_it_is_up(
    running: Running, tmp_path: Path
) -> None:
    series = ct_series(3)
    running.orthanc.upload(save(series, tmp_path)[0].parent)
    eventually(lambda: running.orthanc.get("/voxgate/status")["failed_attempts_in_a_row"] >= 3)
    assert running.waiting() == 1
    with running.receiver.listening():
        eventually(lambda: running.receiver.received == uids(series))
        eventually(lambda: running.waiting() == 0)


def test_a_series_that_a_full_target_refused_is_forwarded_when_there_is_room(
    running: Running, tmp_path: Path
) -> None:
    series = ct_series(3)
    running.receiver.refuse_all_with = 0xA700
    with running.receiver.listening():
        running.orthanc.upload(save(series, tmp_path)[0].parent)
        eventually(lambda: any(item["attempts"] >= 2 for item in running.orthanc.get("/voxgate/status")["series"]))
        assert running.orthanc.get("/voxgate/status")["series"][0]["reason"] == "DIMSE status 0xA700"
        running.receiver.refuse_all_with = None
        eventually(lambda: running.receiver.received == uids(series))


def test_one_refused_instance_does_not_keep_the_others_back(running: Running, tmp_path: Path) -> None:
    series = ct_series(8)
    bad = str(series[5].SOPInstanceUID)
    running.receiver.refuse[bad] = 0xC000
    with running.receiver.listening():
        running.orthanc.upload(save(series, tmp_path)[0].parent)
        eventually(lambda: set(running.receiver.received) == set(uids(series)) - {bad})
        assert running.waiting() == 1
        running.receiver.refuse.clear()
        eventually(lambda: running.receiver.received[bad] == 1)
        eventually(lambda: running.waiting() == 0)


def test_results_and_other_modalities_are_never_forwarded(running: Running, tmp_path: Path) -> None:
    wanted = ct_series(1)
    changes = (
        {"Manufacturer": "Voxgate"},
        {"Modality": "SEG"},
        {"Modality": "SR", "Manufacturer": "Voxgate"},
        {"Modality": "CR"},
    )
    for number, change in enumerate(changes):
        excluded = ct_series(2)
        for ds in excluded:
            for keyword, value in change.items():
                setattr(ds, keyword, value)
        running.orthanc.upload(save(excluded, tmp_path / str(number))[0].parent)
    with running.receiver.listening():
        running.orthanc.upload(save(wanted, tmp_path / "wanted")[0].parent)
        eventually(lambda: running.receiver.received == uids(wanted))
        eventually(lambda: running.waiting() == 0)
        assert running.receiver.received == uids(wanted)


def test_a_series_that_is_deleted_while_it_waits_is_forgotten(running: Running, tmp_path: Path) -> None:
    running.orthanc.upload(save(ct_series(2), tmp_path)[0].parent)
    eventually(lambda: running.orthanc.get("/voxgate/status")["failed_attempts_in_a_row"] >= 1)
    running.orthanc.clear()
    eventually(lambda: running.waiting() == 0)


def test_voxgate_is_told_how_many_instances_to_expect(running: Running, tmp_path: Path) -> None:
    series = ct_series(3)
    with running.receiver.listening():
        running.orthanc.upload(save(series, tmp_path)[0].parent)
        eventually(lambda: running.receiver.received == uids(series))
    method, path, authorization, body = running.http.got[0]
    assert (method, authorization, json.loads(body)) == ("PUT", "Bearer secret", {"instances": 3})
    assert path == f"/api/v1/series/{series[0].SeriesInstanceUID}/expected-instances"


def test_a_refused_announcement_does_not_keep_the_series_back(running: Running, tmp_path: Path) -> None:
    running.http.announcements_end_with = 404
    series = ct_series(2)
    with running.receiver.listening():
        running.orthanc.upload(save(series, tmp_path)[0].parent)
        eventually(lambda: running.receiver.received == uids(series))


def test_nothing_that_arrived_before_orthanc_was_killed_is_forgotten(
    make_orthanc: Make, receiver: Receiver, tmp_path: Path
) -> None:
    first, second = ct_series(4), ct_series(2)
    files = save(first, tmp_path / "first")
    # Nobody listens at HttpUrl: that must not matter either.
    orthanc = make_orthanc(voxgate={"HttpUrl": f"http://127.0.0.1:{free_port()}"})
    with receiver.listening():
        orthanc.start()
        for file in files[:3]:
            orthanc.upload(file)
        eventually(lambda: orthanc.get("/voxgate/status")["acknowledged_since_start"] == 3)
        orthanc.upload(files[3])
        orthanc.upload(save(second, tmp_path / "second")[0].parent)
        orthanc.kill()
        assert receiver.received == uids(first[:3])
        orthanc.start()
        eventually(lambda: receiver.received == uids(first) + uids(second))


def test_retrying_goes_on_after_orthanc_was_killed_while_the_target_was_down(
    make_orthanc: Make, receiver: Receiver, tmp_path: Path
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


def test_an_archive_is_not_forwarded_when_the_plug_in_is_installed_and_nothing_twice_after_a_restart(
    make_orthanc: Make, receiver: Receiver, tmp_path: Path
) -> None:
    old, new = ct_series(2), ct_series(2)
    before = make_orthanc(voxgate={"Enabled": False})
    before.start()
    before.upload(save(old, tmp_path / "old")[0].parent)
    before.kill()
    with receiver.listening():
        orthanc = make_orthanc()
        orthanc.start()
        orthanc.upload(save(new, tmp_path / "new")[0].parent)
        eventually(lambda: orthanc.get("/voxgate/status")["acknowledged_since_start"] == 2)
        orthanc.stop()
        orthanc.start()
        time.sleep(SILENCE_S)
        assert receiver.received == uids(new)


def test_a_series_is_forwarded_by_stow_where_that_is_asked_for(make_orthanc: Make, tmp_path: Path) -> None:
    series = ct_series(2)
    with http_listener() as (url, http):
        servers = {"Enable": True, "Root": "/dicom-web/", "Servers": {"voxgate": {"Url": f"{url}/dicomweb"}}}
        orthanc = make_orthanc(voxgate={"Protocol": "stow"}, DicomWeb=servers)
        orthanc.start()
        orthanc.upload(save(series, tmp_path / "in")[0].parent)
        eventually(lambda: orthanc.get("/voxgate/status")["acknowledged_since_start"] == 2)
        ((method, path, _, body),) = http.got
        assert (method, path) == ("POST", "/dicomweb/studies")
        assert all(str(ds.SOPInstanceUID).encode() in body for ds in series)
        orthanc.kill()


def test_the_configuration_that_we_ship_forwards(
    peer: Callable[[str], str], receiver: Receiver, tmp_path: Path
) -> None:
    series = ct_series(2)
    orthanc = OrthancServer(peer("Orthanc"), tmp_path / "orthanc", file=SCRIPT.with_name("orthanc.json"))
    orthanc.environment.update(
        ORTHANC_DATA=str(tmp_path / "storage"),
        ORTHANC_DIMSE_PORT=str(orthanc.dimse_port),
        ORTHANC_HTTP_PORT=str(orthanc.http_port),
        ORTHANC_REMOTE_ACCESS="false",
        ORTHANC_AUTHENTICATION="false",
        ORTHANC_STABLE_AGE="1",
        VOXGATE_SCRIPT=str(SCRIPT),
        VOXGATE_DIMSE_PORT=str(receiver.port),
        VOXGATE_HTTP_URL=f"http://127.0.0.1:{free_port()}",
    )
    with receiver.listening():
        orthanc.start()
        try:
            orthanc.upload(save(series, tmp_path / "in")[0].parent)
            eventually(lambda: receiver.received == uids(series))
        finally:
            orthanc.kill()


def test_a_script_of_the_site_loads_ours_and_keeps_its_own_callback(
    make_orthanc: Make, receiver: Receiver, tmp_path: Path
) -> None:
    script = tmp_path / "hospital.py"
    script.write_text(
        f"""import sys, orthanc
sys.path.append({str(SCRIPT.parent)!r})
from voxgate_router import install
def on_change(change, level, resource):
    if change == orthanc.ChangeType.STABLE_SERIES:
        orthanc.LogWarning("the site saw a stable series")
install(orthanc, also=on_change)
"""
    )
    series = ct_series(1)
    orthanc = make_orthanc(PythonScript=str(script))
    with receiver.listening():
        orthanc.start()
        orthanc.upload(save(series, tmp_path / "in")[0])
        eventually(lambda: receiver.received == uids(series))
        eventually(lambda: "the site saw a stable series" in orthanc.log)


def test_a_faulty_configuration_says_every_fault_and_orthanc_does_not_start(make_orthanc: Make) -> None:
    orthanc = make_orthanc(voxgate={"Protocoll": "stow", "RetrySeconds": 0, "Modalities": "CT"})
    with pytest.raises(RuntimeError, match="did not start"):
        orthanc.start()
    for fault in ("Voxgate.Protocoll: unknown", "Voxgate.RetrySeconds: must", "Voxgate.Modalities: must"):
        assert fault in orthanc.log
