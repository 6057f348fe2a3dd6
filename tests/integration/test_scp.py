"""Our SCP over real associations, with pynetdicom's SCU and with raw bytes."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from factories import ct_slice
from fakes import RecordingSink
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from domain.errors import (
    ConflictingInstance,
    GatewayError,
    InstanceMismatch,
    MalformedInstance,
    OutOfSpace,
    StorageError,
    UnsupportedSopClass,
)
from domain.instance import Outcome, Reception
from domain.ports import StagedInstance
from scp.contexts import LABEL_MAP_SEGMENTATION, VERIFICATION
from scp.server import serving
from scp.settings import ScpSettings

SETTINGS = ScpSettings(port=0, stop_timeout_s=1)
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def port(sink: RecordingSink) -> Iterator[int]:
    with serving(SETTINGS, sink) as bound:
        yield bound


@contextmanager
def associated(
    port: int,
    contexts: Sequence[tuple[str, Sequence[str]]] = ((CTImageStorage, (ExplicitVRLittleEndian,)),),
    *,
    calling: str = "MODALITY",
    called: str = "VOXGATE",
) -> Iterator[Association]:
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = 10
    for abstract_syntax, syntaxes in contexts:
        ae.add_requested_context(abstract_syntax, list(syntaxes))
    association = ae.associate("127.0.0.1", port, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def store_raw(
    association: Association, data: bytes, sop_class_uid: str | None, sop_instance_uid: str | None
) -> Dataset:
    """Send a C-STORE whose command and dataset are just these."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = sop_class_uid
    request._affected_sop_instance_uid = sop_instance_uid  # type: ignore[assignment]  # past the validation
    request.Priority = 2
    request.DataSet = BytesIO(data) if data else None
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.001)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id or 0)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert isinstance(response, C_STORE)
    return association._check_received_status(response)


def encoded(dataset: Dataset) -> bytes:
    data = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return data


def test_answers_c_echo(port: int) -> None:
    with associated(port, [(VERIFICATION, [ImplicitVRLittleEndian])]) as association:
        assert association.send_c_echo().Status == 0x0000


def test_keeps_the_dataset_byte_for_byte_behind_file_meta_of_its_own(port: int, sink: RecordingSink) -> None:
    sent = ct_slice()
    with associated(port) as association:
        status = store_raw(association, encoded(sent), CTImageStorage, sent.SOPInstanceUID)
    assert status.Status == 0x0000
    ((part10, reception),) = sink.received
    assert part10.endswith(encoded(sent))
    meta = dcmread(BytesIO(part10)).file_meta
    assert len(part10) == 128 + 4 + 12 + meta.FileMetaInformationGroupLength + len(encoded(sent))
    assert meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationVersionName == "VOXGATE_1"
    assert (meta.SendingApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == ("MODALITY", "VOXGATE")
    assert (reception.transport, reception.sender, reception.address) == ("dimse", "MODALITY", "127.0.0.1")
    assert reception.expected_sop_class_uid == CTImageStorage
    assert reception.expected_sop_instance_uid == sent.SOPInstanceUID


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfSpace(), 0xA700),
        (StorageError(), 0xA700),
        (InstanceMismatch(), 0xA900),
        (MalformedInstance("StudyInstanceUID is missing"), 0xC000),
        (UnsupportedSopClass(), 0x0122),
        (ConflictingInstance(), 0x0111),
    ],
)
def test_a_refusal_has_its_status_and_comment_and_leaves_the_association_usable(
    port: int, sink: RecordingSink, error: GatewayError, status: int
) -> None:
    with associated(port) as association:
        sink.refuse_with = error
        refused = association.send_c_store(ct_slice())
        sink.refuse_with = None
        accepted = association.send_c_store(ct_slice())
    assert (refused.Status, accepted.Status) == (status, 0x0000)
    assert refused.ErrorComment == str(error)[:64].strip()
    assert len(sink.received) == 1


def test_answers_out_of_resources_before_it_stores_anything_when_the_disk_is_full(
    port: int, sink: RecordingSink
) -> None:
    sink.fail_with = OutOfSpace()
    with associated(port) as association:
        assert association.send_c_store(ct_slice()).Status == 0xA700
        sink.fail_with = None
        assert association.send_c_store(ct_slice()).Status == 0x0000


class BrokenSink(RecordingSink):
    """Fails as no sink should, and remembers what it staged."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Path] = []

    def stage(self) -> StagedInstance:
        staged = super().stage()
        self.paths.append(staged.path)
        return staged

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        raise KeyError("CANARY^PHI")


def test_an_unexpected_error_is_answered_cleanly_and_leaves_no_file(caplog: pytest.LogCaptureFixture) -> None:
    sink = BrokenSink()
    with serving(SETTINGS, sink) as port, associated(port) as association:
        first = association.send_c_store(ct_slice())
        second = association.send_c_store(ct_slice())
    assert (first.Status, second.Status) == (0xC0FF, 0xC0FF)
    assert first.ErrorComment == "internal error"
    assert len(sink.paths) == 2
    assert not any(path.exists() for path in sink.paths)
    assert [record.message for record in caplog.records if record.name == "scp.handlers"] == ["c-store failed"] * 2


@pytest.mark.parametrize(
    ("sop_class_uid", "sop_instance_uid"),
    [(CTImageStorage, None), (None, "1.2.3"), (None, None), (CTImageStorage, "1" * 70), (CTImageStorage, "abc")],
)
def test_a_command_without_proper_uids_is_refused_and_the_association_stays(
    port: int, sink: RecordingSink, sop_class_uid: str | None, sop_instance_uid: str | None
) -> None:
    with associated(port) as association:
        status = store_raw(association, encoded(ct_slice()), sop_class_uid, sop_instance_uid)
        after = association.send_c_store(ct_slice())
    assert (status.Status, after.Status) == (0xA900, 0x0000)
    assert status.ErrorComment == "AffectedSOPClassUID or AffectedSOPInstanceUID is empty or no UID"
    assert len(sink.received) == 1


def test_a_class_that_is_no_storage_class_is_refused_with_0122(port: int, sink: RecordingSink) -> None:
    with associated(port) as association:
        status = store_raw(association, encoded(ct_slice()), "1.2.840.10008.1.20.1", generate_uid())
    assert (status.Status, sink.received) == (0x0122, [])


def test_a_request_without_dataset_is_refused(port: int, sink: RecordingSink) -> None:
    with associated(port) as association:
        status = store_raw(association, b"", CTImageStorage, generate_uid())
        assert association.send_c_store(ct_slice()).Status == 0x0000
    assert status.Status == 0xC000


def test_takes_label_maps_and_parametric_maps_and_compressed_syntaxes_undecoded(
    port: int, sink: RecordingSink
) -> None:
    contexts = [
        (LABEL_MAP_SEGMENTATION, [ExplicitVRLittleEndian]),
        (PARAMETRIC_MAP, [ExplicitVRLittleEndian]),
        (CTImageStorage, [JPEGLSLossless]),
        (MRImageStorage, [JPEG2000Lossless]),
    ]
    with associated(port, contexts) as association:
        assert len(association.accepted_contexts) == 4
        for sop_class in (LABEL_MAP_SEGMENTATION, PARAMETRIC_MAP):
            sent = ct_slice()
            sent.SOPClassUID = sent.file_meta.MediaStorageSOPClassUID = UID(sop_class)
            assert association.send_c_store(sent).Status == 0x0000
    assert len(sink.received) == 2


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ExplicitVRLittleEndian, JPEG2000Lossless], JPEG2000Lossless),
        ([JPEGBaseline8Bit, ImplicitVRLittleEndian], ImplicitVRLittleEndian),
    ],
)
def test_where_the_sender_leaves_the_choice_nothing_is_lost(port: int, offered: list[UID], chosen: UID) -> None:
    with associated(port, [(CTImageStorage, offered)]) as association:
        assert association.accepted_contexts[0].transfer_syntax == [chosen]


def test_what_it_refuses_to_talk_about_is_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with associated(port, [(CTImageStorage, [ExplicitVRLittleEndian]), ("1.2.3.4", [ExplicitVRLittleEndian])]):
        pass
    (record,) = [record for record in caplog.records if record.message == "presentation contexts rejected"]
    assert record.__dict__["sop_classes"] == ["1.2.3.4"]


def test_takes_private_classes_and_syntaxes_by_configuration_only(port: int, sink: RecordingSink) -> None:
    private = [("1.3.46.670589.5.0.1", ["1.2.3.4.99"])]
    with associated(port, private) as refused:
        assert not refused.is_established
    settings = replace(
        SETTINGS, private_sop_classes=("1.3.46.670589.5.0.1",), private_transfer_syntaxes=("1.2.3.4.99",)
    )
    with serving(settings, sink) as other, associated(other, private) as association:
        status = store_raw(association, encoded(ct_slice()), "1.3.46.670589.5.0.1", generate_uid())
    assert status.Status == 0x0000


@pytest.mark.parametrize(
    ("settings", "called", "reason"),
    [
        (SETTINGS, "SOMEONE", (1, 1, 7)),
        (replace(SETTINGS, calling_ae_titles=("CT1", "CT2")), "VOXGATE", (1, 1, 3)),
        (replace(SETTINGS, addresses=("10.0.0.0/8", "192.168.1.7")), "VOXGATE", (1, 1, 3)),
    ],
)
def test_rejects_whom_it_does_not_know_with_the_reason(
    settings: ScpSettings, called: str, reason: tuple[int, int, int]
) -> None:
    with serving(settings, RecordingSink()) as port, associated(port, called=called) as association:
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert answer is not None
        assert (answer.result, answer.result_source, answer.diagnostic) == reason


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, require_called_ae_title=False),
        replace(SETTINGS, calling_ae_titles=("MODALITY",), ae_title="ANYBODY"),
        replace(SETTINGS, addresses=("127.0.0.0/8",), ae_title="ANYBODY"),
    ],
)
def test_accepts_whom_it_knows(settings: ScpSettings) -> None:
    with serving(settings, RecordingSink()) as port, associated(port, called="ANYBODY") as association:
        assert association.is_established


def test_rejects_more_associations_than_allowed_for_the_moment_only() -> None:
    with serving(replace(SETTINGS, max_associations=1), RecordingSink()) as port:
        with associated(port) as first, associated(port) as second:
            assert first.is_established
            answer = second.acceptor.primitive
            assert answer is not None
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        time.sleep(0.2)
        with associated(port) as third:
            assert third.is_established


def test_connections_that_ask_for_nothing_do_not_keep_senders_out() -> None:
    with serving(replace(SETTINGS, max_associations=2, acse_timeout_s=1), RecordingSink()) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
        half = socket.create_connection(("127.0.0.1", port))
        half.sendall(b"\x01\x00\x00")  # half the head of an A-ASSOCIATE-RQ
        with associated(port) as association:
            assert association.send_c_store(ct_slice()).Status == 0x0000
        for connection in (*idle, half):
            connection.close()


def test_connections_beyond_all_reason_are_closed_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp.server._Server.max_connections", 2)
    with serving(replace(SETTINGS, acse_timeout_s=0.5), RecordingSink()) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port)) as third:
            third.settimeout(5)
            assert third.recv(1) == b""
        for connection in idle:
            connection.close()
        time.sleep(0.8)
        with associated(port) as association:
            assert association.is_established


def test_a_pdu_that_stops_in_the_middle_ends_its_thread() -> None:
    settings = replace(SETTINGS, stall_timeout_s=0.3, acse_timeout_s=1)
    with serving(settings, RecordingSink()) as port:
        before = threading.active_count()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"\x01\x00\x00\x00\x10\x00" + b"\x00\x01")
            connection.settimeout(5)
            assert connection.recv(100) in (b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert threading.active_count() <= before


def test_an_absurd_pdu_length_is_not_believed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x01\x00" + struct.pack(">I", 0xFFFFFFF0) + b"\x00" * 64)
        connection.settimeout(5)
        assert connection.recv(100) == b""
    with associated(port) as association:
        assert association.is_established


def test_an_abort_in_the_middle_of_a_dataset_leaves_nothing_half_stored() -> None:
    sink = BrokenSink()
    with serving(SETTINGS, sink) as port:
        with associated(port) as association:
            data = encoded(ct_slice())
            command = Dataset()
            command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CTImageStorage, generate_uid()
            command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 1, 1, 2, 1
            encoded_command = encode(command, is_implicit_vr=True, is_little_endian=True)
            assert encoded_command is not None
            connection = association.dul.socket.socket  # type: ignore[union-attr]
            assert connection is not None
            pdvs = _pdv(1, 3, encoded_command) + _pdv(1, 0, data[: len(data) // 2])
            connection.sendall(b"\x04\x00" + struct.pack(">I", len(pdvs)) + pdvs)
            time.sleep(0.1)
            association.abort()
        with associated(port) as next_one:
            assert next_one.is_established
    assert sink.paths == []


def _pdv(context_id: int, header: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, header) + data


class SlowSink(RecordingSink):
    """Takes its time to commit."""

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        time.sleep(0.4)
        return super().commit(staged, reception)


def test_a_stop_lets_the_running_store_finish_and_accepts_nothing_new() -> None:
    sink = SlowSink()
    statuses: list[int] = []

    def send(association: Association) -> None:
        statuses.append(association.send_c_store(ct_slice()).Status)
        association.release()

    with serving(replace(SETTINGS, stop_timeout_s=5), sink) as port:
        ae = AE("MODALITY")
        ae.add_requested_context(CTImageStorage)
        sender = threading.Thread(target=send, args=(ae.associate("127.0.0.1", port, ae_title="VOXGATE"),))
        sender.start()
        time.sleep(0.15)
        started = time.monotonic()
        # leaving the block stops the server while the sink is still at work
    sender.join()
    assert statuses == [0x0000]
    assert len(sink.received) == 1
    assert time.monotonic() - started < 4
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_stop_aborts_an_association_that_does_not_end() -> None:
    with serving(replace(SETTINGS, stop_timeout_s=0.2), RecordingSink()) as port:
        ae = AE("MODALITY")
        ae.add_requested_context(CTImageStorage)
        association = ae.associate("127.0.0.1", port, ae_title="VOXGATE")
    deadline = time.monotonic() + 3
    while not association.is_aborted and time.monotonic() < deadline:
        time.sleep(0.02)
    assert association.is_aborted


def test_logs_no_patient(port: int, sink: RecordingSink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sink.refuse_with = MalformedInstance("PatientID has no value")
    with associated(port) as association:
        association.send_c_store(ct_slice())
        sink.refuse_with = None
        association.send_c_store(ct_slice())
    assert "CANARY" not in caplog.text
    assert "CANARY" not in "".join(str(record.__dict__) for record in caplog.records)
