"""Findings survive the way between two processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from domain.codes import LEFT, MILLILITRE, Code
from domain.findings import Evaluation, Findings, Measurement, SegmentDescription
from pipeline.findings_file import load_findings, save_findings

LUNG = SegmentDescription(
    key="left_lung",
    label="Left lung",
    category=Code("123037004", "SCT", "Anatomical Structure"),
    type=Code("39607008", "SCT", "Lung"),
    type_modifiers=(LEFT,),
    colour_rgb=(1, 2, 3),
)
VOLUME = Measurement(
    segment="left_lung", concept=Code("118565006", "SCT", "Volume"), value=1234.5678901234567, unit=MILLILITRE
)
SAID = Evaluation(segment="left_lung", concept=Code("1", "99X", "q"), value=Code("2", "99X", "a"))
TEXT = Evaluation(segment=None, concept=Code("3", "99X", "kernel"), value="B70f")
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_loads_what_was_saved(tmp_path: Path) -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 2, 3] = 1
    saved = Findings(labels=labels, segments=(LUNG,), measurements=(VOLUME,), evaluations=(SAID, TEXT), narrative="n")
    save_findings(saved, STARTED, tmp_path)
    loaded, started = load_findings(tmp_path)
    assert loaded.labels is not None
    np.testing.assert_array_equal(loaded.labels, labels)
    assert (loaded.segments, loaded.measurements) == (saved.segments, saved.measurements)
    assert (loaded.evaluations, loaded.narrative) == (saved.evaluations, saved.narrative)
    assert started == STARTED


def test_loads_findings_without_masks(tmp_path: Path) -> None:
    save_findings(Findings(labels=None, narrative="text"), STARTED, tmp_path)
    assert load_findings(tmp_path)[0].labels is None


def test_half_written_findings_are_not_there(tmp_path: Path) -> None:
    save_findings(Findings(labels=np.zeros((1, 1, 1), np.uint8)), STARTED, tmp_path)
    (tmp_path / "findings.json").unlink()  # killed between the mask and the mark of completeness
    with pytest.raises(FileNotFoundError):
        load_findings(tmp_path)


def test_loads_what_an_earlier_release_saved(tmp_path: Path) -> None:
    """0.1 wrote neither an impression nor detections, nor how many masks there are."""
    save_findings(Findings(labels=None, narrative="n"), STARTED, tmp_path)
    path = tmp_path / "findings.json"
    record = json.loads(path.read_bytes())
    for name in ("impression", "detections", "masks", "probabilities"):
        del record[name]
    path.write_text(json.dumps(record))
    loaded, started = load_findings(tmp_path)
    assert (loaded.narrative, loaded.impression, loaded.detections, started) == ("n", "", (), STARTED)
