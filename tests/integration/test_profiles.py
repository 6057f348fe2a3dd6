"""What each destination gets by its profile, and what goes in the place of what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deliveries import delivering, finish, small_series
from dying import Killed, dies_at, recorded
from orthanc_server import OrthancServer
from pacs import Pacs
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, SegmentationStorage
from pynetdicom.events import Event
from storescp_server import storescp
from working import Work, working

from dicom_out.destinations import make_destination
from dicom_out.profile import BUILT_IN, Options, Profile
from dicom_out.settings import DimseSettings, StowSettings
from dicom_out.writer import Writer
from domain.errors import ClassRefused, PeerOutOfResources
from domain.job import DeliveryState, Job, JobState
from domain.ports import SendReport
from gateway.operator import retry


@dataclass
class Choosy:
    """A ``Destination`` in memory that refuses SOP classes; ``held`` is what it stores, in the order of arrival."""

    name: str = "pacs"
    refuses: tuple[str, ...] = ()
    busy: int = 0
    """So many calls are answered with "out of resources"."""
    held: dict[str, str] = field(default_factory=dict)
    """SOP class by SOP Instance UID."""

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        self.busy -= 1
        return [self._take(path) for path in paths]

    def _take(self, path: Path) -> SendReport:
        ds = dcmread(path, stop_before_pixels=True)
        uid, sop_class_uid = str(ds.SOPInstanceUID), str(ds.SOPClassUID)
        if self.busy >= 0:
            return SendReport(sop_instance_uid=uid, error=PeerOutOfResources("busy"))
        if sop_class_uid in self.refuses:
            return SendReport(sop_instance_uid=uid, error=ClassRefused("the destination does not accept it"))
        self.held[uid] = sop_class_uid
        return SendReport(sop_instance_uid=uid)

    @property
    def classes(self) -> list[str]:
        return list(self.held.values())


@contextmanager
def sending(folder: Path, *destinations: Choosy, **profiles: str) -> Iterator[Work]:
    """A pipeline with these destinations, a profile for each by its name, and a series taken in."""
    writer = Writer(profiles={name: BUILT_IN[profile] for name, profile in profiles.items()})
    with working(folder, destinations={item.name: item for item in destinations}, writer=writer) as work:
        work.receive(small_series())
        yield work


def states(work: Work, job: Job, destination: str) -> dict[str, str]:
    """Return the state of each kind of object at a destination."""
    kinds = {item.sop_instance_uid: item.kind for item in work.store.jobs.objects(job.job_id)}
    found = work.store.jobs.deliveries(job.job_id)
    return {kinds[item.sop_instance_uid]: item.state.value for item in found if item.destination == destination}


def test_each_destination_gets_what_its_profile_asks_for(tmp_path: Path) -> None:
    pacs, basic = Choosy(), Choosy(name="basic")
    with sending(tmp_path, pacs, basic, basic="pacs-basic") as work:
        job = finish(work, hours=1)
    assert (job.state, job.reason) == (JobState.DONE, "")
    assert pacs.classes == [SegmentationStorage, Comprehensive3DSRStorage]
    assert BasicTextSRStorage in basic.classes
    assert not {SegmentationStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage} & set(basic.classes)


def test_a_refused_sop_class_is_replaced_and_the_job_says_so(tmp_path: Path) -> None:
    pacs = Choosy(refuses=(Comprehensive3DSRStorage,))
    with sending(tmp_path, pacs) as work:
        job = finish(work, hours=1)
        assert states(work, job, "pacs") == {"SEG": "stored", "SR": "replaced", "SR-COMPREHENSIVE": "stored"}
    assert pacs.classes == [SegmentationStorage, ComprehensiveSRStorage]
    assert job.state is JobState.DONE
    assert job.reason == "pacs: The destination does not accept it: SR-COMPREHENSIVE was sent instead."


def test_the_stand_in_goes_only_to_who_refused(tmp_path: Path) -> None:
    strict, modern = Choosy(name="strict", refuses=(Comprehensive3DSRStorage,)), Choosy(name="modern")
    with sending(tmp_path, strict, modern) as work:
        finish(work, hours=1)
    assert strict.classes == [SegmentationStorage, ComprehensiveSRStorage]
    assert modern.classes == [SegmentationStorage, Comprehensive3DSRStorage]


def test_nothing_is_replaced_because_a_destination_is_busy(tmp_path: Path) -> None:
    pacs = Choosy(busy=3)
    with sending(tmp_path, pacs) as work:
        job = finish(work, hours=10)
    assert (job.state, job.reason) == (JobState.DONE, "")
    assert pacs.classes == [SegmentationStorage, Comprehensive3DSRStorage]


def test_who_refuses_both_is_a_dead_letter_that_a_retry_begins_anew(tmp_path: Path) -> None:
    pacs = Choosy(refuses=(Comprehensive3DSRStorage, ComprehensiveSRStorage))
    with sending(tmp_path, pacs) as work:
        assert finish(work, hours=1).state is JobState.FAILED
        pacs.refuses = ()
        (job,) = work.store.jobs.find()
        retry(work.store.jobs, work.store.series, job.job_id)
        job = finish(work, hours=1)
        assert states(work, job, "pacs") == {"SEG": "stored", "SR": "stored", "SR-COMPREHENSIVE": "replaced"}
    assert job.state is JobState.DONE
    assert pacs.classes == [SegmentationStorage, Comprehensive3DSRStorage]


LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


def referred_to(path: Path) -> set[str]:
    """Return the SOP classes of what a report points at in its content."""
    found = set()
    waiting = list(dcmread(path).ContentSequence)
    while waiting:
        item = waiting.pop()
        waiting += item.get("ContentSequence", [])
        found |= {str(reference.ReferencedSOPClassUID) for reference in item.get("ReferencedSOPSequence", [])}
    return found


def test_what_refers_to_a_refused_label_map_goes_as_the_report_that_refers_to_the_binary_one(tmp_path: Path) -> None:
    writer = Writer(profiles={"pacs": Profile(name="own", options=Options(segmentation="labelmap"))})
    strict, modern = Choosy(refuses=(LABELMAP,)), Choosy(name="modern")
    for folder, pacs in ((tmp_path / "a", strict), (tmp_path / "b", modern)):
        pacs.name = "pacs"
        with working(folder, destinations={"pacs": pacs}, writer=writer) as work:
            work.receive(small_series())
            job = finish(work, hours=1)
            sent = [item for item in work.store.jobs.objects(job.job_id) if item.sop_instance_uid in pacs.held]
            (report,) = [item.path for item in sent if item.kind == "SR"]
            (seg,) = [item.sop_class_uid for item in sent if item.kind != "SR"]
            assert seg in referred_to(report)
            assert not {SegmentationStorage, LABELMAP} - {seg} & referred_to(report)
        assert job.state is JobState.DONE
    assert strict.classes == [SegmentationStorage, Comprehensive3DSRStorage]
    assert modern.classes == [LABELMAP, Comprehensive3DSRStorage]


def test_a_death_at_any_write_ends_with_the_stand_in_delivered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = 0
    for number in range(12):
        pacs = Choosy(refuses=(Comprehensive3DSRStorage,))
        folder = tmp_path / str(number)
        with sending(folder, pacs) as work, monkeypatch.context() as patched:
            dies_at(work, number, patched, ("set_delivery", "replace_deliveries"))
            ran = recorded(work, patched)
            try:
                work.settle()
                ran.clear()
            except Killed:
                died += 1
        with working(folder, destinations={"pacs": pacs}) as work:
            for task in ran[-1:]:  # a task that was running is put back
                work.queue.enqueue(task)
            job = finish(work, hours=10)
            assert states(work, job, "pacs") == {"SEG": "stored", "SR": "replaced", "SR-COMPREHENSIVE": "stored"}
        assert job.state is JobState.DONE
        assert sorted(pacs.classes) == sorted([SegmentationStorage, ComprehensiveSRStorage])
    assert 6 <= died < 12


def test_a_pacs_that_refuses_the_presentation_context_gets_the_stand_in(tmp_path: Path) -> None:
    def no_3d(event: Event) -> None:
        contexts = event.assoc.acceptor.supported_contexts
        event.assoc.acceptor.supported_contexts = [
            context for context in contexts if context.abstract_syntax != Comprehensive3DSRStorage
        ]

    with Pacs(on_requested=no_3d) as pacs, delivering(tmp_path, pacs) as work:
        job = finish(work, hours=1)
        assert {str(ds.SOPClassUID) for ds in pacs.held.values()} == {SegmentationStorage, ComprehensiveSRStorage}
        assert states(work, job, "pacs")["SR"] == DeliveryState.REPLACED
    assert "does not accept SOP class Comprehensive 3D SR Storage: SR-COMPREHENSIVE was sent" in job.reason


@pytest.mark.peer
def test_dcmtk_without_3d_reports_gets_the_stand_in(tmp_path: Path, peer: Callable[[str], str]) -> None:
    with storescp(peer("storescp"), tmp_path / "held", [SegmentationStorage, ComprehensiveSRStorage]) as port:
        there = make_destination(DimseSettings(name="pacs", host="127.0.0.1", port=port, ae_title="ANY"))
        with working(tmp_path / "gateway", destinations={"pacs": there}) as work:
            work.receive(small_series())
            job = finish(work, hours=1)
    held = {dcmread(path).SOPClassUID for path in (tmp_path / "held").iterdir() if path.suffix != ".cfg"}
    assert held == {SegmentationStorage, ComprehensiveSRStorage}
    assert job.state is JobState.DONE


def test_profiles_are_kept_with_the_objects_whatever_the_configuration_says_later(tmp_path: Path) -> None:
    pacs = Choosy(busy=2)
    with sending(tmp_path, pacs, pacs="pacs-basic") as work:
        work.settle()
        assert not pacs.held
    with working(tmp_path, destinations=_named(pacs)) as work:  # the default profile, from now on
        job = finish(work, hours=10)
    assert job.state is JobState.DONE
    assert SegmentationStorage not in pacs.classes


def _named(*destinations: Choosy) -> Mapping[str, Choosy]:
    return {item.name: item for item in destinations}


def test_orthanc_takes_every_object_and_the_stand_in_for_what_it_refuses(
    tmp_path: Path, orthanc: OrthancServer
) -> None:
    everything = Profile(
        name="own",
        objects=("SEG", "SR", "TEXT-SR", "PDF", "SC", "KOS"),
        options=Options(segmentation="labelmap", text="comprehensive"),
    )
    stow = make_destination(StowSettings(name="web", url=orthanc.dicomweb_url))
    dimse = make_destination(
        DimseSettings(name="pacs", host="127.0.0.1", port=orthanc.dimse_port, ae_title="ORTHANC")
    )
    for name, there in (("pacs", dimse), ("web", stow)):
        orthanc.clear()
        writer = Writer(profiles={name: everything})
        with working(tmp_path / name, destinations={name: there}, writer=writer) as work:
            work.receive(small_series())
            job = finish(work, hours=1)
            assert job.state is JobState.DONE, job.reason
            reached = states(work, job, name)
        # Orthanc 1.10 refuses the presentation context of label maps and takes them by STOW
        assert reached["SEG-LABELMAP"] == ("replaced" if name == "pacs" else "stored")
        assert {state for kind, state in reached.items() if kind != "SEG-LABELMAP"} <= {"stored", "replaced"}
        sent = [kind for kind, state in reached.items() if state == "stored"]
        assert {"PDF", "SC", "KOS", "TEXT-SR-COMPREH"} <= set(sent)
