"""A contour that somebody traced and sent: MedSAM2's segmentation and report of it, before an independent judge."""

from __future__ import annotations

import re
import shutil
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

from medsam2_golden import checkpoint
from pointing import seen_from_within

from domain.job import JobState
from gateway.config import load_config
from gateway.offline import analyse


@pytest.fixture(scope="module")
def everything(unpacked: Callable[[str], Path]) -> Path:
    """A structure set and the 41 slices that it refers to."""
    return unpacked("ct/IBSI_PAT2_lungCT_RTSTRUCT")


@pytest.fixture(scope="module")
def source(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The structure set with the slices of its seven contours only: a slice takes a second."""
    folder = tmp_path_factory.mktemp("traced")
    files = [path for path in everything.rglob("*") if path.is_file()]
    (drawing,) = (path for path in files if "_RS_" in path.name)
    heights = [float(points[0, 2]) for points in contours(pydicom.dcmread(drawing))]
    shutil.copy(drawing, folder / "drawing.dcm")
    for path in files:
        if path != drawing:
            height = float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
            if min(heights) - 1 < height < max(heights) + 1:
                shutil.copy(path, folder / path.name)
    return folder


def contours(ds: Any) -> list[Any]:
    return [np.array(item.ContourData, float).reshape(-1, 3) for item in ds.ROIContourSequence[0].ContourSequence]


def test_what_a_traced_contour_gives_passes_the_judge_and_names_its_drawing(
    source: Path, everything: Path, tmp_path: Path, check_objects: Path
) -> None:
    (tmp_path / "voxgate.toml").write_text(
        f'[engines.medsam2]\nweights = "{checkpoint()}"\ndevice = "cpu"\nprecision = "fp32"\nthreads = 1\n', "utf-8"
    )
    config = load_config(tmp_path / "voxgate.toml", {})
    found = analyse([source], tmp_path / "out", config=config, engine="medsam2").series
    done, said = sorted(found, key=lambda item: item.state is not JobState.DONE)
    assert (done.state, done.reason, said.code) == (JobState.DONE, "", "drawing")
    drawing = pydicom.dcmread(source / "drawing.dcm")
    written = {path.name: pydicom.dcmread(path) for path in done.objects}
    check_drawn(written["seg.dcm"], drawing)
    assert drawing.SOPInstanceUID in sources(written["sr.dcm"])
    judged = subprocess.run(
        [sys.executable, str(check_objects), str(done.objects[0].parent), str(everything)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "\n0 failed, 2 passed" in judged.stdout, judged.stdout + judged.stderr
    # The judge follows the structure set's references too, of which one is to its study, as to an object
    assert set(re.findall(r"referenced - ([0-9.]+)", judged.stdout)) <= {drawing.StudyInstanceUID}, judged.stdout


def sources(item: Any) -> set[str]:
    """Return the objects that a report calls the source of its findings."""
    found = set[str]().union(*(sources(below) for below in item.get("ContentSequence", ())))
    if item.get("ValueType") == "COMPOSITE" and item.ConceptNameCodeSequence[0].CodeMeaning == "Source":
        found.add(str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
    return found


def check_drawn(seg: Any, drawing: Any) -> None:
    """The largest contour's slice holds what was traced there, as far as the network's grid of 128 can show it."""
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == "GTV-1"
    largest = max(contours(drawing), key=lambda p: abs(np.cross(p[:, :2], np.roll(p[:, :2], -1, axis=0)).sum()))
    frames = seg.pixel_array if seg.pixel_array.ndim == 3 else seg.pixel_array[None]
    for pixels, frame in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        x, y, z = (float(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient)
        if abs(z - largest[0, 2]) < 0.01:
            row_mm, column_mm = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
            outline = (largest[:, [1, 0]] - (y, x)) / (float(row_mm), float(column_mm))
            traced = seen_from_within(outline, pixels.shape)
            assert (pixels.astype(bool) & traced).sum() / (pixels.astype(bool) | traced).sum() > 0.9
            return
    raise AssertionError("nothing is segmented on the slice of the largest contour")
