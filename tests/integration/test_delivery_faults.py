"""What a destination may do wrong: every result ends delivered once, or in a dead letter that a retry finishes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from deliveries import delivering, finish, result_uids, small_series, states
from pacs import Pacs, store
from pydicom.dataset import Dataset
from pynetdicom.events import Event
from working import RecordingDestination, working

from domain.job import DeliveryState, JobState
from domain.ports import SendReport
from gateway.operator import NotPossible, retry


def first(times: int, fault: Callable[[Pacs, Event], int]) -> Callable[[Pacs, Event], int]:
    """Return a PACS's behaviour that is ``fault`` for the first requests and good afterwards."""

    def behave(pacs: Pacs, event: Event) -> int:
        return fault(pacs, event) if pacs.stores <= times else store(pacs, event)

    return behave


def abort_after_the_last_pdv(pacs: Pacs, event: Event) -> int:
    """The object is kept and nobody says so."""
    store(pacs, event)
    event.assoc.abort()
    return 0x0000


def strictly_once(pacs: Pacs, event: Event) -> int:
    """Abort after keeping the object; when it comes again, refuse it as a duplicate (0111)."""
    if str(event.dataset.SOPInstanceUID) in pacs.held:
        return 0x0111
    return abort_after_the_last_pdv(pacs, event)


def coerce(pacs: Pacs, event: Event) -> int:
    store(pacs, event)
    return 0xB000


FAULTS = {
    "A700 three times": first(3, lambda _pacs, _event: 0xA700),
    "aborts after the last PDV": first(3, abort_after_the_last_pdv),
    "aborts after the last PDV and takes nothing twice": strictly_once,
    "answers B000": coerce,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_ends_delivered_once(tmp_path: Path, fault: Callable[[Pacs, Event], int]) -> None:
    with Pacs(on_store=fault) as pacs, delivering(tmp_path, pacs) as work:
        job = finish(work, hours=1)
        assert (job.state, job.reason) == (JobState.DONE, "")
        assert set(pacs.held) == result_uids(work)
        assert states(work) == {DeliveryState.STORED}
        stores = pacs.stores
        finish(work, hours=100)
        assert pacs.stores == stores


def test_a_destination_that_hangs_is_left_and_tried_again(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_pacs: Pacs, _event: Event) -> int:
        release.wait(20)
        return 0xA700

    with Pacs(on_store=first(1, hang)) as pacs, delivering(tmp_path, pacs, response_timeout_s=0.3) as work:
        job = finish(work, hours=1)
        release.set()
        assert job.state is JobState.DONE
        assert set(pacs.held) == result_uids(work)


def test_associations_that_are_refused_for_an_hour_end_delivered(tmp_path: Path) -> None:
    def refuse(event: Event) -> None:
        event.assoc.acse.send_reject(1, 1, 7)
        event.assoc.kill()

    with Pacs(on_requested=refuse) as pacs, delivering(tmp_path, pacs) as work:
        assert finish(work, hours=1).state is JobState.DELIVERING
        pacs.on_requested = lambda _event: None
        job = finish(work, hours=2)
        assert job.state is JobState.DONE
        assert set(pacs.held) == result_uids(work)


def test_a_destination_that_knows_no_sop_class_of_ours_is_a_dead_letter_that_a_retry_finishes(tmp_path: Path) -> None:
    def nothing(event: Event) -> None:
        event.assoc.acceptor.supported_contexts = [
            context
            for context in event.assoc.acceptor.supported_contexts
            if context.abstract_syntax == "1.2.840.10008.1.1"
        ]

    with Pacs(on_requested=nothing) as pacs, delivering(tmp_path, pacs) as work:
        job = finish(work, hours=100)
        assert (job.state, job.code) == (JobState.FAILED, "not-delivered")
        assert "does not accept" in job.reason
        pacs.on_requested = lambda _event: None
        retry(work.store.jobs, work.store.series, job.job_id)
        job = finish(work, hours=1)
        assert job.state is JobState.DONE
        assert set(pacs.held) == result_uids(work)
        assert pacs.stores == 2


def test_a_destination_that_is_down_for_a_day_gets_the_result_when_it_is_back(tmp_path: Path) -> None:
    pacs = Pacs()
    with delivering(tmp_path, pacs) as work:
        assert finish(work, hours=24).state is JobState.DELIVERING
        with pacs:
            job = finish(work, hours=1.5)
        assert job.state is JobState.DONE
        assert set(pacs.held) == result_uids(work)
        assert pacs.stores == 2
        assert max(d.attempts for d in work.store.jobs.deliveries(job.job_id)) < 40


def test_a_destination_that_stays_down_is_a_dead_letter_that_a_retry_finishes(tmp_path: Path) -> None:
    pacs = Pacs()
    with delivering(tmp_path, pacs) as work:
        job = finish(work, hours=80)
        assert (job.state, job.code) == (JobState.FAILED, "not-delivered")
        assert "Given up" in job.reason
        retry(work.store.jobs, work.store.series, job.job_id)
        with pacs:
            job = finish(work, hours=1)
        assert job.state is JobState.DONE
        assert pacs.stores == 2


def test_a_waiting_delivery_can_be_made_now(tmp_path: Path) -> None:
    pacs = Pacs()
    with delivering(tmp_path, pacs) as work:
        job = finish(work, hours=24)
        with pacs:
            assert "tried now" in retry(work.store.jobs, work.store.series, job.job_id)
            work.settle(quiet_s=0)
            (job,) = work.store.jobs.find()
            assert (job.state, job.attempt) == (JobState.DONE, 2)
            stores = pacs.stores
            finish(work, hours=100)
            assert pacs.stores == stores == 2  # the attempt that waited finds itself outdated


def test_what_is_being_sent_is_not_sent_twice_at_a_time(tmp_path: Path) -> None:
    with Pacs() as pacs, delivering(tmp_path, pacs) as work:
        seen: list[type[Exception]] = []

        def ask_meanwhile(pacs: Pacs, event: Event) -> int:
            (job,) = work.store.jobs.find()
            try:
                retry(work.store.jobs, work.store.series, job.job_id)
            except NotPossible as error:
                seen.append(type(error))
            return store(pacs, event)

        pacs.on_store = ask_meanwhile
        assert finish(work, hours=1).attempt == 1
        assert seen == [NotPossible, NotPossible]


def test_an_object_whose_fate_a_crash_hides_is_sent_again(tmp_path: Path) -> None:
    """The process dies between the last byte and the answer: SENT is what the next one finds."""
    with Pacs(on_store=strictly_once) as pacs, delivering(tmp_path, pacs) as work:
        work.clock.sleep(11)
        work.watch.hand_on_complete_series()
        while (task := work.queue.take()) is not None and task.step != "deliver":
            for following in work.steps.run(task):
                work.queue.enqueue(following)
        assert task is not None
        (job,) = work.store.jobs.find()
        for item in work.store.jobs.objects(job.job_id):
            work.store.jobs.set_delivery(
                job.job_id, "pacs", item.sop_instance_uid, state=DeliveryState.SENT, attempted=False
            )
            pacs.held[item.sop_instance_uid] = Dataset()
        assert work.steps.run(task) == []
        (job,) = work.store.jobs.find()
        assert job.state is JobState.DONE


class Broken:
    """A destination that its adapter cannot deal with."""

    name = "broken"

    def __init__(self) -> None:
        self.heals = False

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        if not self.heals:
            raise RecursionError("SECRET^NAME")
        return [SendReport(sop_instance_uid="", error=None) for _ in paths]


def test_what_breaks_at_one_destination_is_no_fault_of_the_others(tmp_path: Path) -> None:
    broken, good = Broken(), RecordingDestination("good")
    with working(tmp_path, destinations={"broken": broken, "good": good}) as work:
        work.receive(small_series())
        job = finish(work, hours=1)
        assert job.state is JobState.DELIVERING
        assert len(good.sent) == 2
        job = finish(work, hours=100)
        assert (job.state, job.code) == (JobState.FAILED, "not-delivered")
        assert "RecursionError" in job.reason
        assert "SECRET" not in job.reason
        broken.heals = True
        retry(work.store.jobs, work.store.series, job.job_id)
        assert finish(work, hours=1).state is JobState.DONE
        assert len(good.sent) == 2
