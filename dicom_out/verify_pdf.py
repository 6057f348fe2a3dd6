"""The check of a report in PDF: a whole PDF, whose text has every number and statement of the findings.

The text is read back from the pages by ``pdf_text``, which knows nothing of their layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pydicom.dataset import Dataset

from dicom_out import wording
from dicom_out.fonts import written
from dicom_out.pdf_text import NotReadable, PdfText, text_of
from dicom_out.verify_references import SourceNames
from domain.codes import Code
from domain.errors import VerificationFailed
from domain.findings import Findings
from domain.ports import Result

_RELATIVE = 6e-4
"""Numbers are written with four significant digits."""


def check_pdf(objects: Sequence[Dataset], result: Result) -> None:
    """Compare a report, read from its file, with the findings and the source.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    (ds,) = objects
    _check_header(ds)
    source = SourceNames.of(result)
    for item in ds.SourceInstanceSequence:
        source.index(item, "PDF")
    try:
        text = text_of(_document(ds))
    except NotReadable as error:
        raise VerificationFailed(f"PDF: {error}.") from error
    _check_pages(text)
    body = _body(text)
    _check_words(body, result)
    _check_numbers(body, result.findings)


def _check_header(ds: Dataset) -> None:
    if ds.MIMETypeOfEncapsulatedDocument != "application/pdf" or ds.BurnedInAnnotation != "YES":
        raise VerificationFailed("PDF: it does not say what it is, or that it is annotated.")
    if not ds.DocumentTitle or not ds.ConceptNameCodeSequence or ds.ConversionType != "WSD":
        raise VerificationFailed("PDF: it has no title.")


def _document(ds: Dataset) -> bytes:
    held, length = bytes(ds.EncapsulatedDocument), int(ds.EncapsulatedDocumentLength)
    if len(held) % 2 or not 0 <= len(held) - length <= 1:
        raise VerificationFailed("PDF: EncapsulatedDocumentLength is not the document's.")
    return held[:length]


def _check_pages(text: PdfText) -> None:
    for number, page in enumerate(text.pages, start=1):
        if f"{number} / {len(text.pages)}" not in page or wording.NOT_FOR_DIAGNOSIS not in page:
            raise VerificationFailed(f"PDF: page {number} lacks its number, or what it must not be used for.")


def _body(text: PdfText) -> str:
    """Return the text of all pages without their heads and feet, which come first: a paragraph may go over a page."""
    return " ".join(page.partition(f"{wording.NOT_FOR_DIAGNOSIS}.")[2] for page in text.pages)


def _check_words(text: str, result: Result) -> None:
    """What the report must say in words, in any line breaks."""
    manifest, findings = result.manifest, result.findings
    wanted = [manifest.name, manifest.version, manifest.licence, manifest.intended_use]
    wanted += [findings.narrative, findings.impression]
    for evaluation in findings.evaluations:
        value = evaluation.value
        wanted.append(f"{evaluation.concept.meaning}: {value.meaning if isinstance(value, Code) else value}")
    wanted += [detection.label for detection in findings.detections]
    squeezed = _squeezed(text)
    for words in wanted:
        paragraphs = (_squeezed(written(part.strip()).text) for part in words.splitlines())
        if not all(paragraph in squeezed for paragraph in paragraphs):
            raise VerificationFailed("PDF: it lacks a statement, or what it must say about the model.")


def _squeezed(text: str) -> str:
    """Return a text without spaces: where a line breaks is no matter."""
    return "".join(text.split())


def _check_numbers(text: str, findings: Findings) -> None:
    """Every measurement is a row: structure, what was measured, the value, the unit."""
    names = wording.labels_of(findings)
    for measurement in findings.measurements:
        head = _squeezed(written(names[measurement.segment]).text + written(wording.name(measurement)).text)
        unit = _squeezed(written(wording.unit(measurement.unit)).text)
        row = re.escape(head) + r"(-?\d[\d.]*(?:e[+-]\d+)?)" + re.escape(unit)
        values = [float(found) for found in re.findall(row, _squeezed(text))]
        if not any(math.isclose(value, measurement.value, rel_tol=_RELATIVE, abs_tol=1e-12) for value in values):
            raise VerificationFailed("PDF: a measurement is missing, or is not the engine's number.")
    for detection in findings.detections:
        if detection.probability is not None:
            said = f"{written(detection.label).text}{detection.probability * 100:.0f}%"
            if _squeezed(said) not in _squeezed(text):
                raise VerificationFailed("PDF: a probability is missing, or is not the engine's.")
