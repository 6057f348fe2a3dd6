"""The canonical digest against what really re-encodes instances on their way: DCMTK and Orthanc."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from orthanc_server import OrthancServer, free_port
from pydicom import dcmread

from domain.errors import MalformedInstance
from volume.digest import inspect, read_header
from volume.header import header_of

REAL = (
    "ts/cornerstone_CTImage/CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm",
    "ts/MR_small_bigendian.dcm",
    "ts/MR_small_jpeg_ls_lossless.dcm",
    "ts/image_dfl.dcm",
    "enhanced/emri_small.dcm",
    "seg_sr/reportsi.dcm",
    "odd/explicit_VR-UN.dcm",
    "odd/rtplan.dcm",
    "us/US-PAL-8-10x-echo",
    "charset/chrH31.dcm",
)
NOT_DICOM = (".xz", ".nii", ".gz", ".png", ".jpg", ".tsv", ".nrrd", ".npz", ".json")

pytestmark = pytest.mark.peer


@pytest.mark.parametrize(
    "options",
    [("+ti",), ("+te",), ("+tb",), ("+td",), ("-e",), ("+e", "+g"), ("-g",), ("+te", "-e", "+p", "2048", "64")],
    ids=" ".join,
)
def test_dcmconv_changes_bytes_but_not_the_digest(
    options: tuple[str, ...], shared_data: Path, peer: Callable[[str], str], tmp_path: Path
) -> None:
    compared = changed = 0
    for name in REAL:
        converted = tmp_path / "converted.dcm"
        converted.unlink(missing_ok=True)
        command = [peer("dcmconv"), "-q", *options, str(shared_data / name), str(converted)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            continue  # dcmconv decodes nothing: compressed ones stay as they are
        compared += 1
        changed += converted.read_bytes() != (shared_data / name).read_bytes()
        assert inspect(converted)[1] == inspect(shared_data / name)[1], name
    assert compared >= 5
    assert changed >= 5


def test_an_instance_sent_on_by_dcmtk_and_orthanc_is_the_same_instance(
    shared_data: Path, peer: Callable[[str], str], orthanc: OrthancServer, tmp_path: Path
) -> None:
    sources = [shared_data / name for name in (REAL[0], "ts/MR_small_implicit.dcm", "enhanced/emri_small.dcm")]
    with receiving(peer("storescp"), tmp_path) as port:
        node = {"AET": "STORESCP", "Host": "127.0.0.1", "Port": port}
        modality = f"{orthanc.http_url}/modalities/receiver"
        requests.put(modality, json=node, timeout=10).raise_for_status()
        for source in sources:
            orthanc.upload(source)
        requests.post(f"{modality}/store", json=orthanc.get("/instances"), timeout=60).raise_for_status()
        received = {dcmread(path).SOPInstanceUID: path for path in tmp_path.glob("*.1.*")}
    assert len(received) == len(sources)
    for source in sources:
        path = received[dcmread(source).SOPInstanceUID]
        assert path.read_bytes() != source.read_bytes()
        assert inspect(path)[1] == inspect(source)[1]


@contextmanager
def receiving(storescp: str, folder: Path) -> Iterator[int]:
    """Run DCMTK's storescp, which decodes what it gets and writes it anew."""
    port = free_port()
    command = [storescp, "-od", str(folder), "-aet", "STORESCP", "+xe", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_every_real_file_has_a_clear_outcome(shared_data: Path) -> None:
    outcomes: dict[str, str] = {}
    for path in sorted(shared_data.rglob("*")):
        if path.is_dir() or path.suffix in NOT_DICOM:
            continue
        try:
            header, _ = inspect(path)
        except MalformedInstance as error:
            outcomes[path.relative_to(shared_data).as_posix()] = str(error)
            continue
        # A second reader of the same attributes: pydicom's, value by value.
        assert header == header_of(dcmread(path), header.transfer_syntax_uid) == read_header(path), path.name
    abdomen = [why for name, why in outcomes.items() if name.startswith("ct/abdomen_Siemens")]
    assert abdomen == ["SOPClassUID is absent or empty"] * 20
    odd = {name.removeprefix("odd/"): why for name, why in outcomes.items() if name.startswith("odd/")}
    assert odd["MR_truncated.dcm"].startswith("PixelData runs past the end")
    assert odd["no_meta.dcm"].startswith("Not a DICOM Part 10 file")
    assert odd["meta_missing_tsyntax.dcm"] == "TransferSyntaxUID is absent or empty"
    assert odd["emri_small_jpeg_2k_lossless_too_short.dcm"].endswith("the file is cut off")
    assert len(odd) == 15
