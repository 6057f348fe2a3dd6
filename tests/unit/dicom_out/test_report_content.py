"""What a TID 1500 report says beyond segments of a volume, and that the check notices what is not so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series
from picture_results import picture_result, xa_cine
from pydicom import dcmread
from pydicom.dataset import Dataset
from results import ANATOMY, LUNG, VOLUME, grid_of, manifest, result_of

from dicom_out.profile import BUILT_IN, Options, Profile
from dicom_out.writer import Writer
from domain.codes import MILLILITRE, MILLIMETRE, PERCENT, Code
from domain.errors import VerificationFailed
from domain.findings import Detection, Evaluation, Findings, Measurement
from domain.image import Raster
from domain.job import ResultObject
from domain.ports import Result
from domain.prompt import Box, Drawing, ObjectPrompt, Prompt

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
DIAMETER = Code("81827009", "SCT", "Diameter")
SCORE = Code("111047", "DCM", "Probability of cancer")
STATED = Writer(default=Profile(name="own", options=Options(regionless="statement")))


def walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from walk(child)


def named(ds: Dataset, value: str) -> list[Dataset]:
    """Return the content items with this concept name."""
    return [
        i for i in walk(ds) if i.get("ConceptNameCodeSequence") and i.ConceptNameCodeSequence[0].CodeValue == value
    ]


def report_of(result: Result, folder: Path, writer: Writer | None = None) -> Dataset:
    """Write and verify; return the report."""
    writer = writer or Writer()
    objects = writer.write(result, folder)
    writer.verify(result, objects)
    return dcmread(next(item.path for item in objects if item.kind == "SR"))


def volume_result(folder: Path, findings: Findings | None = None) -> Result:
    series = ct_series(voxels=np.zeros((4, 16, 16), np.int16))
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[1:3, 2:6, 3:9] = 1
    if findings is not None and findings.segments:
        findings = replace(findings, labels=labels)
    return result_of(series, folder, findings=findings)


def detection(**changes: object) -> Detection:
    values = {"key": "lesion 1", "label": "Lesion", "category": ANATOMY, "type": LUNG, "box": (2.0, 3.0, 9.5, 7.0)}
    return Detection(**{**values, "probability": 0.875, **changes})  # type: ignore[arg-type]


def test_a_detection_is_a_box_on_its_image_with_its_certainty(tmp_path: Path) -> None:
    result = volume_result(tmp_path / "s", Findings(labels=None, detections=(detection(image=2),)))
    report = report_of(result, tmp_path / "r")
    (group,) = named(report, "125007")
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"
    (box,) = [item for item in walk(group) if item.ValueType == "SCOORD"]
    assert box.GraphicData == [2, 3, 9.5, 3, 9.5, 7, 2, 7, 2, 3]
    (shown,) = named(group, "121324")
    assert shown.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dcmread(result.source_paths[2]).SOPInstanceUID
    (certainty,) = named(group, "111012")
    assert certainty.MeasuredValueSequence[0].NumericValue == 87.5
    assert not named(report, "121052")


def test_a_detector_that_found_nothing_says_so(tmp_path: Path) -> None:
    report = report_of(volume_result(tmp_path / "s", Findings(labels=None)), tmp_path / "r")
    assert not named(report, "125007")
    assert [item.ConceptCodeSequence[0].CodeMeaning for item in named(report, "121052")] == ["Absent"]


def test_findings_and_impression_are_two_texts(tmp_path: Path) -> None:
    findings = Findings(labels=None, narrative="The lungs are clear.", impression="Normal.")
    report = report_of(volume_result(tmp_path / "s", findings), tmp_path / "r")
    evaluations = next(i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "C0034375")
    said = {i.ConceptNameCodeSequence[0].CodeMeaning: i.TextValue for i in evaluations.ContentSequence}
    assert said == {"Finding": "The lungs are clear.", "Impression": "Normal."}


def series_score(value: float = 12.5) -> Measurement:
    return Measurement(segment=None, concept=SCORE, value=value, unit=PERCENT)


def test_a_number_of_the_whole_series_is_a_group_of_its_own(tmp_path: Path) -> None:
    findings = Findings(labels=None, measurements=(series_score(),))
    report = report_of(volume_result(tmp_path / "s", findings), tmp_path / "r")
    (group,) = named(report, "125007")
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert named(group, "111047")[0].MeasuredValueSequence[0].NumericValue == 12.5


def test_for_ohif_a_number_without_a_place_is_no_group(tmp_path: Path) -> None:
    findings = Findings(labels=None, measurements=(series_score(),))
    report = report_of(volume_result(tmp_path / "s", findings), tmp_path / "r", STATED)
    assert not named(report, "125007")
    assert named(report, "111047")[0].MeasuredValueSequence[0].NumericValue == 12.5


def given_diameter(value: float = 4.0) -> Findings:
    segment = manifest().segments[0]
    diameter = Measurement(
        segment=segment.key, concept=DIAMETER, value=value, unit=MILLIMETRE, points=((2, 3, 3), (2, 3, 8))
    )
    volume = Measurement(segment=segment.key, concept=VOLUME, value=0.048, unit=MILLILITRE)
    return Findings(labels=None, segments=(segment,), measurements=(volume, diameter))


def test_a_given_diameter_stands_in_place_of_our_long_axis(tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((4, 16, 16), np.int16))
    grid, _ = grid_of(series)
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[1:3, 2:6, 3:9] = 1
    given = given_diameter()
    volume = replace(given.measurements[0], value=48 * grid.voxel_volume_ml)
    result = result_of(
        series, tmp_path / "s", findings=replace(given, labels=labels, measurements=(volume, given.measurements[1]))
    )
    report = report_of(result, tmp_path / "r")
    (line,) = [item for item in walk(report) if item.ValueType == "SCOORD"]
    assert line.GraphicData == [3.5, 3.5, 8.5, 3.5]  # from centres of pixels to their corners
    assert not named(report, "103339001")
    assert len(named(report, "81827009")) == 1


def pointed(result: Result) -> Result:
    drawn = ObjectPrompt(
        boxes=(Box(corners=((0, 0, 0), (0, 1, 1))),), tracking_identifier="Läsion 7", tracking_uid="1.2.3.7"
    )
    drawing = Drawing(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.481.3", sop_instance_uid="1.2.9", series_instance_uid="1.2.8"
    )
    return replace(result, prompt=Prompt(objects=(drawn,), drawing=drawing))


def test_what_was_drawn_keeps_its_name_and_is_named_as_the_source(tmp_path: Path) -> None:
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[1:3, 2:6, 3:9], labels[1, 10:12, 3:9] = 1, 2
    result = pointed(result_of(ct_series(voxels=np.zeros((4, 16, 16), np.int16)), tmp_path / "s", labels))
    writer = Writer()
    objects = writer.write(result, tmp_path / "r")
    writer.verify(result, objects)
    seg, report = (dcmread(item.path) for item in objects)
    first, second = seg.SegmentSequence
    assert (first.SegmentAlgorithmType, first.TrackingID, first.TrackingUID) == (
        "SEMIAUTOMATIC",
        "Läsion 7",
        "1.2.3.7",
    )
    assert second.TrackingID == "lungs right_lung"
    assert {item.UID for item in named(report, "112040")} == {"1.2.3.7", second.TrackingUID}
    sources = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in walk(report)
        if item.ValueType == "COMPOSITE"
    ]
    assert set(sources) == {"1.2.9"}
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [item.SeriesInstanceUID for item in series][-1] == "1.2.8"


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_segment_of_a_picture_is_a_planar_region(tmp_path: Path, frames: int, kind: str) -> None:
    result = picture_result(xa_cine(frames), tmp_path / "s")
    writer = Writer(default=Profile(name="own", options=Options(segmentation=kind)))  # type: ignore[arg-type]
    objects = writer.write(result, tmp_path / "r")
    writer.verify(result, objects)
    report = dcmread(objects[-1].path)
    assert {g.ContentTemplateSequence[0].TemplateIdentifier for g in named(report, "125007")} == {"1410"}
    assert len(named(report, "121214")) == 2 == len(named(report, "121233"))
    assert len([item for item in walk(report) if item.ValueType == "SCOORD"]) == 2
    assert not named(report, "103339001")  # nothing says how long a pixel is


def test_a_calibrated_picture_has_a_length(tmp_path: Path) -> None:
    result = picture_result(xa_cine(1), tmp_path / "s")
    shape = result.grid.shape
    assert isinstance(result.grid, Raster)
    plain = replace(result, grid=Raster(shape=shape, spacing_mm=(0.5, 0.5), spacing_origin="PixelSpacing"))
    assert len(named(report_of(plain, tmp_path / "a"), "103339001")) == 2
    at_detector = replace(
        result, grid=Raster(shape=shape, spacing_mm=(0.5, 0.5), spacing_origin="ImagerPixelSpacing")
    )
    assert not named(report_of(at_detector, tmp_path / "b"), "103339001")


# -- Faults that the check must notice -------------------------------------------------------------------------


def _box(report: Dataset) -> None:
    (line,) = [item for item in walk(report) if item.ValueType == "SCOORD"]
    line.GraphicData = [2, 3, 9.5, 3, 9.5, 8, 2, 8, 2, 3]


def _certainty(report: Dataset) -> None:
    value = named(report, "111012")[0].MeasuredValueSequence[0]
    value.NumericValue, value.FloatingPointValue = "97.5", 97.5


def _score(report: Dataset) -> None:
    value = named(report, "111047")[0].MeasuredValueSequence[0]
    value.NumericValue, value.FloatingPointValue = "1.25", 1.25


def _impression(report: Dataset) -> None:
    named(report, "121073")[0].TextValue = "Not normal."


def _other_image(report: Dataset) -> None:
    reference = named(report, "121324")[0].ReferencedSOPSequence[0]
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    reference.ReferencedSOPInstanceUID = evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID


def _lost(report: Dataset) -> None:
    container = next(i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
    container.ContentSequence = container.ContentSequence[:-1]


@pytest.mark.parametrize("spoil", [_box, _certainty, _score, _impression, _other_image, _lost])
def test_a_report_that_says_something_else_is_not_sent(tmp_path: Path, spoil: Callable[[Dataset], None]) -> None:
    findings = Findings(
        labels=None, detections=(detection(image=2),), measurements=(series_score(),), impression="Normal."
    )
    result, writer = volume_result(tmp_path / "s", findings), Writer()
    (item,) = writer.write(result, tmp_path / "r")
    _spoil(item, spoil)
    with pytest.raises(VerificationFailed):
        writer.verify(result, [item])


def _spoil(item: ResultObject, spoil: Callable[[Dataset], None]) -> None:
    ds = dcmread(item.path)
    spoil(ds)
    ds.save_as(item.path)


STRAY = "first line\r\n\tsecond\x00\x1b$B line\x85\ud800 \n "


def test_stray_characters_of_a_model_do_not_cost_its_result(tmp_path: Path) -> None:
    question = Code("1", "99TEST", "Impression of quality")
    said = tuple(Evaluation(segment=None, concept=question, value=value) for value in (STRAY, " \x00", ""))
    findings = Findings(labels=None, narrative=STRAY, impression="\x07", evaluations=said)
    result = result_of(ct_series(), tmp_path / "in", findings=findings)
    ds = report_of(result, tmp_path)
    texts = [item.TextValue for item in walk(ds) if "TextValue" in item]
    assert texts.count("first line\r\n\tsecond  $B line") == 2
    assert all(texts)


def test_a_text_that_goes_over_a_page_is_no_fault_of_the_document(tmp_path: Path) -> None:
    findings = Findings(labels=None, narrative="The heart is of normal size. " * 300)
    result = result_of(ct_series(), tmp_path / "in", findings=findings)
    writer = Writer(default=BUILT_IN["pacs-basic"])
    objects = writer.write(result, tmp_path)
    writer.verify(result, objects)
    assert "PDF" in {item.kind for item in objects}
