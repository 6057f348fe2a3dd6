"""After "stored": the destination commits itself, a query finds the object, or an alarm says that it does not."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from deliveries import confirmed_by, finish, listening, profile, result_uids, small_series, states
from orthanc_server import OrthancServer, free_port
from pacs import COMMITMENT, FIND, Pacs, commit, commit_on_the_same_association
from pynetdicom.events import Event
from working import working

from dicom_out.destinations import make_destination
from dicom_out.finding import QidoFinder
from dicom_out.settings import DimseSettings, StowSettings
from domain.commitment import NO_SUCH_INSTANCE
from domain.job import DeliveryState, JobState
from gateway.operator import retry
from pipeline.confirming import Profile
from pipeline.delivery import DeliverySettings
from scp.settings import ScpSettings
from store.store import Store

OnAsked = Callable[[Pacs, Event], None]


def silent(_pacs: Pacs, _event: Event) -> None:
    """Take the request and never answer."""


def failing(reason: int) -> OnAsked:
    """Answer that nothing is committed."""

    def answer(pacs: Pacs, _event: Event) -> None:
        asked = pacs.asked[-1]
        pacs.report(asked, {str(item.ReferencedSOPInstanceUID): reason for item in asked.ReferencedSOPSequence})

    return answer


def without(sop_class_uid: str) -> Callable[[Event], None]:
    """Refuse the presentation context of one SOP class."""

    def requested(event: Event) -> None:
        known = event.assoc.acceptor.supported_contexts
        event.assoc.acceptor.supported_contexts = [cx for cx in known if cx.abstract_syntax != sop_class_uid]

    return requested


@pytest.mark.parametrize("way", [commit, commit_on_the_same_association], ids=["new association", "same association"])
def test_what_is_committed_and_found_is_done(tmp_path: Path, way: OnAsked) -> None:
    pacs = Pacs(on_asked=way)
    with confirmed_by(pacs, tmp_path, wait_s=5.0) as work:
        job = finish(work, hours=1)
        assert (job.state, job.reason) == (JobState.DONE, "")
        assert states(work) == {DeliveryState.VISIBLE}
        assert (len(pacs.asked), pacs.said) == (1, [0x0000])
        assert {d.attempts for d in work.store.jobs.deliveries(job.job_id)} == {1}


def test_an_answer_that_comes_hours_later_counts(tmp_path: Path) -> None:
    pacs = Pacs(on_asked=silent)
    with confirmed_by(pacs, tmp_path, confirm=("commitment",)) as work:
        assert finish(work, hours=5).state is JobState.DELIVERING
        assert states(work) == {DeliveryState.STORED}
        pacs.report(pacs.asked[0])  # the first question, though others followed
        assert finish(work, hours=1).state is JobState.DONE
        assert states(work) == {DeliveryState.COMMITTED}
        uids = {asked.TransactionUID for asked in pacs.asked}
        assert 4 <= len(uids) == len(pacs.asked) <= 6  # once an hour, each under its own UID


def test_an_object_that_the_destination_lost_is_sent_again(tmp_path: Path) -> None:
    lost: list[str] = []

    def lose_one(pacs: Pacs, event: Event) -> None:
        if not lost:
            lost.append(next(iter(pacs.held)))
            del pacs.held[lost[0]]
        commit(pacs, event)

    pacs = Pacs(on_asked=lose_one)
    with confirmed_by(pacs, tmp_path) as work:
        job = finish(work, hours=1)
        assert job.state is JobState.DONE
        assert set(pacs.held) == result_uids(work)
        assert pacs.stores == 3
        attempts = {d.sop_instance_uid: d.attempts for d in work.store.jobs.deliveries(job.job_id)}
        assert attempts[lost[0]] == 2


@pytest.mark.parametrize("ill", [silent, failing(0x0110), failing(NO_SUCH_INSTANCE)], ids=["silent", "0110", "0112"])
def test_what_is_never_committed_ends_in_an_alarm_that_a_retry_clears(
    tmp_path: Path, ill: OnAsked, caplog: pytest.LogCaptureFixture
) -> None:
    pacs = Pacs(on_asked=ill)
    seldom = DeliverySettings(first_retry_s=600.0, max_retry_s=14400.0, give_up_after_h=24.0)
    with (
        confirmed_by(pacs, tmp_path, confirm=("commitment",), rounds=seldom) as work,
        caplog.at_level(logging.WARNING),
    ):
        job = finish(work, hours=30)
        assert job.state.is_final
        assert job.state is not JobState.DONE
        assert "commit" in job.reason
        assert any("confirm" in record.message or "commit" in record.message for record in caplog.records)
        work.clock.sleep(40 * 86400)
        assert work.watch.remove_old_series() == 0  # its sources may be needed again
        pacs.on_asked = commit
        retry(work.store.jobs, work.store.series, job.job_id)
        job = finish(work, hours=1)
        assert (job.state, job.reason) == (JobState.DONE, "")
        assert states(work) == {DeliveryState.COMMITTED}
        assert set(pacs.held) == result_uids(work)
        assert work.watch.remove_old_series() == 1


def test_a_silent_destination_leaves_the_job_unconfirmed_and_says_so(tmp_path: Path) -> None:
    with confirmed_by(Pacs(on_asked=silent), tmp_path) as work:
        job = finish(work, hours=30)
        assert (job.state, job.code) == (JobState.UNCONFIRMED, "not-confirmed")
        assert job.reason == "pacs: Stored, but storage commitment was not confirmed in time."
        assert states(work) == {DeliveryState.UNCONFIRMED}


def test_an_answer_after_the_alarm_ends_it(tmp_path: Path) -> None:
    pacs = Pacs(on_asked=silent)
    with confirmed_by(pacs, tmp_path, confirm=("commitment",)) as work:
        assert finish(work, hours=30).state is JobState.UNCONFIRMED
        assert work.steps.reopen_unconfirmed_jobs() == 0
        pacs.report(pacs.asked[3])
        assert work.steps.reopen_unconfirmed_jobs() == 1
        job = finish(work, hours=1)
        assert (job.state, job.reason, job.code) == (JobState.DONE, "", "")
        assert work.steps.reopen_unconfirmed_jobs() == 0


def test_answers_that_nobody_asked_for_change_nothing(tmp_path: Path) -> None:
    def answer_another(pacs: Pacs, _event: Event) -> None:
        asked = pacs.asked[-1]
        asked.TransactionUID = "2.25.4711"
        pacs.report(asked)

    pacs = Pacs(on_asked=answer_another)
    with confirmed_by(pacs, tmp_path) as work:
        assert finish(work, hours=0.5).state is JobState.DELIVERING
        assert states(work) == {DeliveryState.STORED}
        assert pacs.said == [0x0115]


def test_of_two_answers_the_first_stands(tmp_path: Path) -> None:
    def twice(pacs: Pacs, event: Event) -> None:
        commit(pacs, event)
        failing(NO_SUCH_INSTANCE)(pacs, event)

    pacs = Pacs(on_asked=twice)
    with confirmed_by(pacs, tmp_path) as work:
        assert finish(work, hours=1).state is JobState.DONE
        assert (pacs.said, pacs.stores) == ([0x0000, 0x0000], 2)


@pytest.mark.parametrize("sop_class_uid", [COMMITMENT, FIND])
def test_a_destination_that_cannot_confirm_is_an_alarm_at_once(tmp_path: Path, sop_class_uid: str) -> None:
    pacs = Pacs(on_requested=without(sop_class_uid))
    with confirmed_by(pacs, tmp_path) as work:
        job = finish(work, hours=0)
        assert job.state is JobState.UNCONFIRMED
        assert "does not accept SOP class" in job.reason
        assert set(pacs.held) == result_uids(work)


def test_a_query_that_finds_nothing_yet_is_made_again(tmp_path: Path) -> None:
    pacs = Pacs(visible=False)
    with confirmed_by(pacs, tmp_path) as work:
        assert finish(work, hours=2).state is JobState.DELIVERING
        assert states(work) == {DeliveryState.COMMITTED}
        pacs.visible = True
        assert finish(work, hours=1).state is JobState.DONE
        assert states(work) == {DeliveryState.VISIBLE}


@pytest.mark.parametrize(("status", "state"), [(0xA700, JobState.DELIVERING), (0xA900, JobState.UNCONFIRMED)])
def test_a_query_that_fails_is_made_again_where_that_may_help(tmp_path: Path, status: int, state: JobState) -> None:
    with confirmed_by(Pacs(find_status=status), tmp_path, confirm=("query",)) as work:
        job = finish(work, hours=1)
        assert job.state is state
        assert f"{status:04X}H" in next(iter(work.store.jobs.deliveries(job.job_id))).reason


def test_a_destination_that_goes_down_after_storing_is_asked_when_it_is_back(tmp_path: Path) -> None:
    refuse: list[Event] = []

    def down_after_storing(event: Event) -> None:
        if pacs.stores and len(refuse) < 5:
            refuse.append(event)
            event.assoc.acse.send_reject(1, 1, 7)
            event.assoc.kill()

    pacs = Pacs(on_requested=down_after_storing)
    with confirmed_by(pacs, tmp_path) as work:
        assert finish(work, hours=1).state is JobState.DONE
        assert len(refuse) == 5


@pytest.mark.peer
def test_orthanc_commits_itself_on_a_new_association_and_shows_the_result(
    tmp_path: Path, peer: Callable[[str], str]
) -> None:
    port = free_port()
    node = {"AET": "VOXGATE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    configuration = {"DicomModalities": {"voxgate": node}}
    with OrthancServer(peer("Orthanc"), tmp_path / "orthanc", configuration=configuration) as orthanc:
        dimse = DimseSettings(name="dimse", host="127.0.0.1", port=orthanc.dimse_port, ae_title="ORTHANC")
        web = StowSettings(name="web", url=orthanc.dicomweb_url)

        def profiles(store: Store) -> Mapping[str, Profile]:
            full = profile(dimse, store, confirm=("commitment", "query"), wait_s=10.0)
            return {"dimse": full, "web": Profile(finder=QidoFinder(settings=web))}

        to = {"dimse": make_destination(dimse), "web": make_destination(web)}
        with (
            working(tmp_path / "gateway", destinations=to, profiles=profiles) as work,
            listening(work, ScpSettings(port=port)),
        ):
            work.receive(small_series())
            job = finish(work, hours=1)
            assert (job.state, job.reason) == (JobState.DONE, "")
            assert states(work) == {DeliveryState.VISIBLE}
            assert orthanc.count() == 2
            assert not QidoFinder(settings=web).visible("1.2.3", work.store.jobs.objects(job.job_id))


@pytest.mark.peer
def test_a_server_of_dcmtk_shows_the_result_and_commits_itself_to_nothing(
    tmp_path: Path, peer: Callable[[str], str]
) -> None:
    port, database = free_port(), tmp_path / "db"
    database.mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {database} RW (200, 1024mb) ANY\nAETable END\n"
    )
    command = [peer("dcmqrscp"), "--config", str(tmp_path / "dcmqrscp.cfg"), str(port)]
    settings = DimseSettings(name="pacs", host="127.0.0.1", port=port, ae_title="PACS")

    def profiles(store: Store) -> Mapping[str, Profile]:
        return {"pacs": profile(settings, store, confirm=("query",), wait_s=0.0)}

    with subprocess.Popen(command, env={"TCP_NODELAY": "1"}) as server:
        try:
            to = {"pacs": make_destination(settings)}
            with working(tmp_path / "gateway", destinations=to, profiles=profiles) as work:
                work.receive(small_series())
                job = finish(work, hours=1)
                assert (job.state, job.reason) == (JobState.DONE, "")
                assert states(work) == {DeliveryState.VISIBLE}
                asking = profile(settings, work.store, confirm=("commitment",), wait_s=0.0).committer
                assert asking is not None
                error = asking.request("2.25.1", [])
                assert "Storage Commitment" in str(error)
        finally:
            server.terminate()
