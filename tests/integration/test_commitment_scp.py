"""Storage commitment for those who send to us: asked, looked up, answered until the peer has the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from deliveries import listening, small_series
from orthanc_server import OrthancServer, free_port
from pacs import COMMITMENT, COMMITMENT_INSTANCE
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from working import Work, working

from domain.errors import StorageError
from scp.settings import ScpSettings

Handlers = list[Any]  # of pynetdicom


class Modality:
    """Sends to us, asks for commitment, and hears the answers on its own port and on its own associations."""

    def __init__(self) -> None:
        self.port = free_port()
        self.heard: list[tuple[int, Dataset, str]] = []
        """Event type, event information, and on whose association."""
        self.status = 0x0000

    @contextmanager
    def listening(self) -> Iterator[None]:
        ae = AE("CT01")
        ae.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
        handlers: Handlers = [(evt.EVT_N_EVENT_REPORT, self._hear, ["ours"])]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            assert server is not None  # pynetdicom returns one where it does not block
            server.shutdown()

    @contextmanager
    def association(self, port: int) -> Iterator[Association]:
        ae = AE("CT01")
        ae.add_requested_context(COMMITMENT)
        handlers: Handlers = [(evt.EVT_N_EVENT_REPORT, self._hear, ["theirs"])]
        association = ae.associate("127.0.0.1", port, ae_title="VOXGATE", evt_handlers=handlers)
        assert association.is_established
        try:
            yield association
        finally:
            association.release()

    def _hear(self, event: Event, whose: str) -> tuple[int, None]:
        self.heard.append((event.event_type or 0, event.event_information, whose))
        return self.status, None


def request(series: list[Dataset], transaction_uid: str = "2.25.77") -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for dataset in series:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        information.ReferencedSOPSequence.append(item)
    return information


def ask(association: Association, information: Dataset | None, *, action: int = 1) -> int:
    status, _ = association.send_n_action(information, action, COMMITMENT, COMMITMENT_INSTANCE)
    return int(status.Status)


def until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def settled(work: Work) -> bool:
    """Nothing will be answered any more."""
    table, now = work.store.commitment_requests, datetime.now(UTC)
    open_one = table.claim(now + timedelta(days=365), lease=timedelta())
    if open_one is not None:
        table.put_off(open_one, now)
    return open_one is None


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    with working(tmp_path) as made:
        yield made


@pytest.fixture
def ct() -> Modality:
    return Modality()


def test_a_peer_that_waits_is_answered_on_its_own_association(work: Work, ct: Modality) -> None:
    series = small_series()
    work.receive(series)
    with listening(work) as port, ct.association(port) as association:
        assert ask(association, request(series)) == 0x0000
        until(lambda: ct.heard)
        event_type, information, whose = ct.heard[0]
        assert (event_type, information.TransactionUID, whose) == (1, "2.25.77", "theirs")
        assert len(information.ReferencedSOPSequence) == len(series)
        assert "FailedSOPSequence" not in information
        until(lambda: settled(work))
        assert len(ct.heard) == 1


def test_what_is_not_held_or_of_another_class_fails_with_its_reason(work: Work, ct: Modality) -> None:
    series = small_series()
    work.receive(series[:2])
    series[1].SOPClassUID = MRImageStorage
    path = work.store.series.instances_by_uid([series[0].SOPInstanceUID])[0].path
    with listening(work) as port, ct.association(port) as association:
        ask(association, request(series))
        until(lambda: ct.heard)
        path.unlink()  # the index alone is no proof
        ask(association, request(series[:1], "2.25.78"))
        until(lambda: len(ct.heard) == 2)
    event_type, information, _ = ct.heard[0]
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in information.FailedSOPSequence}
    assert event_type == 2
    assert failed == {
        series[1].SOPInstanceUID: 0x0119, series[2].SOPInstanceUID: 0x0112, series[3].SOPInstanceUID: 0x0112,
    }  # fmt: skip
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == [series[0].SOPInstanceUID]
    assert ct.heard[1][1].FailedSOPSequence[0].FailureReason == 0x0112


def test_a_peer_that_releases_is_answered_at_its_own_address(work: Work, ct: Modality) -> None:
    series = small_series()
    work.receive(series)
    settings = ScpSettings(port=0, peers={"CT01": ("127.0.0.1", ct.port)})
    with ct.listening(), listening(work, settings) as port:
        with ct.association(port) as association:
            ask(association, request(series))
        until(lambda: ct.heard)
        assert [(event_type, whose) for event_type, _, whose in ct.heard] == [(1, "ours")]
        until(lambda: settled(work))


def test_an_answer_survives_a_restart_and_a_peer_that_is_down(work: Work, ct: Modality) -> None:
    series = small_series()
    work.receive(series)
    settings = ScpSettings(port=0, peers={"CT01": ("127.0.0.1", ct.port)})
    with listening(work, settings) as port, ct.association(port) as association:
        ask(association, request(series))
    assert not settled(work)
    with ct.listening(), listening(work, settings):
        until(lambda: ct.heard)
        until(lambda: settled(work))
    assert len(ct.heard) == 1


def test_an_answer_for_a_peer_without_an_address_waits_and_is_given_up(
    work: Work, ct: Modality, caplog: pytest.LogCaptureFixture
) -> None:
    series = small_series()
    with listening(work, ScpSettings(port=0, commitment_give_up_h=0.0)) as port:
        with ct.association(port) as association:
            ask(association, request(series))
        until(lambda: "storage commitment answer given up" in caplog.text)
    assert settled(work)
    assert "name it in scp.peers" in caplog.text


def test_an_answer_that_the_peer_refuses_is_not_repeated(work: Work, ct: Modality) -> None:
    ct.status = 0x0115
    series = small_series()
    settings = ScpSettings(port=0, peers={"CT01": ("127.0.0.1", ct.port)})
    with ct.listening(), listening(work, settings) as port:
        with ct.association(port) as association:
            ask(association, request(series))
        until(lambda: ct.heard)
        until(lambda: settled(work))
    assert len(ct.heard) == 1


def test_a_transaction_uid_for_other_objects_fails_as_a_duplicate(work: Work, ct: Modality) -> None:
    series = small_series()
    work.receive(series)
    with listening(work) as port, ct.association(port) as association:
        for asked in (series[:2], series[:2], series):
            before = len(ct.heard)
            ask(association, request(asked))
            until(lambda before=before: len(ct.heard) > before)  # type: ignore[misc]
    assert [event_type for event_type, _, _ in ct.heard] == [1, 1, 2]
    assert {item.FailureReason for item in ct.heard[2][1].FailedSOPSequence} == {0x0131}


def test_requests_that_make_no_sense_are_refused_and_the_association_stays(work: Work, ct: Modality) -> None:
    empty, nameless = request([]), request(small_series())
    del nameless.TransactionUID
    with listening(work) as port, ct.association(port) as association:
        assert ask(association, request(small_series()), action=2) == 0x0123
        assert ask(association, empty) == 0x0115
        assert ask(association, nameless) == 0x0115
        assert ask(association, None) == 0x0115
        assert association.is_established
    assert settled(work)


def test_those_who_are_not_served_are_told_so(work: Work, ct: Modality) -> None:
    with listening(work, ScpSettings(port=0, storage_commitment=False)) as port, ct.association(port) as association:
        assert ask(association, request(small_series())) == 0x0124


def test_an_instance_that_follows_on_the_same_association_is_stored_while_an_answer_is_due(work: Work) -> None:
    """A sender that goes on storing after its question is answered when it pauses; no response is mixed up."""
    series = small_series()
    heard: list[int] = []
    ae = AE("CT01")
    ae.add_requested_context(COMMITMENT)
    ae.add_requested_context(series[0].SOPClassUID, series[0].file_meta.TransferSyntaxUID)

    def hear(event: Event) -> tuple[int, None]:
        heard.append(event.event_type or 0)
        return 0x0000, None

    with listening(work) as port:
        handlers: Handlers = [(evt.EVT_N_EVENT_REPORT, hear)]
        association = ae.associate("127.0.0.1", port, ae_title="VOXGATE", evt_handlers=handlers)
        assert ask(association, request(series)) == 0x0000
        assert [association.send_c_store(dataset).Status for dataset in series] == [0] * len(series)
        until(lambda: heard)
        association.release()
    assert heard == [1]


def test_an_index_that_cannot_be_read_leaves_the_association_alive_and_the_answer_owed(
    work: Work, ct: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = small_series()
    work.receive(series)
    settings = ScpSettings(port=0, peers={"CT01": ("127.0.0.1", ct.port)})
    broken: list[object] = []

    def fail(uids: object) -> tuple[()]:
        broken.append(uids)
        raise StorageError

    with ct.listening(), listening(work, settings) as port, ct.association(port) as association:
        with monkeypatch.context() as patched:
            patched.setattr(work.store.series, "instances_by_uid", fail)
            ask(association, request(series))
            until(lambda: broken)
        assert ask(association, request(series[:1], "2.25.78")) == 0x0000
        until(lambda: ct.heard)
        assert ct.heard[0][1].TransactionUID == "2.25.78"
        assert not settled(work)  # the first is due when the response's time is over


@pytest.mark.peer
def test_orthanc_asks_us_and_hears_what_we_hold(work: Work, peer: Callable[[str], str], tmp_path: Path) -> None:
    series = small_series()
    work.receive(series)
    port = free_port()
    node = {"AET": "VOXGATE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    configuration = {"DicomModalities": {"voxgate": node}}
    with OrthancServer(peer("Orthanc"), tmp_path / "orthanc", configuration=configuration) as orthanc:
        settings = ScpSettings(port=port, peers={"ORTHANC": ("127.0.0.1", orthanc.dimse_port)})
        with listening(work, settings):
            asked = [[dataset.SOPClassUID, dataset.SOPInstanceUID] for dataset in series]
            asked.append([series[0].SOPClassUID, "1.2.3.4"])
            url = f"{orthanc.http_url}/modalities/voxgate/storage-commitment"
            answer = requests.post(url, json={"DicomInstances": asked}, timeout=10).json()
            until(lambda: orthanc.get(answer["Path"])["Status"] != "Pending")
            report = orthanc.get(answer["Path"])
    assert report["Status"] == "Failure"
    assert len(report["Success"]) == len(series)
    assert [(item["SOPInstanceUID"], item["FailureReason"]) for item in report["Failures"]] == [("1.2.3.4", 0x0112)]
