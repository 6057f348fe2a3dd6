"""Every kind of finding survives the way between the processes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from domain.codes import MILLIMETRE, PERCENT, Code
from domain.findings import Detection, Evaluation, Findings, Measurement, SegmentDescription
from pipeline.findings_file import load_findings, save_findings
from pipeline.summary import summary

THING = Code("39607008", "SCT", "Lung")
STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
DIAMETER = Code("103339001", "SCT", "Long Axis")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def described(key: str) -> SegmentDescription:
    return SegmentDescription(key=key, label=key, category=STRUCTURE, type=THING)


def test_overlapping_masks_probabilities_detections_and_points_come_back(tmp_path: Path) -> None:
    masks = tuple(np.zeros((2, 3, 4), np.bool_) for _ in range(2))
    probabilities = tuple(np.full((2, 3, 4), share, np.float32) for share in (0.25, 0.75))
    masks[0][0, 1, 2] = masks[1][0, 1, 2] = True
    findings = Findings(
        labels=None,
        segments=(described("one"), described("two")),
        measurements=(
            Measurement(
                segment="one",
                concept=DIAMETER,
                value=3.5,
                unit=MILLIMETRE,
                points=((0.0, 1.0, 2.0), (0.0, 1.5, 2.0)),
            ),
            Measurement(segment=None, concept=THING, value=2.0, unit=PERCENT),
        ),
        evaluations=(Evaluation(segment=None, concept=THING, value="seen"),),
        narrative="Something.",
        impression="Little.",
        detections=(
            Detection(key="a", label="A", category=STRUCTURE, type=THING, box=(0.0, 1.0, 2.5, 3.0), probability=0.5),
        ),
        masks=masks,
        probabilities=probabilities,
    )
    save_findings(findings, NOON, tmp_path)
    loaded, started_at = load_findings(tmp_path)
    assert started_at == NOON
    assert loaded.shape == (2, 3, 4)
    assert all(np.array_equal(one, other) for one, other in zip(loaded.masks, masks, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(loaded.probabilities, probabilities, strict=True))
    assert (loaded.measurements, loaded.detections) == (findings.measurements, findings.detections)
    assert (loaded.narrative, loaded.impression) == ("Something.", "Little.")


def test_labels_and_masks_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Findings(
            labels=np.zeros((1, 1, 1), np.uint8),
            segments=(described("one"),),
            masks=(np.zeros((1, 1, 1), np.bool_),),
        )


def test_each_segment_needs_a_mask_of_the_same_shape() -> None:
    with pytest.raises(ValueError, match="one array of the same shape"):
        Findings(labels=None, segments=(described("one"), described("two")), masks=(np.zeros((1, 1, 1), np.bool_),))


def test_a_summary_tells_of_texts_and_boxes_but_not_what_they_say() -> None:
    box = Detection(key="a", label="A", category=STRUCTURE, type=THING, box=(0.0, 1.0, 2.5, 3.0))
    findings = Findings(
        labels=None,
        measurements=(Measurement(segment=None, concept=THING, value=2.0, unit=PERCENT),),
        narrative="Mr. Canary is well.",
        detections=(box,),
    )
    (entry,) = summary(findings)
    assert entry["segment"] is None
    assert entry["statements"] == ["1 box", "text of 19 characters"]
    assert "Canary" not in repr(entry)
    assert summary(Findings(labels=None)) == []
