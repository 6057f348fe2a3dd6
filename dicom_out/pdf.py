"""A report for people as DICOM Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from dicom_out import wording
from dicom_out.codes import DIAGNOSTIC_IMAGING_REPORT, IMAGING_MEASUREMENT_REPORT, SOURCE_IMAGE
from dicom_out.derived import code_item, local_time
from dicom_out.encoding import element, encoded_dataset, part10, tag_of
from dicom_out.fonts import written
from dicom_out.general import describe_annotation, reference
from dicom_out.identity import identity
from dicom_out.keyimages import KeyImage, plain_image
from dicom_out.pages import Report, TableOf, pdf_of
from dicom_out.sc import Begin
from dicom_out.source import Source, decoded, string_values
from domain.findings import Detection, Findings, SegmentDescription
from domain.ports import Result

_PICTURES = 2
"""A report is read on one or two pages; the Secondary Captures hold the other key images."""
_SEX = {"M": "male", "F": "female", "O": "other"}
_ELSEWHERE = "see the DICOM header: written in a script that this page has no font for"


def encode_pdf(
    begin: Begin,
    result: Result,
    source: Source,
    pictures: Sequence[KeyImage],
    *,
    declared: tuple[str, ...],
    identified: bool = True,
    zone: tzinfo | None = None,
) -> list[list[bytes]]:
    """Return the report as a Part 10 file, in pieces.

    Parameters
    ----------
    begin
        Called with the instance's number, 1.
    pictures
        The key images of the result; the most telling are shown.
    declared
        Character set of the object.
    identified
        Whether the pages name the patient, as reports do; the DICOM header does in any case.
    zone
        Where the time of the analysis is local; ``None`` is the machine's zone.
    """
    plain = None if pictures else plain_image(result)
    shown = _most_telling(pictures, result.findings) if plain is None else [plain]
    pdf = pdf_of(_report(result, source, shown, identified=identified, zone=zone))
    ds = begin(1)
    ds.SOPClassUID = EncapsulatedPDFStorage
    _describe_document(ds, result, source, shown)
    ds.EncapsulatedDocumentLength = len(pdf)
    elements = encoded_dataset(ds, declared) | identity(source.header, declared)
    elements[tag_of("EncapsulatedDocument")] = element("EncapsulatedDocument", pdf)
    return [part10(ds.SOPClassUID, ds.SOPInstanceUID, elements)]


def _most_telling(pictures: Sequence[KeyImage], findings: Findings) -> list[KeyImage]:
    """Return the pictures with the most on them, in slice order."""

    def located(key: KeyImage) -> float:
        boxes = sum(detection.image == key.index for detection in findings.detections)
        points = sum(bool(m.points) and round(m.points[0][0]) == key.index for m in findings.measurements)
        return boxes + points + _covered(findings, key.index)

    best = sorted(pictures, key=located, reverse=True)[:_PICTURES]
    return sorted(best, key=lambda key: key.index)


def _covered(findings: Findings, k: int) -> float:
    """Return the share of a slice that masks cover."""
    if findings.labels is not None and k < len(findings.labels):
        return float((findings.labels[k] > 0).mean())
    return max((float(mask[k].mean()) for mask in findings.masks if k < len(mask)), default=0.0)


def _describe_document(ds: Dataset, result: Result, source: Source, pictures: list[KeyImage]) -> None:
    """Encapsulated Document Series and Encapsulated Document Modules (PS3.3 C.24)."""
    title = DIAGNOSTIC_IMAGING_REPORT if result.findings.narrative else IMAGING_MEASUREMENT_REPORT
    ds.ConversionType = "WSD"
    ds.AcquisitionDateTime = ""
    describe_annotation(ds, source)
    ds.DocumentTitle = f"AI report: {result.manifest.title}"
    ds.ConceptNameCodeSequence = [code_item(title)]
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.VerificationFlag = "UNVERIFIED"
    shown = [source.images[key.index] for key in pictures] or [source.images[0]]
    ds.SourceInstanceSequence = [reference(image, SOURCE_IMAGE) for image in shown]


def _report(
    result: Result, source: Source, pictures: list[KeyImage], *, identified: bool, zone: tzinfo | None
) -> Report:
    findings = result.findings
    sections = [("Findings", findings.narrative), ("Impression", findings.impression)]
    statements = [
        _said(evaluation.segment, wording.statement(evaluation), findings) for evaluation in findings.evaluations
    ]
    absent = [f"{segment.label}: absent" for segment in absent_segments(findings)]
    return Report(
        title=result.manifest.title,
        running=_running(source, identified=identified),
        facts=[*(_patient(source) if identified else []), *_study(source), ("Analysed", _when(result, source, zone))],
        sections=[(heading, text) for heading, text in sections if text] or _nothing(findings),
        tables=[*_measurements(findings), *_detections(findings)],
        statements=[*statements, *absent],
        pictures=[key.picture for key in pictures],
        about=_about(result),
    )


def absent_segments(findings: Findings) -> list[SegmentDescription]:
    """Return what was looked for and not found."""
    if findings.labels is not None:
        present = set(np.unique(findings.labels).tolist())
        return [segment for number, segment in enumerate(findings.segments, 1) if number not in present]
    return [segment for segment, mask in zip(findings.segments, findings.masks, strict=False) if not mask.any()]


def _nothing(findings: Findings) -> list[tuple[str, str]]:
    located = findings.shape is not None and len(absent_segments(findings)) < len(findings.segments)
    if located or findings.detections or findings.measurements or findings.evaluations:
        return []
    return [("Findings", "Nothing was found.")]


def _said(key: str | None, text: str, findings: Findings) -> str:
    return text if key is None else f"{wording.labels_of(findings)[key]}: {text}"


def _when(result: Result, source: Source, zone: tzinfo | None) -> str:
    return local_time(result.started_at, source.header, zone).strftime("%Y-%m-%d %H:%M %z")


def _running(source: Source, *, identified: bool) -> str:
    if not identified:
        return "AI report"
    return ", ".join(value for name, value in _patient(source) if name in ("Patient", "Patient ID") and value)


def _patient(source: Source) -> list[tuple[str, str]]:
    """Return whose report it is, as the header says it and the page can show it."""
    sex = (string_values(source.header, "PatientSex") or [""])[0]
    facts = [
        ("Patient", _name(source)),
        ("Patient ID", _value(source, "PatientID")),
        ("Born", _date(source, "PatientBirthDate")),
        ("Sex", _SEX.get(sex, "")),
        ("Accession no.", _value(source, "AccessionNumber")),
    ]
    return [(name, value) for name, value in facts if value]


def _name(source: Source) -> str:
    """Return the first writing of the name (PS3.5 Section 6.2.1) that the page has letters for."""
    value = str(decoded(source.header, "PatientName").value or "")
    if not value.strip("^= "):
        return ""
    for group in value.split("="):
        family, _, rest = group.partition("^")
        parts = [family.strip(), " ".join(part for part in rest.split("^")[:2] if part).strip()]
        name = ", ".join(part for part in parts if part)
        if name and written(name).is_whole:
            return name
    return _ELSEWHERE


def _value(source: Source, keyword: str) -> str:
    value = str(decoded(source.header, keyword).value or "").strip()
    return value if written(value).is_whole else _ELSEWHERE


def _date(source: Source, keyword: str) -> str:
    value = (string_values(source.header, keyword) or [""])[0]
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdecimal() else ""


def _study(source: Source) -> list[tuple[str, str]]:
    modality = (string_values(source.header, "Modality") or [""])[0]
    number = (string_values(source.header, "SeriesNumber") or [""])[0]
    images = f"{len(source.images)} images" if len(source.images) > 1 else "1 image"
    facts = [
        ("Study date", _date(source, "StudyDate")),
        ("Modality", modality),
        ("Body part", (string_values(source.header, "BodyPartExamined") or [""])[0]),
        ("Series", ", ".join(part for part in (number, images) if part)),
    ]
    return [(name, value) for name, value in facts if value]


def _measurements(findings: Findings) -> list[TableOf]:
    if not findings.measurements:
        return []
    names = wording.labels_of(findings)
    rows = [
        [names[m.segment], wording.name(m), wording.number(m.value), wording.unit(m.unit)]
        for m in findings.measurements
    ]
    heading = ["Structure", "Measurement", "Value", "Unit"]
    return [TableOf(title="Measurements", rows=[heading, *rows], widths=(0.28, 0.42, 0.16, 0.14))]


def _detections(findings: Findings) -> list[TableOf]:
    if not findings.detections:
        return []
    rows = [[d.label, wording.probability(d.probability), f"{d.image + 1}", _box(d)] for d in findings.detections]
    heading = ["Detection", "Probability", "Image", "Columns, rows (pixels)"]
    return [TableOf(title="Detections", rows=[heading, *rows], widths=(0.36, 0.16, 0.12, 0.36))]


def _box(detection: Detection) -> str:
    x0, y0, x1, y1 = (f"{value:.0f}" for value in detection.box)
    return f"{x0} to {x1}, {y0} to {y1}"


def _about(result: Result) -> list[tuple[str, str]]:
    manifest = result.manifest
    facts = [
        ("Model", manifest.name),
        ("Version", manifest.version),
        ("Manufacturer", manifest.manufacturer),
        ("Licence", manifest.licence),
        ("Algorithm", manifest.algorithm_name),
        ("Weights", manifest.weights_digest[:16]),
        ("Intended use", manifest.intended_use),
        ("Job", result.job_id[:16]),
    ]
    return [(name, value) for name, value in facts if value]
