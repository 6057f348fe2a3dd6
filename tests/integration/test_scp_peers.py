"""Our SCP with foreign senders: DCMTK and Orthanc, synthetic and real data."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests
from factories import ct_series, ct_slice, save
from fakes import RecordingSink
from orthanc_server import OrthancServer
from pydicom import dcmread
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, generate_uid

from scp.server import serving
from scp.settings import ScpSettings

pytestmark = pytest.mark.peer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def port(sink: RecordingSink) -> Iterator[int]:
    with serving(ScpSettings(port=0, stop_timeout_s=2), sink) as bound:
        yield bound


@pytest.fixture
def dcmtk(peer: Callable[[str], str]) -> Run:
    """Return a function that runs one of DCMTK's programs and returns what it said."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [peer(program), *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )

    return run


def pixels(sink: RecordingSink) -> dict[str, str]:
    """Return the digest of each received instance's pixel data, by SOP Instance UID."""
    return {ds.SOPInstanceUID: _digest(ds.PixelData) for ds in (dcmread(BytesIO(data)) for data, _ in sink.received)}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(paths: list[Path]) -> dict[str, str]:
    return {ds.SOPInstanceUID: _digest(ds.PixelData) for ds in map(dcmread, paths)}


def test_echoscu_gets_an_answer(dcmtk: Run, port: int) -> None:
    assert dcmtk("echoscu", "-aec", "VOXGATE", "127.0.0.1", port).returncode == 0


def test_echoscu_is_told_that_it_called_somebody_else(dcmtk: Run, port: int) -> None:
    refused = dcmtk("echoscu", "-aec", "SOMEBODY", "127.0.0.1", port)
    assert refused.returncode != 0
    assert "Called AE Title Not Recognized" in refused.stderr + refused.stdout


@pytest.mark.parametrize("maximum_pdu", [4096, 16384, 131072])
def test_storescu_stores_a_series(
    dcmtk: Run, port: int, sink: RecordingSink, tmp_path: Path, maximum_pdu: int
) -> None:
    paths = save(ct_series(5), tmp_path)
    done = dcmtk("storescu", "-R", "-pdu", maximum_pdu, "-aec", "VOXGATE", "127.0.0.1", port, *paths)
    assert done.returncode == 0, done.stderr
    assert pixels(sink) == digests(paths)
    assert {reception.sender for _, reception in sink.received} == {"STORESCU"}


def test_storescu_that_proposes_every_class_it_knows_is_served(
    dcmtk: Run, port: int, sink: RecordingSink, tmp_path: Path
) -> None:
    (path,) = save([ct_slice()], tmp_path)
    assert dcmtk("storescu", "-aec", "VOXGATE", "127.0.0.1", port, path).returncode == 0
    assert len(sink.received) == 1


def test_storescu_that_aborts_leaves_what_it_had_stored(
    dcmtk: Run, port: int, sink: RecordingSink, tmp_path: Path
) -> None:
    (path,) = save([ct_slice()], tmp_path)
    dcmtk("storescu", "-R", "--abort", "-aec", "VOXGATE", "127.0.0.1", port, path)
    assert dcmtk("storescu", "-R", "-aec", "VOXGATE", "127.0.0.1", port, path).returncode == 0
    assert len(sink.received) == 2


def test_dcmsend_sends_compressed_images_as_they_are(
    dcmtk: Run, port: int, sink: RecordingSink, tmp_path: Path
) -> None:
    (raw,) = save([ct_slice()], tmp_path)
    compressed = tmp_path / "jls.dcm"
    assert dcmtk("dcmcjpls", raw, compressed).returncode == 0
    done = dcmtk("dcmsend", "-aec", "VOXGATE", "127.0.0.1", port, compressed)
    assert done.returncode == 0, done.stderr
    assert dcmread(BytesIO(sink.received[0][0])).file_meta.TransferSyntaxUID == JPEGLSLossless
    assert pixels(sink) == digests([compressed])


def test_many_classes_over_one_association_by_dcmsend(
    dcmtk: Run, port: int, sink: RecordingSink, tmp_path: Path
) -> None:
    classes = ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"]
    datasets = []
    for sop_class in classes:
        dataset = ct_slice()
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
        datasets.append(dataset)
    assert dcmtk("dcmsend", "-aec", "VOXGATE", "127.0.0.1", port, *save(datasets, tmp_path)).returncode == 0
    assert [reception.expected_sop_class_uid for _, reception in sink.received] == classes


def test_real_compressed_slices_whose_uids_are_empty_are_refused_and_the_next_association_works(
    dcmtk: Run, port: int, sink: RecordingSink, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "ct" / "abdomen_Siemens_J2K_20sl_TotalSeg"
    done = dcmtk("dcmsend", "-nuc", "-nh", "-v", "+sd", "-aec", "VOXGATE", "127.0.0.1", port, folder)
    assert "Traceback" not in done.stdout + done.stderr
    assert sink.received == []
    (path,) = save([ct_slice()], tmp_path)
    assert dcmtk("dcmsend", "-aec", "VOXGATE", "127.0.0.1", port, path).returncode == 0


def test_odd_files_never_end_the_service(
    dcmtk: Run, port: int, sink: RecordingSink, shared_data: Path, tmp_path: Path
) -> None:
    odd = sorted((shared_data / "odd").iterdir())
    for arguments in (("-R", "-nh"), ("-R", "-nh", "-xv"), ("-R", "-nh", "-xt")):
        dcmtk("storescu", *arguments, "-aec", "VOXGATE", "127.0.0.1", port, *odd)
    assert len(sink.received) > len(odd) / 2
    (path,) = save([ct_slice()], tmp_path)
    assert dcmtk("storescu", "-R", "-aec", "VOXGATE", "127.0.0.1", port, path).returncode == 0


def test_a_real_compressed_instance_is_kept_byte_for_byte(
    dcmtk: Run, port: int, sink: RecordingSink, shared_data: Path, tmp_path: Path
) -> None:
    source = next((shared_data / "ct" / "abdomen_Siemens_J2K_20sl_TotalSeg").iterdir())
    dataset = dcmread(source)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    path = tmp_path / "j2k.dcm"
    dataset.save_as(path, enforce_file_format=True)
    done = dcmtk("storescu", "-R", "-xv", "-aec", "VOXGATE", "127.0.0.1", port, path)
    assert done.returncode == 0, done.stderr
    assert dcmread(BytesIO(sink.received[0][0])).file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert pixels(sink) == digests([path])


def test_orthanc_sends_us_a_series(orthanc: OrthancServer, port: int, sink: RecordingSink, tmp_path: Path) -> None:
    paths = save(ct_series(4), tmp_path / "series")
    orthanc.upload(tmp_path / "series")
    requests.put(
        f"{orthanc.http_url}/modalities/voxgate", json=["VOXGATE", "127.0.0.1", port], timeout=10
    ).raise_for_status()
    (series,) = orthanc.get("/series")
    requests.post(f"{orthanc.http_url}/modalities/voxgate/store", json=[series], timeout=60).raise_for_status()
    assert pixels(sink) == digests(paths)
    assert {reception.sender for _, reception in sink.received} == {"ORTHANC"}
