"""Segmentations and parametric maps of every type before judges that share no code with the writers.

dcmqi and the reader of OHIF read no segmentation without a frame of reference: on pictures and cine, dicom3tools
judges the object, and highdicom and the project's own bit-exact decoding read it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK
from factories import ct_series
from picture_results import picture_result
from pydicom import dcmread
from results import ball, grid_of, lung, manifest, result_of

from dicom_out.profile import Options, Profile
from dicom_out.writer import Writer
from domain.codes import LEFT, RIGHT
from domain.findings import Findings
from domain.ports import Result

pytestmark = pytest.mark.peer
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
PICTURES = {
    "radiograph": "xr/dx_image.dcm",
    "mammogram": "mg/MG_GE_GH133.dcm",
    "chest without identity": "xr/CR_MONO1_chest_Fuji_440.dcm",
    "chest with a spacing of zero": "xr/RG1_chest_J2KI.dcm",
    "dermatology": "derm/VL1.dcm",
    "Japanese": "charset/chrH31.dcm",
    "Arabic": "charset/chrArab.dcm",
    "ultrasound cine, misspelt character set": "us/IM00001.implicit_little_endian.dcm",
    "ultrasound cine, dates of old": "us/US-PAL-8-10x-echo",
}
SOURCES_OWN = ("Illegal root for UID", "Value dubious for this VR", "Missing attribute or value that would be needed")
"""What the sources' own identifiers are blamed for, and a result must not change."""
KINDS = ("binary", "labelmap", "fractional")


def written(result: Result, folder: Path, objects: tuple[str, ...], **options: object) -> list[Path]:
    """Write and verify; return the files."""
    profile = Profile(name="test", objects=objects, options=Options(**options))  # type: ignore[arg-type]
    writer = Writer(default=profile)
    items = writer.write(result, folder)
    writer.verify(result, items)
    return [item.path for item in items]


def complaints(dciodvfy: str, path: Path) -> list[str]:
    """Return the errors that dciodvfy finds in an object."""
    done = subprocess.run([dciodvfy, "-new", str(path)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert any(line and not line.startswith(("Error", "Warning", "(", " ")) for line in said), said
    return [line for line in said if line.startswith("Error") and not any(known in line for known in SOURCES_OWN)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PICTURES)
def test_real_pictures_and_cine_have_segmentations(
    tmp_path: Path, shared_data: Path, peer: Callable[[str], str], name: str, kind: str
) -> None:
    source = shared_data / PICTURES[name]
    result = picture_result(source, tmp_path)
    (path,) = written(result, tmp_path, ("SEG",), segmentation=kind)
    assert complaints(peer("dciodvfy"), path) == []
    seg, header = highdicom.seg.segread(path), dcmread(source, stop_before_pixels=True)
    assert seg.get_item("PatientName").value.strip() == header.get_item("PatientName").value.strip()
    assert str(seg.PatientName) == str(header.PatientName)
    labels = np.asarray(result.findings.labels)
    if labels.shape[0] == 1:
        found = seg.get_pixels_by_source_instance([header.SOPInstanceUID])
    else:
        found = seg.get_pixels_by_source_frame(header.SOPInstanceUID, list(range(1, labels.shape[0] + 1)))
    for number in (1, 2):
        np.testing.assert_array_equal(found[..., number - 1] > 0, labels == number)


@pytest.fixture
def judge(check_objects: Path, peer: Callable[[str], str]) -> Callable[[Path, Path], str]:
    """Return a function that fails unless every object in a folder passes against its source folder.

    ``VOXGATE_JS`` is a folder with the reader of OHIF (``npm install`` of the judge's ``js``), which then judges too.
    """
    for tool in ("dciodvfy", "dcentvfy", "dsrdump", "dcmdump", "segimage2itkimage", "tid1500reader"):
        peer(tool)
    search = os.pathsep.join(("/usr/bin", os.environ["PATH"]))
    scripts = ["--js", os.environ["VOXGATE_JS"]] if "VOXGATE_JS" in os.environ else []

    def run(results: Path, source: Path) -> str:
        command = [sys.executable, str(check_objects), str(results), str(source), *scripts]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": search}, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def balls(folder: Path, *, overlapping: bool, probabilities: bool) -> Result:
    """Return two balls on an oblique series; OHIF's reader wants frames of whole bytes."""
    series = ct_series(voxels=np.full((12, 32, 40), -500, np.int16), orientation=OBLIQUE)
    grid, _ = grid_of(series)
    centres = ((5, 15, 11), (6, 15, 13) if overlapping else (6, 15, 28))
    masks = tuple(ball(grid, grid.to_lps(c), r) for c, r in zip(centres, (6.0, 4.0), strict=True))
    findings = Findings(labels=None, masks=masks, segments=(lung(LEFT), lung(RIGHT)))
    if probabilities:
        findings = replace(findings, probabilities=tuple((m * np.float32(0.75)).astype(np.float32) for m in masks))
    return result_of(series, folder / "source", findings=findings)


@pytest.mark.parametrize(
    ("options", "overlapping", "voxels"),
    [
        ({}, True, True),
        ({"segmentation": "labelmap"}, False, True),
        ({"segmentation": "labelmap", "compression": "rle"}, False, True),
        ({"segmentation": "labelmap", "max_frames": 4}, False, True),
        ({"segmentation": "fractional"}, False, False),
        ({"segmentation": "fractional", "compression": "rle"}, True, False),
        ({"max_frames": 4}, False, True),
        ({"empty_frames": True}, False, True),
    ],
    ids=str,
)
def test_judges_pass_every_type(
    tmp_path: Path, judge: Callable[[Path, Path], str], options: dict[str, object], overlapping: bool, voxels: bool
) -> None:
    result = balls(tmp_path, overlapping=overlapping, probabilities=not voxels)
    # Its judges do not know the UID of label maps in a reference: test_report_numbers_judged.py
    objects = ("SEG",) if options.get("segmentation") == "labelmap" else ("SEG", "SR")
    paths = written(result, tmp_path / "results", objects, **options)
    said = judge(tmp_path / "results", tmp_path / "source")
    segs = [dcmread(path) for path in paths if path.name.startswith("seg")]
    assert len(segs) == (2 if "max_frames" in options else 1)
    if voxels:
        assert sum(
            int(line.split(" vox")[0].rsplit(" ", 1)[1]) for line in said.splitlines() if " vox" in line
        ) == sum(int(mask.sum()) for mask in result.findings.masks)


def test_judges_pass_parametric_maps(
    tmp_path: Path, judge: Callable[[Path, Path], str], peer: Callable[[str], str]
) -> None:
    result = balls(tmp_path, overlapping=True, probabilities=True)
    paths = written(result, tmp_path / "results", ("PMAP",))
    judge(tmp_path / "results", tmp_path / "source")
    for path, expected in zip(paths, result.findings.probabilities, strict=True):
        out = tmp_path / path.stem
        out.mkdir()
        reader = Path(peer("segimage2itkimage")).with_name("paramap2itkimage")
        command = [str(reader), "--inputDICOM", str(path), "--outputDirectory", str(out), "--outputType", "nrrd"]
        subprocess.run(command, check=True, capture_output=True)
        image = SimpleITK.ReadImage(str(next(out.glob("*.nrrd"))))
        assert float(SimpleITK.GetArrayViewFromImage(image).sum(dtype=float)) == pytest.approx(float(expected.sum()))
        corner = result.patient_grid.to_index(np.array(image.GetOrigin()))  # type: ignore[no-untyped-call]
        np.testing.assert_allclose(corner, np.rint(corner), atol=1e-3)


def test_a_label_map_names_what_is_not_a_segment_behind_those_that_are(tmp_path: Path) -> None:
    """OHIF 3.13 takes the colour of segment n from the n-th item."""
    result = balls(tmp_path, overlapping=False, probabilities=False)
    path, *_ = written(result, tmp_path / "results", ("SEG",), segmentation="labelmap")
    *segments, background = dcmread(path).SegmentSequence
    assert (background.SegmentNumber, background.SegmentedPropertyTypeCodeSequence[0].CodeValue) == (0, "125040")
    assert [item.SegmentLabel for item in segments] == [item.label for item in manifest().segments]
