"""Reports on projections, photographs and cine, and in words, before judges that share no code with the writers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from picture_results import picture_result
from pydicom import dcmread
from results import ANATOMY, LUNG

from dicom_out.profile import Options, Profile
from dicom_out.writer import Writer
from domain.codes import PERCENT, Code
from domain.findings import Detection, Evaluation, Findings, Measurement
from domain.image import Raster
from domain.ports import Result

Judge = Callable[[Path], None]
SOURCES = [
    "xr/dx_image.dcm",
    "xr/CR_MONO1_chest_Fuji_440.dcm",
    "mg/MG_GE_GH133.dcm",
    "derm/VL1.dcm",
    "us/IM00001.implicit_little_endian.dcm",
    "us/US-PAL-8-10x-echo",
]
REPORTS = {
    "comprehensive-3d": Options(),
    "comprehensive, no SEG frames without pixels": Options(report="comprehensive", regionless="statement"),
    "enhanced text": Options(text="enhanced", preliminary="preliminary"),
    "comprehensive text": Options(text="comprehensive", empty_frames=True),
}
PRESENCE = Code("121052", "DCM", "Presence of property")
SCORE = Code("111047", "DCM", "Probability of cancer")
pytestmark = pytest.mark.peer


SOURCES_OWN = (
    "Illegal root for UID",
    "Value dubious for this VR",
    "Missing attribute or value that would be needed",
)
"""What the sources' own identifiers are blamed for, and a result must not change."""


@pytest.fixture
def judged(peer: Callable[[str], str]) -> Judge:
    """Return a function that fails unless dicom3tools and DCMTK pass a report."""

    def run(path: Path) -> None:
        said = _said([peer("dciodvfy"), "-new", str(path)])
        assert not [line for line in said if line.startswith("Error") and not any(own in line for own in SOURCES_OWN)]
        done = subprocess.run([peer("dsrdump"), str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        blamed = [line for line in done.stderr.splitlines() if line and "SpecificCharacterSet" not in line]
        assert not [line for line in blamed if line.startswith(("E:", "F:")) or "IMAGE" in line], blamed

    return run


def _said(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()


def everything_on(source: Path, folder: Path) -> Result:
    """Return masks, a detection, numbers, statements and texts on an image."""
    folder.mkdir()
    path = Path(shutil.copy(source, folder / "image.dcm"))
    result = picture_result(path, folder)
    box = Detection(key="box", label="Box", category=ANATOMY, type=LUNG, box=(4.0, 5.0, 20.5, 30.0), probability=0.25)
    segment = result.findings.segments[0].key
    findings = replace(
        result.findings,
        detections=(box,),
        measurements=(
            Measurement(segment=None, concept=SCORE, value=12.5, unit=PERCENT),
            Measurement(segment=segment, concept=SCORE, value=33.25, unit=PERCENT),
        ),
        evaluations=(
            Evaluation(segment=segment, concept=Code("121052", "DCM", "Presence of property"), value="seen"),
        ),
        narrative="Something is seen.",
        impression="Nothing of importance.",
    )
    return replace(result, findings=findings)


@pytest.mark.parametrize("name", SOURCES)
def test_judges_pass_reports_on_images_without_coordinates(
    tmp_path: Path, judged: Judge, shared_data: Path, name: str
) -> None:
    result = everything_on(shared_data / name, tmp_path / "source")
    for number, options in enumerate(REPORTS.values()):
        writer = Writer(default=Profile(name="own", objects=("SEG", "SR", "TEXT-SR"), options=options))
        objects = writer.write(result, tmp_path / f"results {number}")
        writer.verify(result, objects)
        for item in objects:
            if not item.kind.startswith("SEG"):
                judged(item.path)


def test_dcmqi_lists_every_number(tmp_path: Path, peer: Callable[[str], str], shared_data: Path) -> None:
    result = everything_on(shared_data / "xr" / "dx_image.dcm", tmp_path / "source")
    (report,) = [item.path for item in Writer().write(result, tmp_path / "results") if item.kind == "SR"]
    out = tmp_path / "report.json"
    command = [peer("tid1500reader"), "--inputDICOM", str(report), "--outputMetadata", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    groups = json.loads(out.read_text())["Measurements"]
    said = [float(item["value"]) for group in groups for item in group.get("measurementItems", ())]
    assert sorted(said) == [12.5, 25.0, 33.25]


def test_judges_pass_detections_alone(tmp_path: Path, judged: Judge, shared_data: Path) -> None:
    result = everything_on(shared_data / "mg" / "MG_GE_GH133.dcm", tmp_path / "source")
    shape = result.grid.shape
    findings = Findings(labels=None, detections=result.findings.detections)
    result = replace(result, findings=findings, grid=Raster(shape=shape))
    (report,) = Writer().write(result, tmp_path / "results")
    Writer().verify(result, [report])
    judged(report.path)
    assert dcmread(report.path).Modality == "SR"
