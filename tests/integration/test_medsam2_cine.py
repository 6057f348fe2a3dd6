"""MedSAM2 on cine and single images: from a file and a box to verified objects that refer to the right frames."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from extras import require_models

require_models()

from medsam2_golden import CPU, small_network
from pictures import cine
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import XRayAngiographicImageStorage

from domain.engine import Engine
from domain.findings import Findings
from domain.job import JobState
from gateway.config import Config, load_config
from gateway.offline import SeriesReport, analyse
from gateway.prompts import prompt_given
from inference.medsam2.engine import MedSam2
from inference.registry import Registry

FRAMES = 5
US = ("GREYSCALE_IMAGE.dcm", "IM00001.implicit_little_endian.dcm", "US-PAL-8-10x-echo", "examples_palette.dcm",
      "examples_ybr_color.dcm")  # fmt: skip


class Observed:
    """MedSAM2 with a small network; keeps what it found last."""

    def __init__(self, engine: MedSam2) -> None:
        self._engine = engine
        self.manifest = engine.manifest
        self.found: Findings | None = None

    def load(self) -> None:
        self._engine.use(small_network(), CPU)

    def run(self, case: Any) -> Findings:
        self.found = self._engine.run(case)
        return self.found


class Small(Registry):
    """The engines of the installation, of which medsam2 has a small network of random weights."""

    def __init__(self, folder: Path) -> None:
        (folder / "weights.pt").write_bytes(b"weights")
        super().__init__({"medsam2": {"weights": folder / "weights.pt"}})
        self.observed = Observed(MedSam2(self.manifest("medsam2"), {}))
        self.observed.load()

    def engine(self, name: str) -> Engine:
        return self.observed


def configured(tmp_path: Path, more: str = "") -> Config:
    file = tmp_path / "voxgate.toml"
    file.write_text(f'[engines.medsam2]\nweights = "{tmp_path / "weights.pt"}"\n{more}', "utf-8")
    return load_config(file, {})


def saved(ds: Dataset, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    ds.save_as(folder / "image.dcm", enforce_file_format=True)
    return folder


def run(
    source: Path, tmp_path: Path, box: str = "5,8,12,15", frame: int = 2, **also: Any
) -> tuple[SeriesReport, Findings | None]:
    registry = Small(tmp_path)
    prompt = prompt_given(boxes=[box], points=(), background=(), slice_=frame, lps=False)
    (report,) = analyse(
        [source], tmp_path / "out", config=configured(tmp_path), engine="medsam2", prompt=prompt, registry=registry,
        **also,
    ).series  # fmt: skip
    return report, registry.observed.found


def written(report: SeriesReport, name: str) -> Dataset:
    return pydicom.dcmread(next(path for path in report.objects if path.name == name))


def masks_of(seg: Dataset, shape: tuple[int, ...]) -> Any:
    """Return what a segmentation says of each frame of its source: by reference, not by order."""
    pixels = seg.pixel_array.reshape(-1, *shape[1:])
    made = np.zeros(shape, np.uint8)
    for plane, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        made[int(source.get("ReferencedFrameNumber", 1)) - 1] = plane
    return made


def numbers_of(sr: Dataset) -> list[tuple[str, str]]:
    def walk(item: Dataset) -> Any:
        if item.get("ValueType") == "NUM":
            (measured,) = item.MeasuredValueSequence
            yield item.ConceptNameCodeSequence[0].CodeMeaning, measured.MeasurementUnitsCodeSequence[0].CodeValue
        for child in item.get("ContentSequence", ()):
            yield from walk(child)

    return list(walk(sr))


def test_a_cine_becomes_a_mask_for_each_frame_areas_and_a_picture(tmp_path: Path) -> None:
    preview = tmp_path / "preview.png"
    report, found = run(saved(cine(FRAMES), tmp_path / "in"), tmp_path, preview=preview)
    assert (report.state, report.reason) == (JobState.DONE, "")
    assert found is not None
    assert found.labels is not None
    np.testing.assert_array_equal(masks_of(written(report, "seg.dcm"), found.labels.shape), found.labels)
    numbers = numbers_of(written(report, "sr.dcm"))
    assert [name for name, _ in numbers[:4]] == ["Area", "Area", "Area", "Fractional area change"]
    (segment,) = report.summary
    assert f"On {np.count_nonzero(found.labels.any(axis=(1, 2)))} of {FRAMES} frames" in str(segment["statements"])
    with Image.open(preview) as picture:
        assert picture.width > picture.height


def test_an_angiogram_is_measured_in_pixels(tmp_path: Path) -> None:
    ds = cine(FRAMES, regions=[])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = XRayAngiographicImageStorage
    ds.Modality, ds.ImagerPixelSpacing, ds.PixelSpacing = "XA", ["0.3", "0.3"], ["0.2", "0.2"]
    ds.PixelSpacingCalibrationType = "GEOMETRY"
    del ds.SequenceOfUltrasoundRegions
    report, _ = run(saved(ds, tmp_path / "in"), tmp_path)
    assert report.state is JobState.DONE, report.reason
    assert {unit for name, unit in numbers_of(written(report, "sr.dcm")) if name == "Area"} == {"{pixels}"}
    assert "no scale in the patient" in str(report.summary)


ROUTE = (
    '[[routes]]\nname = "beat"\nengine = "medsam2"\nmodality = ["US"]\n'
    'prompt = { space = "fraction", slice = 0, box = [0.1, 0.2, 0.3, 0.4], label = "Left ventricle" }\n'
    "options = { last_slice = 3 }\n"
)


def test_a_route_with_a_default_prompt_takes_a_cine(tmp_path: Path) -> None:
    source = saved(cine(FRAMES), tmp_path / "in")
    (report,) = analyse(
        [source], tmp_path / "out", config=configured(tmp_path, ROUTE), registry=Small(tmp_path)
    ).series
    assert (report.route, report.state) == ("beat", JobState.DONE)
    assert report.summary[0]["label"] == "Left ventricle"
    assert "of 4 frames" in str(report.summary)


def test_a_frame_that_is_not_there_is_an_answer(tmp_path: Path) -> None:
    preview = tmp_path / "preview.png"
    report, _ = run(saved(cine(FRAMES), tmp_path / "in"), tmp_path, frame=FRAMES, preview=preview)
    assert report.state is JobState.NOT_APPLICABLE
    assert "5 frames, counted from 0" in report.reason
    assert not preview.exists()


@pytest.mark.parametrize("name", US)
def test_real_ultrasound_gets_a_segmentation_on_its_frames(name: str, shared_data: Path, tmp_path: Path) -> None:
    header = pydicom.dcmread(shared_data / "us" / name, stop_before_pixels=True)
    frames = int(header.get("NumberOfFrames") or 1)
    report, found = run(shared_data / "us" / name, tmp_path, "100,80,200,180", frame=frames // 2)
    assert (report.state, report.reason) == (JobState.DONE, "")
    assert found is not None
    assert found.labels is not None
    assert found.labels.shape == (frames, header.Rows, header.Columns)
    np.testing.assert_array_equal(masks_of(written(report, "seg.dcm"), found.labels.shape), found.labels)


@pytest.mark.peer
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_judges_that_we_did_not_write_accept_the_objects(
    frames: int, tmp_path: Path, check_objects: Path, peer: Callable[[str], str]
) -> None:
    for tool in ("dciodvfy", "dcentvfy", "dsrdump", "dcmdump"):
        peer(tool)
    source = saved(cine(frames), tmp_path / "in")
    report, _ = run(source, tmp_path, frame=0)
    assert report.state is JobState.DONE, report.reason
    command = [sys.executable, str(check_objects), str(tmp_path / "out"), str(source)]
    search = os.pathsep.join(("/usr/bin", os.environ["PATH"]))
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": search}, check=False)
    assert "dcentvfy over" in done.stdout, done.stderr
    # dcmqi reads no segmentation without a frame of reference
    known = "FAIL seg.dcm [Segmentation]  | dcmqi segimage2itkimage rc=1 Fatal error encountered."
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert all(line.startswith(known) and ";" not in line.split("(notes")[0] for line in faults), done.stdout
