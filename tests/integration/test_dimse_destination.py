"""C-STORE to destinations that behave, and to some that do not."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from socketserver import TCPServer

import pytest
from factories import ct_series, ct_slice, save
from fakes import RecordingSink
from orthanc_server import OrthancServer, free_port
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from dicom_out.destinations import make_destination, send_files
from dicom_out.outgoing import read_outgoing
from dicom_out.settings import DimseSettings
from domain.errors import ClassRefused, DeliveryError, PeerOutOfResources, PeerRefused, PeerUnreachable
from domain.ports import Destination, SendReport
from scp.server import serving
from scp.settings import ScpSettings

SETTINGS = DimseSettings(
    name="pacs",
    host="127.0.0.1",
    port=1,
    ae_title="PACS",
    connect_timeout_s=2,
    acse_timeout_s=2,
    response_timeout_s=2,
    stall_timeout_s=2,
)

Contexts = Sequence[tuple[str, Sequence[str]]]
ALL: Contexts = (
    (CTImageStorage, (ExplicitVRLittleEndian, ImplicitVRLittleEndian)),
    (MRImageStorage, (ExplicitVRLittleEndian,)),
)


@contextmanager
def peer_that(
    on_store: Callable[[Event], int],
    *,
    contexts: Contexts = ALL,
    on_requested: Callable[[Event], None] = lambda _event: None,
) -> Iterator[Destination]:
    """Run an SCP whose C-STORE handler is ``on_store``; yield the destination that leads to it."""
    ae = AE("PACS")
    for abstract_syntax, syntaxes in contexts:
        ae.add_supported_context(abstract_syntax, list(syntaxes))
    server = ae.make_server(
        ("127.0.0.1", 0),
        evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_REQUESTED, on_requested)],
        server_class=ThreadedAssociationServer,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield make_destination(replace(SETTINGS, port=server.server_address[1]))
    finally:
        TCPServer.shutdown(server)
        thread.join()
        server.server_close()
        for association in server.active_associations:
            association.abort()


class Scripted:
    """Answers each C-STORE with the next status of a script, then with success."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.stored: list[str] = []

    def __call__(self, event: Event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.stored.append(str(event.dataset.SOPInstanceUID))
        return status


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return save(ct_series(3), tmp_path / "objects")


def errors(reports: Sequence[SendReport]) -> list[type[DeliveryError] | None]:
    return [type(report.error) if report.error else None for report in reports]


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007])
def test_success_and_warnings_mean_stored(paths: list[Path], status: int) -> None:
    with peer_that(Scripted(status, status, status)) as destination:
        reports = destination.send(paths)
    assert errors(reports) == [None] * 3
    assert [report.sop_instance_uid for report in reports] == [dcmread(path).SOPInstanceUID for path in paths]


def test_a_warning_is_logged_with_its_status(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with peer_that(Scripted(0xB007)) as destination:
        destination.send(paths)
    (record,) = [record for record in caplog.records if record.name == "dicom_out.dimse"]
    assert (record.message, record.__dict__["status"]) == ("stored with a warning", "B007")


def test_each_object_has_its_own_answer(paths: list[Path]) -> None:
    with peer_that(Scripted(0xA700, 0xC123)) as destination:
        reports = destination.send(paths)
    assert errors(reports) == [PeerOutOfResources, PeerRefused, None]
    assert "C123H" in str(reports[1].error)
    assert not PeerRefused.retryable
    assert PeerOutOfResources.retryable


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122, 0x0124, 0x0117, 0x0110, 0x0001])
def test_other_failures_are_final_and_name_the_status(paths: list[Path], status: int) -> None:
    with peer_that(Scripted(status)) as destination:
        report = destination.send(paths[:1])[0]
    assert isinstance(report.error, PeerRefused)
    assert f"{status:04X}H" in str(report.error)


def test_out_of_resources_three_times_then_stored(paths: list[Path]) -> None:
    script = Scripted(0xA700, 0xA700, 0xA700)
    with peer_that(script) as destination:
        answers = [errors(destination.send(paths[:1]))[0] for _ in range(4)]
    assert answers == [PeerOutOfResources] * 3 + [None]
    assert len(script.stored) == 1


def test_an_abort_before_the_answer_is_not_delivered_and_the_others_are_sent_all_the_same(
    paths: list[Path],
) -> None:
    received: list[str] = []

    def abort_the_second(event: Event) -> int:
        received.append(str(event.dataset.SOPInstanceUID))
        if len(received) == 2:
            event.assoc.abort()
        return 0x0000

    with peer_that(abort_the_second) as destination:
        reports = destination.send(paths)
    assert errors(reports) == [None, PeerUnreachable, None]
    assert len(received) == 3


def test_a_peer_that_aborts_every_association_is_given_up(tmp_path: Path) -> None:
    aborted: list[Event] = []

    def abort(event: Event) -> int:
        aborted.append(event)
        event.assoc.abort()
        return 0x0000

    with peer_that(abort) as destination:
        reports = destination.send(save(ct_series(8), tmp_path))
    assert errors(reports) == [PeerUnreachable] * 8
    assert len(aborted) == 3


def test_no_answer_in_time_is_not_delivered(paths: list[Path]) -> None:
    release = threading.Event()

    def sleep(_event: Event) -> int:
        release.wait(10)
        return 0x0000

    with peer_that(sleep) as destination:
        hasty = make_destination(replace(destination._settings, response_timeout_s=0.3))  # type: ignore[attr-defined]
        reports = hasty.send(paths[:1])
        release.set()
    assert errors(reports) == [PeerUnreachable]


def test_a_rejected_association_is_tried_again_later_and_says_why(paths: list[Path]) -> None:
    def reject(event: Event) -> None:
        event.assoc.acse.send_reject(1, 1, 7)
        event.assoc.kill()

    with peer_that(Scripted(), on_requested=reject) as destination:
        reports = destination.send(paths)
    assert errors(reports) == [PeerUnreachable] * 3
    assert "Called AE title not recognised" in str(reports[0].error)


def test_nobody_listening_is_unreachable(paths: list[Path]) -> None:
    assert errors(make_destination(replace(SETTINGS, port=free_port())).send(paths)) == [PeerUnreachable] * 3


def test_a_peer_that_accepts_connections_and_says_nothing_is_unreachable(paths: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = replace(SETTINGS, port=silent.getsockname()[1], acse_timeout_s=0.5)
        started = time.monotonic()
        assert errors(make_destination(settings).send(paths)) == [PeerUnreachable] * 3
    assert time.monotonic() - started < 5


def test_a_peer_that_stops_in_the_middle_of_its_answer_is_unreachable(paths: list[Path]) -> None:
    def answer_by_half() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"\x02\x00\x00\x00\x01\x00\x00\x01")
            finished.wait(10)

    finished = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_by_half)
        thread.start()
        settings = replace(SETTINGS, port=server.getsockname()[1], acse_timeout_s=0.5, stall_timeout_s=0.5)
        assert errors(make_destination(settings).send(paths)) == [PeerUnreachable] * 3
        finished.set()
        thread.join()


def test_a_peer_whose_answer_trickles_is_left_all_the_same(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_out.association._GRACE_S", 0.2)
    closed: list[float] = []

    def trickle() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"\x02\x00\x00\x10\x00\x00")  # A-ASSOCIATE-AC of a mebibyte
            try:
                while True:
                    connection.sendall(b"\x00")
                    time.sleep(0.05)
            except OSError:
                closed.append(time.monotonic())

    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = threading.Thread(target=trickle)
        peer.start()
        port = server.getsockname()[1]
        settings = replace(SETTINGS, port=port, connect_timeout_s=0.5, acse_timeout_s=0.5)
        began = time.monotonic()
        assert errors(make_destination(settings).send(paths)) == [PeerUnreachable] * 3
        peer.join(10)
    assert closed, "the connection is left open"
    assert closed[0] - began < 10


def test_a_sop_class_that_the_peer_does_not_take_is_refused_by_name_and_others_are_sent(tmp_path: Path) -> None:
    mr = ct_slice()
    mr.SOPClassUID = mr.file_meta.MediaStorageSOPClassUID = MRImageStorage
    with peer_that(Scripted(), contexts=ALL[:1]) as destination:
        reports = destination.send(save([mr, ct_slice()], tmp_path))
    assert errors(reports) == [ClassRefused, None]
    assert str(reports[0].error) == "the destination does not accept SOP class MR Image Storage"


def test_when_no_sop_class_at_all_is_taken_it_is_a_refusal_too(paths: list[Path]) -> None:
    with peer_that(Scripted(), contexts=ALL[1:]) as destination:
        reports = destination.send(paths)
    assert errors(reports) == [ClassRefused] * 3
    assert "CT Image Storage" in str(reports[0].error)


def test_a_compressed_object_is_never_sent_in_another_syntax(tmp_path: Path) -> None:
    compressed = ct_slice()
    compressed.file_meta.TransferSyntaxUID = JPEG2000Lossless
    path = tmp_path / "j2k.dcm"
    _save_encapsulated(compressed, path)
    with peer_that(Scripted()) as destination:
        (report,) = destination.send([path])
    assert isinstance(report.error, PeerRefused)
    with peer_that(Scripted(), contexts=[(CTImageStorage, [ExplicitVRLittleEndian])]) as destination:
        reports = destination.send([path, *save([ct_slice()], tmp_path / "raw")])
    assert errors(reports) == [ClassRefused, None]
    assert "JPEG 2000" in str(reports[0].error)


def _save_encapsulated(dataset: Dataset, path: Path) -> None:
    from pydicom.encaps import encapsulate

    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def test_a_peer_that_takes_only_the_default_syntax_gets_the_same_values(paths: list[Path]) -> None:
    got: list[Dataset] = []

    def keep(event: Event) -> int:
        got.append(event.dataset)
        return 0x0000

    with peer_that(keep, contexts=[(CTImageStorage, [ImplicitVRLittleEndian])]) as destination:
        assert errors(destination.send(paths)) == [None] * 3
    sent = [dcmread(path) for path in paths]
    assert [dataset.PixelData for dataset in got] == [dataset.PixelData for dataset in sent]
    assert got[0].PatientName == sent[0].PatientName


def test_the_bytes_of_the_dataset_are_not_touched_even_where_they_are_broken(tmp_path: Path) -> None:
    (path,) = save([ct_slice()], tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    sink = RecordingSink()
    with serving(ScpSettings(port=0, stop_timeout_s=1), sink) as port:
        settings = replace(SETTINGS, port=port, ae_title="VOXGATE")
        assert errors(make_destination(settings).send([path])) == [None]
    ((received, _),) = sink.received
    dataset = path.read_bytes()[read_outgoing(path).dataset_offset :]
    assert received.endswith(dataset)
    assert len(received) - len(dataset) < 500


def test_more_than_128_contexts_go_over_several_associations(tmp_path: Path) -> None:
    datasets = []
    for number in range(140):
        dataset = ct_slice()
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(f"1.2.3.4.{number}")
        datasets.append(dataset)
    proposed: list[int] = []

    def count(event: Event) -> None:
        primitive = event.assoc.requestor.primitive
        assert primitive is not None
        proposed.append(len(primitive.presentation_context_definition_list))

    with peer_that(Scripted(), on_requested=count) as destination:
        reports = destination.send(save([*datasets, ct_slice(), ct_slice()], tmp_path))
    assert proposed == [128, 13]
    assert errors(reports) == [ClassRefused] * 140 + [None, None]


def test_a_file_that_is_no_dicom_or_has_no_uid_spoils_only_itself(tmp_path: Path, paths: list[Path]) -> None:
    text = tmp_path / "text.dcm"
    text.write_text("not DICOM")
    nameless = ct_slice()
    nameless.SOPInstanceUID = UID("")
    (empty,) = save_unchecked([nameless], tmp_path / "nameless")
    with peer_that(Scripted()) as destination:
        reports = destination.send([text, empty, tmp_path / "missing.dcm", paths[0]])
    assert errors(reports) == [DeliveryError, DeliveryError, DeliveryError, None]
    assert "SOPInstanceUID" in str(reports[1].error)


def save_unchecked(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    folder.mkdir()
    for dataset in datasets:
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / "0.dcm", implicit_vr=False, little_endian=True, enforce_file_format=False)
    path = folder / "0.dcm"
    content = path.read_bytes()
    path.write_bytes(content if content[128:132] == b"DICM" else b"\0" * 128 + b"DICM" + content)
    return [path]


def test_send_files_walks_folders_counts_what_is_no_dicom_and_reports_progress(tmp_path: Path) -> None:
    save(ct_series(60), tmp_path / "a" / "deep")
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "a" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    progress: list[tuple[int, int]] = []
    script = Scripted(0xC000)
    with peer_that(script) as destination:
        sent = send_files([tmp_path / "a"], destination, lambda done, total: progress.append((done, total)))
    assert (len(sent.reports), sent.stored, sent.skipped) == (60, 59, 2)
    assert progress == [(0, 60), (50, 60), (60, 60)]


def test_send_files_gives_up_when_nobody_is_there(tmp_path: Path) -> None:
    files = save(ct_series(60), tmp_path)
    sent = send_files(files, make_destination(replace(SETTINGS, port=free_port())))
    assert (len(sent.reports), sent.stored) == (60, 0)
    assert {type(report.error) for _, report in sent.reports} == {PeerUnreachable}


def test_logs_no_patient(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with peer_that(Scripted(0xC000, 0xB000)) as destination:
        reports = destination.send(paths)
    assert "CANARY" not in caplog.text + repr(reports)


@pytest.mark.peer
def test_dcmtk_stores_every_object(peer: Callable[[str], str], paths: list[Path], tmp_path: Path) -> None:
    port = free_port()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    process = subprocess.Popen(
        [peer("storescp"), "--output-directory", str(inbox), str(port)],
        env={"TCP_NODELAY": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        destination = make_destination(replace(SETTINGS, port=port))
        deadline = time.monotonic() + 10
        while errors(reports := destination.send(paths)) != [None] * 3 and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
    assert errors(reports) == [None] * 3
    stored = {dcmread(path).SOPInstanceUID: dcmread(path) for path in inbox.iterdir()}
    assert {uid: ds.PixelData for uid, ds in stored.items()} == {
        ds.SOPInstanceUID: ds.PixelData for ds in map(dcmread, paths)
    }


@pytest.mark.peer
def test_orthanc_stores_every_object(orthanc: OrthancServer, paths: list[Path]) -> None:
    destination = make_destination(replace(SETTINGS, port=orthanc.dimse_port, ae_title=orthanc.ae_title))
    assert errors(destination.send(paths)) == [None] * 3
    assert {ds.SOPInstanceUID for ds in orthanc.datasets("CT")} == {dcmread(p).SOPInstanceUID for p in paths}
