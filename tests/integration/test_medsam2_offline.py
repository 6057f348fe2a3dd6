"""MedSAM2 on DICOM files: a prompt in, a verified SEG and SR out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from extras import require_models

require_models()

from drawn import rectangle, report, scoord
from factories import ct_series, save
from medsam2_golden import checkpoint

from domain.errors import ConfigurationError, EngineFailed
from domain.job import JobState
from gateway.commands.convert import convert_weights
from gateway.config import Config, load_config
from gateway.offline import SeriesReport, analyse
from gateway.prompts import prompt_given
from inference.medsam2.checkpoint import read_weights

SLICES, ROWS, COLUMNS = 3, 48, 64


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A block of soft tissue in air, from feet to head."""
    voxels = np.full((SLICES, ROWS, COLUMNS), -900, np.int16)
    voxels[:, 12:36, 16:48] = 50
    voxels += np.random.default_rng(2).normal(0, 12, voxels.shape).astype(np.int16)
    save(ct_series(SLICES, voxels=voxels), tmp_path / "in")
    return tmp_path / "in"


def config(tmp_path: Path) -> Config:
    file = tmp_path / "voxgate.toml"
    file.write_text(
        f'[engines.medsam2]\nweights = "{checkpoint()}"\ndevice = "cpu"\nprecision = "fp32"\nthreads = 1\n', "utf-8"
    )
    return load_config(file, {})


def run(series: Path, tmp_path: Path, *boxes: str, slice_: int | None = 1, lps: bool = False) -> SeriesReport:
    prompt = prompt_given(boxes=boxes, points=(), background=(), slice_=slice_ if boxes else None, lps=lps)
    (report,) = analyse([series], tmp_path / "out", config=config(tmp_path), engine="medsam2", prompt=prompt).series
    return report


def segmented(report: SeriesReport) -> pydicom.Dataset:
    (path,) = (path for path in report.objects if path.name == "seg.dcm")
    return pydicom.dcmread(path)


def test_a_box_in_pixels_or_in_mm_becomes_the_same_verified_segmentation_and_a_report(
    series: Path, tmp_path: Path
) -> None:
    report = run(series, tmp_path, "14,10,50,38")
    assert (report.state, report.reason) == (JobState.DONE, "")
    assert sorted(path.name for path in report.objects) == ["seg.dcm", "sr.dcm"]
    seg = segmented(report)
    assert (seg.Rows, seg.Columns) == (ROWS, COLUMNS)
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Object 1"]
    assert seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "MedSAM2"
    sr = pydicom.dcmread(next(path for path in report.objects if path.name == "sr.dcm"))
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    by_mm = run(series, tmp_path, box_in_mm(series, 1, 14, 10, 50, 38), slice_=None, lps=True)
    assert segmented(by_mm).PixelData == seg.PixelData
    assert by_mm.objects[0].parent != report.objects[0].parent  # another drawing is another job
    assert segmented(by_mm).SOPInstanceUID != seg.SOPInstanceUID


def box_in_mm(series: Path, k: int, x0: float, y0: float, x1: float, y1: float) -> str:
    """Return a box given in pixels of a slice as ``--box`` takes it with ``--lps``."""
    instances = sorted(
        (pydicom.dcmread(path) for path in series.iterdir()), key=lambda ds: ds.ImagePositionPatient[2]
    )
    x, y, z = (float(value) for value in instances[k].ImagePositionPatient)
    row_mm, column_mm = (float(value) for value in instances[k].PixelSpacing)
    corners = [x + x0 * column_mm, y + y0 * row_mm, z, x + x1 * column_mm, y + y1 * row_mm, z]
    return ",".join(map(str, corners))


def test_without_a_prompt_or_with_one_beside_the_image_there_is_a_reason(series: Path, tmp_path: Path) -> None:
    nothing = run(series, tmp_path)
    assert (nothing.state, nothing.objects) == (JobState.NOT_RUN, ())
    assert "nothing was pointed at" in nothing.reason
    beside = run(series, tmp_path, "14,10,500,38")
    assert beside.state is JobState.NOT_APPLICABLE
    assert "lies outside the series" in beside.reason


def test_a_drawing_among_the_files_is_the_prompt_and_the_report_tells_of_both(series: Path, tmp_path: Path) -> None:
    images = sorted((pydicom.dcmread(path) for path in series.iterdir()), key=lambda ds: ds.InstanceNumber)
    drawing = report(images, [scoord(images[1], "POLYLINE", rectangle(14.5, 10.5, 50.5, 38.5))])
    pointed = run(series, tmp_path, "14,10,50,38")
    save([drawing], tmp_path / "in" / "drawn")
    first, second = analyse([series], tmp_path / "out", config=config(tmp_path), engine="medsam2").series
    done, said = sorted((first, second), key=lambda item: item.state is not JobState.DONE)
    assert (done.state, said.code) == (JobState.DONE, "drawing")
    assert [item.SegmentLabel for item in segmented(done).SegmentSequence] == ["Neoplasm"]
    assert segmented(pointed).PixelData == segmented(done).PixelData


def test_weights_are_converted_by_command_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "medsam2.safetensors"
    convert_weights(checkpoint(), target, engine="medsam2")
    assert len(read_weights(target)) == 469
    (tmp_path / "wrong.pt").write_bytes(b"no")
    with pytest.raises(EngineFailed, match="Expected is"):
        convert_weights(tmp_path / "wrong.pt", target, engine="medsam2")
    for source, to, engine, said in (
        (tmp_path / "absent.pt", target, "medsam2", "no such file"),
        (checkpoint(), tmp_path / "x.bin", "medsam2", "must end in .safetensors"),
        (checkpoint(), target, "lungs", "--engine: must be one of medsam2"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            convert_weights(source, to, engine=engine)
