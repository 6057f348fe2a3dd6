"""Radiographs and photographs by C-STORE, MedVersa with a checkpoint of the test's own, results at a real Orthanc."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import save
from gateway_server import GatewayServer
from medversa_checkpoint import write_checkpoint
from orthanc_server import OrthancServer
from pictures import photograph, radiograph
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("language_models")]

ROUTES: list[dict[str, Any]] = [
    {"name": "chest", "engine": "medversa", "modality": ["DX"], "unit": "study"},
    {"name": "skin", "engine": "medversa", "modality": ["XC"]},
]


def _chest() -> list[Dataset]:
    """Return a lateral and a frontal radiograph, each a series of its own, as modalities send them."""
    lateral, frontal = radiograph(view="LL", number=1), radiograph(view="PA", number=2, seed=1)
    frontal.StudyInstanceUID, frontal.SeriesInstanceUID = lateral.StudyInstanceUID, generate_uid()
    for ds in (lateral, frontal):
        ds.PatientAge, ds.PatientSex, ds.ReasonForStudy = "064Y", "F", "Cough."
    return [lateral, frontal]


def _walked(items: Any) -> list[Dataset]:
    return [found for item in items for found in (item, *_walked(item.get("ContentSequence") or []))]


def test_a_study_of_two_views_and_a_photograph_end_as_reports_at_orthanc(
    tmp_path: Path, orthanc: OrthancServer, peer: Callable[[str], str], check_objects: Path
) -> None:
    weights = write_checkpoint(tmp_path / "medversa")
    chest, skin = _chest(), photograph()
    skin.StudyInstanceUID, skin.SeriesInstanceUID = generate_uid(), generate_uid()
    folders = {"chest": chest, "skin": [skin]}
    for name, datasets in folders.items():
        (tmp_path / name).mkdir()
        save(datasets, tmp_path / name)
    destination = {
        "name": "pacs", "kind": "dimse", "host": "127.0.0.1", "port": orthanc.dimse_port, "ae_title": "ORTHANC",
    }  # fmt: skip
    sections = {
        "engines.medversa": {"weights": weights, "accept_license": "non-commercial research", "device": "cpu"}
    }
    with GatewayServer(tmp_path / "gateway", destinations=[destination], routes=ROUTES, sections=sections) as gateway:
        for name in folders:
            subprocess.run(
                [peer("dcmsend"), "-aec", "VOXGATE", "+sd", "+r", "127.0.0.1", str(gateway.dimse_port),
                 str(tmp_path / name)],
                check=True, timeout=60,
            )  # fmt: skip
        jobs = [job for job in gateway.wait_for_jobs(4) if job["route"]]
        assert {(job["route"], job["state"], job["reason"]) for job in jobs} == {
            ("chest", "done", ""),
            ("skin", "done", ""),
        }
    reports = {str(ds.StudyInstanceUID): ds for ds in orthanc.datasets("SR")}
    assert set(reports) == {str(chest[0].StudyInstanceUID), str(skin.StudyInstanceUID)}
    report = reports[str(chest[0].StudyInstanceUID)]
    content = _walked(report.ContentSequence)
    said = [str(item.TextValue) for item in content if item.ValueType == "TEXT"]
    assert any("The mask" in text for text in said), said
    images = [item.ReferencedSOPSequence[0] for item in content if item.ValueType == "IMAGE"]
    assert {str(item.ReferencedSOPInstanceUID) for item in images} >= {str(ds.SOPInstanceUID) for ds in chest}
    (mask,) = orthanc.datasets("SEG")
    assert mask.StudyInstanceUID == skin.StudyInstanceUID
    assert (int(mask.Rows), int(mask.Columns)) == (36, 40)
    assert np.unique(mask.pixel_array).tolist() in ([0, 1], [1])
    for name, datasets in folders.items():
        results = tmp_path / f"results-{name}"
        results.mkdir()
        for number, ds in enumerate(orthanc.datasets()):
            if ds.StudyInstanceUID == datasets[0].StudyInstanceUID:
                ds.save_as(results / f"{number}.dcm")
        judged = subprocess.run(
            [sys.executable, str(check_objects), str(results), str(tmp_path / name)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        # dcmqi reads no segmentation without a frame of reference; every other judge must be content.
        faults = re.findall(r"^FAIL .*?\| (.*)$", judged.stdout, re.MULTILINE)
        assert all(fault.startswith("dcmqi segimage2itkimage") for fault in faults), judged.stdout
        assert "PASS dcentvfy" in judged.stdout, judged.stdout
