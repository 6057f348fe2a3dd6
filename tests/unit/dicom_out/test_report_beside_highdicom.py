"""Our report beside highdicom's, from the same findings: the same content, item by item."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
from highdicom_report import highdicom_report
from pydicom import dcmread
from pydicom.dataset import Dataset
from results import many_segments

from dicom_out import codes
from dicom_out.kind import Work, WriterSettings
from dicom_out.source import read_source
from dicom_out.writer import Writer


def test_the_content_of_a_report_is_that_of_highdicoms(tmp_path: Path) -> None:
    result = many_segments(tmp_path / "source", 20)
    seg, report = (dcmread(item.path) for item in Writer().write(result, tmp_path / "results"))
    work = Work(result, read_source(result.source_paths), WriterSettings())
    highdicom_report(
        result,
        [dcmread(path) for path in result.source_paths],
        seg,
        work.lines,
        procedure=codes.PROCEDURES["CT"],
        language=codes.ENGLISH,
    ).save_as(tmp_path / "theirs.dcm")
    theirs = dcmread(tmp_path / "theirs.dcm")
    assert _tree(report) == _tree(theirs)
    assert _evidence(report) == _evidence(theirs)
    content = highdicom.sr.Comprehensive3DSR.from_dataset(report).content
    assert isinstance(content, highdicom.sr.MeasurementReport)
    assert len(content.get_volumetric_roi_measurement_groups()) == 20


def _tree(item: Dataset) -> tuple[Any, ...]:
    """Return a content tree to compare: what each item says, and what is below it in any order.

    Not compared is how the text of a container is set (Continuity of Content), and the name of an image that
    coordinates are selected from, for which TID 1410 has none.
    """
    below = sorted((_tree(child) for child in item.get("ContentSequence", ())), key=repr)
    said = (
        () if item.get("RelationshipType") == "SELECTED FROM" else _code_in(item, "ConceptNameCodeSequence"),
        _code_in(item, "ConceptCodeSequence"),
        *(str(item.get(keyword, "")) for keyword in ("TextValue", "UID", "GraphicType")),
        tuple(float(x) for x in item.get("GraphicData", ())),
        *_number_in(item),
        *_references_in(item),
        tuple(str(template.TemplateIdentifier) for template in item.get("ContentTemplateSequence", ())),
    )
    return str(item.get("RelationshipType", "")), str(item.ValueType), said, tuple(below)


def _code_in(item: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(
        f"{code.get('CodeValue') or code.get('LongCodeValue')} {code.CodingSchemeDesignator}"
        for code in item.get(keyword, ())
    )


def _number_in(item: Dataset) -> Iterator[Any]:
    for measured in item.get("MeasuredValueSequence", ()):
        yield float(measured.NumericValue), _code_in(measured, "MeasurementUnitsCodeSequence")


def _references_in(item: Dataset) -> Iterator[Any]:
    keywords = (
        "ReferencedSOPClassUID",
        "ReferencedSOPInstanceUID",
        "ReferencedFrameNumber",
        "ReferencedSegmentNumber",
    )
    for reference in item.get("ReferencedSOPSequence", ()):
        yield tuple(str(reference.get(keyword) or "") for keyword in keywords)


def _evidence(sr: Dataset) -> set[tuple[str, ...]]:
    return {
        (str(study.StudyInstanceUID), str(series.SeriesInstanceUID), str(item.ReferencedSOPInstanceUID))
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
