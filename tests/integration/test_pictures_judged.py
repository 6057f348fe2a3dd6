"""Key images, reports, presentation states and key objects of real images, before judges that we did not write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from looking import NODULE, blob, box_on, cine, engine, image_result, phantom, radiograph_result, writer
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from results import VOLUME, ball, grid_of, result_of

from dicom_out.profile import Options, Profile
from dicom_out.writer import Writer
from domain.codes import MILLILITRE
from domain.findings import Findings, Measurement
from domain.ports import Result

pytestmark = pytest.mark.peer
Judge = Callable[[Path, Path], None]
UNKNOWN_CHARSETS = "dsrdump W: Reading unknown/unsupported SpecificCharacterSet (\\ISO 2022 IR 87)"


@pytest.fixture(scope="session")
def judge(check_objects: Path, peer: Callable[[str], str]) -> Judge:
    """Return a function that fails unless every object of a folder passes against its source."""
    for tool in ("dciodvfy", "dcentvfy", "dsrdump", "dcmdump"):
        peer(tool)
    search = os.pathsep.join(("/usr/bin", os.environ["PATH"]))

    def run(results: Path, source: Path) -> None:
        command = [sys.executable, str(check_objects), str(results), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": search}, check=False)
        faults = [
            line for line in done.stdout.splitlines() if line.startswith("FAIL") and UNKNOWN_CHARSETS not in line
        ]
        assert "dcentvfy over" in done.stdout, done.stderr
        assert not faults, done.stdout

    return run


def sound(ds: Dataset) -> Dataset:
    """Return a source without what the judge says of any result of it: dangling references, impossible values."""
    dangling = ("Referenced", "Source", "RequestAttributes", "ProcedureCode")
    texts = ("LO", "SH", "PN", "CS", "DS", "DA")
    for element in list(ds):
        if element.keyword.startswith(dangling) or (element.VR in texts and "\0" in str(element.value)):
            del ds[element.tag]
    if ds.get("PatientBirthDate") == "00000000":
        ds.PatientBirthDate = ""
    for element in list(ds):
        if element.VR == "UI" and str(element.value).startswith("999."):  # no root of anybody
            element.value = generate_uid()
        if element.VR in ("DA", "TM") and element.value:  # as ACR-NEMA wrote them
            element.value = str(element.value).replace(":", "").replace(".", "", 0 if element.VR == "TM" else -1)
    for keyword in ("SoftwareVersions", "PatientSex"):
        ds.pop(keyword, None)
    if "PixelData" not in ds:  # the samples of character sets
        ds.PixelData = np.arange(ds.Rows * ds.Columns * ds.BitsAllocated // 8, dtype=np.uint8).tobytes()
        ds["PixelData"].VR = "OW"
    return ds


def image_findings(path: Path) -> Findings:
    ds = dcmread(path, stop_before_pixels=True)
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.get("NumberOfFrames") or 1)
    box = box_on(frames // 2, (columns * 0.3, rows * 0.4, columns * 0.45, rows * 0.5))
    labels = blob((frames, rows, columns), frames // 2)
    return Findings(labels=labels, segments=(NODULE,), detections=(box,), narrative="A mass.", impression="Mass.")


@pytest.mark.parametrize(
    "name",
    [
        "mg/MG_GE_GH133.dcm",
        "xr/dx_image.dcm",
        "us/IM00001.implicit_little_endian.dcm",
        "us/US-PAL-8-10x-echo",
        "xr/CR_MONO1_chest_Fuji_440.dcm",
        "derm/VL1.dcm",
        "charset/chrJapMulti.dcm",
        "charset/chrArab.dcm",
    ],
)
def test_objects_on_a_real_image_pass(name: str, shared_data: Path, tmp_path: Path, judge: Judge) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = source / "image.dcm"
    ds = sound(dcmread(shared_data / name))
    ds.save_as(path, enforce_file_format=True)
    result = replace(image_result([ds], tmp_path / "unused", image_findings(path)), source_paths=(path,))
    accept(result, tmp_path / "results", source, judge)


def accept(result: Result, folder: Path, source: Path, judge: Judge) -> None:
    made = writer("SR", "TEXT-SR", "SC", "PDF", "GSPS", "KOS")
    made.verify(result, made.write(result, folder))
    judge(folder, source)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("voi_lut", [False, True])
def test_dcmtk_shows_the_image_through_the_presentation_state_as_it_was(
    inverted: bool, voi_lut: bool, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    result = radiograph_result(tmp_path / "source", inverted=inverted, voi_lut=voi_lut)
    (state,) = writer("GSPS").write(result, tmp_path / "results")
    shown = tmp_path / "shown.pgm"
    command = [peer("dcmp2pgm"), "-p", str(state.path), str(result.source_paths[0]), str(shown)]
    subprocess.run(command, check=True, capture_output=True)
    assert np.corrcoef(np.asarray(Image.open(shown)).ravel(), phantom(90, 70).ravel())[0, 1] > 0.99
    judged = subprocess.run([peer("dcmpschk"), str(state.path)], check=False, capture_output=True, text=True)
    assert "Test passed." in judged.stderr, judged.stderr


def test_objects_on_a_cine_pass(tmp_path: Path, judge: Judge) -> None:
    result = image_result([cine()], tmp_path / "source", Findings(labels=None, detections=(box_on(3),)))
    accept(result, tmp_path / "results", tmp_path / "source", judge)


def real_volume(name: str, unpacked: Callable[[str], Path], folder: Path) -> Result:
    files = sorted(path for path in unpacked(name).rglob("*") if path.is_file())
    series = [sound(dcmread(path)) for path in files]
    grid, _ = grid_of(series)
    labels = ball(grid, grid.to_lps(np.array(grid.shape) * (0.5, 0.45, 0.4)), 30.0).astype(np.uint8)
    volume = float(labels.sum()) * grid.voxel_volume_ml
    measured = (Measurement(segment="nodule", concept=VOLUME, value=volume, unit=MILLILITRE, label="Volume"),)
    findings = Findings(labels=labels, segments=(NODULE,), measurements=measured)
    return result_of(series, folder, findings=findings, engine=engine(NODULE))


def test_objects_on_an_oblique_volume_and_the_rejection_of_the_first_pass(
    unpacked: Callable[[str], Path], tmp_path: Path, judge: Judge
) -> None:
    result = real_volume("mr/brain_FLAIR_ax_Philips_BRAINIX_22sl", unpacked, tmp_path / "source")
    accept(result, tmp_path / "results", tmp_path / "source", judge)
    profile = Profile(name="test", objects=("SEG", "SC"), options=Options(superseded="reject"))
    made = Writer(default=profile)
    first = made.write(result, tmp_path / "first")
    second = replace(result, job_id="1" * 16, generation=2, predecessors=first)
    objects = made.write(second, tmp_path / "second")
    made.verify(second, objects)
    assert objects[-1].kind == "REJECTION"
    for item in first:  # the judge wants to see what is referred to
        shutil.copy(item.path, tmp_path / "second" / f"former-{item.path.name}")
    judge(tmp_path / "second", tmp_path / "source")
