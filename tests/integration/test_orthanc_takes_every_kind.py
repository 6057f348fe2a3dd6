"""A real Orthanc takes every kind of object that there is, by C-STORE and by STOW-RS, as it was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deliveries import finish, small_series
from looking import photograph_result, radiograph_result, volume_result
from orthanc_server import OrthancServer
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage
from working import working

from dicom_out.destinations import make_destination
from dicom_out.kinds import KINDS
from dicom_out.profile import Choice, Options, Profile
from dicom_out.segoptions import LABEL_MAP_STORAGE
from dicom_out.settings import DimseSettings, StowSettings
from dicom_out.writer import Writer
from domain.errors import ClassRefused
from domain.job import JobState, ResultObject
from domain.ports import Destination, Result

Way = Callable[[OrthancServer], Destination]
VOLUME_ROLES: tuple[Choice, ...] = ("SEG", "SR", "TEXT-SR", "PMAP", "SC", "PDF", "KOS")
PICTURE_ROLES: tuple[Choice, ...] = ("SEG", "SR", "GSPS", "KOS")
OPTIONS = (
    Options(superseded="reject"),
    Options(segmentation="labelmap", report="comprehensive", text="enhanced"),
    Options(segmentation="labelmap", compression="rle"),
    Options(segmentation="fractional", compression="rle", text="comprehensive"),
)
pytestmark = pytest.mark.peer


def by_c_store(orthanc: OrthancServer) -> Destination:
    return make_destination(
        DimseSettings(name="pacs", host="127.0.0.1", port=orthanc.dimse_port, ae_title=orthanc.ae_title)
    )


def by_stow(orthanc: OrthancServer) -> Destination:
    return make_destination(StowSettings(name="pacs", url=orthanc.dicomweb_url, timeout_s=20))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResultObject, ...]:
    """Every kind, written for a volume with an earlier generation, a radiograph and a photograph."""
    folder = tmp_path_factory.mktemp("results")
    return tuple(_written(folder))


def _written(folder: Path) -> Iterator[ResultObject]:
    for number, options in enumerate(OPTIONS):
        there = folder / str(number)
        writer = Writer(default=Profile(name="own", objects=VOLUME_ROLES, options=options))
        yield from _checked(writer, _second(volume_result(there / "source"), f"{number:x}" * 16), there)
    writer = Writer(default=Profile(name="own", objects=PICTURE_ROLES))
    yield from _checked(writer, radiograph_result(folder / "radiograph"), folder / "grey")
    yield from _checked(writer, photograph_result(folder / "photograph"), folder / "colour")


def _checked(writer: Writer, result: Result, folder: Path) -> tuple[ResultObject, ...]:
    found = writer.write(result, folder)
    writer.verify(result, found)
    return found


def _second(result: Result, job_id: str) -> Result:
    """Return a second generation, with probabilities, of a result whose first one has been sent."""
    labels = result.findings.labels
    assert labels is not None
    maps = tuple((labels == n).astype(np.float32) * np.float32(0.75) for n in (1, 2))
    first = Writer().write(result, result.source_paths[0].parent.parent / "first")
    return replace(
        result,
        job_id=job_id,
        generation=2,
        predecessors=first,
        findings=replace(result.findings, probabilities=maps),
    )


def test_every_kind_is_among_them(objects: tuple[ResultObject, ...]) -> None:
    assert {item.kind for item in objects} == {kind.name for kind in KINDS}


@pytest.mark.parametrize(
    ("way", "may_refuse"), [(by_c_store, {"SEG-LABELMAP"}), (by_stow, set())], ids=["dimse", "stow"]
)
def test_orthanc_holds_every_kind_as_it_was_written(
    objects: tuple[ResultObject, ...], orthanc: OrthancServer, way: Way, may_refuse: set[str]
) -> None:
    """Orthanc 1.10 accepts no presentation context for Label Map Segmentation; by STOW-RS it does not look."""
    orthanc.clear()
    by_uid = {item.sop_instance_uid: item for item in objects}
    reports = way(orthanc).send([item.path for item in by_uid.values()])
    failed = {by_uid[report.sop_instance_uid].kind: report.error for report in reports if report.error}
    assert set(failed) <= may_refuse
    assert all(isinstance(error, ClassRefused) for error in failed.values())
    held = {str(ds.SOPInstanceUID): ds for ds in orthanc.datasets()}
    assert set(held) == {uid for uid, item in by_uid.items() if item.kind not in failed}
    for uid, there in held.items():
        assert there == dcmread(by_uid[uid].path)


def test_orthanc_gets_a_binary_segmentation_for_the_label_map_that_it_refuses(
    orthanc: OrthancServer, tmp_path: Path
) -> None:
    orthanc.clear()
    writer = Writer(profiles={"pacs": Profile(name="own", options=Options(segmentation="labelmap"))})
    with working(tmp_path, destinations={"pacs": by_c_store(orthanc)}, writer=writer) as work:
        work.receive(small_series())
        job = finish(work, hours=1)
    held = orthanc.datasets()
    assert job.state is JobState.DONE
    if LABEL_MAP_STORAGE in {str(ds.SOPClassUID) for ds in held}:
        pytest.skip("this Orthanc takes label maps")
    assert {str(ds.SOPClassUID) for ds in held} == {SegmentationStorage, Comprehensive3DSRStorage}
    (seg,) = [ds for ds in held if ds.SOPClassUID == SegmentationStorage]
    (report,) = [ds for ds in held if ds.SOPClassUID == Comprehensive3DSRStorage]
    assert str(seg.SOPInstanceUID) in report.to_json()
    assert LABEL_MAP_STORAGE not in report.to_json()
