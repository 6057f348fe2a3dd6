"""The whole way on real input: in by three ways, once through the engine, back to a real PACS."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from factories import ct_series, save
from gateway_server import ROOT, GatewayServer
from orthanc_server import DICOMWEB_PLUGIN, PYTHON_PLUGIN, OrthancServer, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

CHEST = "ct/chest_GE_CMB-CRC_100sl"
GATEWAY_PORT = free_port()
CATCH_ALL = {"name": "everything", "engine": "lungs"}


def pacs(orthanc: OrthancServer) -> dict[str, object]:
    """Return a real Orthanc as a destination."""
    return {
        "name": "pacs",
        "kind": "dimse",
        "host": "127.0.0.1",
        "port": orthanc.dimse_port,
        "ae_title": orthanc.ae_title,
    }


@pytest.fixture
def orthanc(tmp_path: Path, peer: Callable[[str], str]) -> Iterator[OrthancServer]:
    """A hospital's Orthanc: it auto-routes CT and MR to Voxgate, and takes the results."""
    if not PYTHON_PLUGIN.exists():
        pytest.skip("orthanc-python is not installed (make peers)")
    configuration = {
        "PythonScript": str(ROOT / "orthanc" / "voxgate_autorouting.py"),
        "DicomModalities": {"voxgate": ["VOXGATE", "127.0.0.1", GATEWAY_PORT]},
        "Voxgate": {"RetrySeconds": 0.5, "MaximumRetrySeconds": 1.0},
    }
    plugins = (DICOMWEB_PLUGIN, PYTHON_PLUGIN)
    with OrthancServer(peer("Orthanc"), tmp_path / "pacs", configuration=configuration, plugins=plugins) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, orthanc: OrthancServer) -> Iterator[GatewayServer]:
    """A gateway with one catch-all route and Orthanc as its PACS."""
    with GatewayServer(
        tmp_path / "gateway",
        destinations=[pacs(orthanc)],
        routes=[CATCH_ALL],
        sections={"scp": {"port": GATEWAY_PORT}},
    ) as server:
        yield server


def dcmsend(peer: Callable[[str], str], port: int, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Send a folder with DCMTK, as a modality would."""
    return subprocess.run(
        [peer("dcmsend"), "-aec", "VOXGATE", "+sd", "+r", *options, "127.0.0.1", str(port), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def measured(job: dict[str, Any], segment: str) -> dict[str, float]:
    """Return a segment's measurements by label."""
    (row,) = [row for row in job["summary"] if row["segment"] == segment]
    return {item["label"]: item["value"] for item in row["measurements"]}


def judged(check_objects: Path, results: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """Let the independent judge look at results."""
    return subprocess.run(
        [sys.executable, str(check_objects), str(results), str(source)], capture_output=True, text=True, timeout=300
    )


def wait_until_forwarded(orthanc: OrthancServer) -> dict[str, Any]:
    """Return the plug-in's status once it has handed on everything that is stable."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        acknowledged = [
            series
            for series in orthanc.get("/series")
            if "4317" in map(str, orthanc.get(f"/series/{series}/metadata"))
        ]
        status: dict[str, Any] = orthanc.get("/voxgate/status")
        if acknowledged and status["waiting"] == 0:
            return status
        time.sleep(0.2)
    raise AssertionError(f"not forwarded: {status}\n{orthanc.log[-2000:]}")


def without_dangling_references(folder: Path, copy: Path) -> Path:
    """Return a copy of a series that no longer refers to the localizer, which is not part of the sample."""
    copy.mkdir()
    for path in images(folder):
        dataset = pydicom.dcmread(path)
        del dataset.ReferencedImageSequence
        dataset.save_as(copy / path.name)
    return copy


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_real_chest_ct_sent_in_three_ways_ends_as_one_seg_and_one_sr(
    gateway: GatewayServer,
    orthanc: OrthancServer,
    peer: Callable[[str], str],
    unpacked: Callable[[str], Path],
    check_objects: Path,
    tmp_path: Path,
) -> None:
    folder = unpacked(CHEST)
    sent = dcmsend(peer, gateway.dimse_port, folder)
    assert sent.returncode == 0, sent.stderr
    (job,) = gateway.wait_for_jobs(1)
    assert (job["state"], job["reason"]) == ("done", "")
    assert (orthanc.count("SEG"), orthanc.count("SR")) == (1, 1)

    results = tmp_path / "results"
    orthanc.download_all(results)
    verdict = judged(check_objects, results, without_dangling_references(folder, tmp_path / "judged"))
    assert verdict.returncode == 0, verdict.stdout

    # The bases are cut off in this scan: the imaged part is about 2.5 l right and 2.0 l left, and no total is given.
    for side in ("left_lung", "right_lung"):
        (row,) = [row for row in job["summary"] if row["segment"] == side]
        assert any("ncomplete" in text for text in row["statements"]), row
        assert "Volume" not in measured(job, side)

    client = DICOMwebClient(gateway.dicomweb_url)
    client.store_instances([pydicom.dcmread(path) for path in images(folder)])
    assert len(gateway.wait_for_jobs(1)) == 1

    # The third way: an Orthanc with our plug-in. It is the PACS too, so that results come back to where they began.
    orthanc.upload(folder)
    status = wait_until_forwarded(orthanc)
    assert (status["waiting"], len(gateway.wait_for_jobs(1))) == (0, 1)
    assert (orthanc.count("CT"), orthanc.count("SEG"), orthanc.count("SR")) == (100, 1, 1)


def test_what_is_no_volume_of_lungs_is_refused_by_name(
    gateway: GatewayServer, orthanc: OrthancServer, peer: Callable[[str], str], unpacked: Callable[[str], Path]
) -> None:
    for name in (
        "ct/headphantom_Philips_gantrytilt+16.5_58sl",
        "ct/derived_missing_slices_torchio",
        "ct/headphantom_Philips_study_localizer+5mm+SCsummary",
    ):
        dcmsend(peer, gateway.dimse_port, unpacked(name), "--no-halt")  # a DICOMDIR lies beside the images
    jobs = gateway.wait_for_jobs(5)
    codes = [job["code"] for job in jobs]
    for code in ("gantry-tilt", "missing-slices", "localizer", "no-route"):
        assert code in codes, codes
    (axial,) = [job for job in jobs if job["state"] == "not-applicable"]
    assert axial["instances"] == 28
    assert all(job["reason"] for job in jobs)
    assert (orthanc.count("SEG"), orthanc.count("SR")) == (0, 0)


def test_bad_input_gets_a_clear_status_and_the_next_association_works(
    gateway: GatewayServer, peer: Callable[[str], str], shared_data: Path, tmp_path: Path
) -> None:
    for folder in (shared_data / "odd", shared_data / "ct" / "abdomen_Siemens_J2K_20sl_TotalSeg"):
        for file in images(folder):
            subprocess.run(
                [peer("storescu"), "-R", "-aec", "VOXGATE", "127.0.0.1", str(gateway.dimse_port), str(file)],
                capture_output=True,
                timeout=60,
            )
    good = tmp_path / "good"
    save(ct_series(3), good)
    assert dcmsend(peer, gateway.dimse_port, good).returncode == 0
    assert "Traceback" not in gateway.log
    assert not list((gateway.store / "tmp").rglob("*.part"))


def test_no_patient_is_named_anywhere(
    gateway: GatewayServer, orthanc: OrthancServer, peer: Callable[[str], str], tmp_path: Path
) -> None:
    from gateway.phantom import write_phantom

    source = tmp_path / "source"
    write_phantom(source, small=True, patient_name="CANARY^PHI")
    assert dcmsend(peer, gateway.dimse_port, source).returncode == 0
    broken = tmp_path / "broken"
    (path, *_) = save(ct_series(1), broken)
    path.write_bytes(path.read_bytes()[:-100])
    dcmsend(peer, gateway.dimse_port, broken)
    DICOMwebClient(gateway.dicomweb_url).store_instances([pydicom.dcmread(images(source)[0])])
    gateway.wait_for_jobs(1)
    gateway.stop()
    assert "CANARY" not in gateway.log
    for file in gateway.store.rglob("*"):
        assert "CANARY" not in file.name
        if file.suffix in (".sqlite", ".sqlite-wal", ".json"):
            assert b"CANARY" not in file.read_bytes(), file.name


def test_a_destination_that_comes_back_gets_each_result_once(tmp_path: Path, peer: Callable[[str], str]) -> None:
    from gateway.phantom import write_phantom

    source = tmp_path / "source"
    write_phantom(source, small=True)
    late = OrthancServer(peer("Orthanc"), tmp_path / "late")
    with GatewayServer(tmp_path / "gateway", destinations=[pacs(late)], routes=[CATCH_ALL]) as gateway:
        assert dcmsend(peer, gateway.dimse_port, source).returncode == 0
        seen = 0
        while seen < 3:
            jobs = gateway.jobs()
            seen = max((d["attempts"] for job in jobs for d in job["deliveries"]), default=0)
        with late:
            (job,) = gateway.wait_for_jobs(1)
            assert job["state"] == "done"
            assert (late.count("SEG"), late.count("SR")) == (1, 1)
            assert all(d["attempts"] >= 4 for d in job["deliveries"])
