"""A PACS that refuses the presentation context of label maps, behind a running gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_server import GatewayServer
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, CTImageStorage, SegmentationStorage
from storescp_server import storescp

from dicom_out.segoptions import LABEL_MAP_STORAGE
from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]
ACCEPTED = (CTImageStorage, SegmentationStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage)


def test_who_refuses_label_maps_gets_the_binary_segmentation_and_its_report_and_nothing_else(
    tmp_path: Path, peer: Callable[[str], str]
) -> None:
    write_phantom(tmp_path / "source", small=True)
    with (
        storescp(peer("storescp"), tmp_path / "pacs", ACCEPTED) as port,
        GatewayServer(
            tmp_path / "gateway",
            destinations=[
                {
                    "name": "pacs",
                    "kind": "dimse",
                    "host": "127.0.0.1",
                    "port": port,
                    "ae_title": "PACS",
                    "profile": "small",
                }
            ],
            routes=[{"name": "everything", "engine": "lungs"}],
            sections={"profiles.small": {"segmentation": "labelmap"}},
        ) as gateway,
    ):
        command = [peer("dcmsend"), "-aec", "VOXGATE", "+sd", "127.0.0.1", str(gateway.dimse_port)]
        subprocess.run([*command, str(tmp_path / "source")], check=True, capture_output=True)
        (job,) = gateway.wait_for_jobs(1)
        assert job["state"] == "done"
        assert "does not accept SOP class Label Map Segmentation Storage: SEG was sent instead" in job["reason"]
    held = [dcmread(path) for path in (tmp_path / "pacs").iterdir() if path.suffix != ".cfg"]
    assert sorted(ds.SOPClassUID for ds in held) == sorted([SegmentationStorage, Comprehensive3DSRStorage])
    report, seg = sorted(held, key=lambda ds: str(ds.Modality), reverse=True)
    assert (seg.SegmentationType, len(seg.SegmentSequence)) == ("BINARY", 2)
    referred = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in _references(report)]
    assert (SegmentationStorage, seg.SOPInstanceUID) in referred
    assert {uid for sop_class, uid in referred if sop_class != CTImageStorage} == {seg.SOPInstanceUID}
    assert LABEL_MAP_STORAGE not in report.to_json()
    for path in (tmp_path / "pacs").glob("SR*"):
        subprocess.run([peer("dsrdump"), str(path)], check=True, capture_output=True)


def _references(item: Dataset) -> Iterator[Dataset]:
    """Yield every reference to an instance, of the content and of the evidence."""
    for element in item:
        if element.VR == "SQ":
            for below in element.value:
                if "ReferencedSOPInstanceUID" in below:
                    yield below
                yield from _references(below)
