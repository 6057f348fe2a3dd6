"""A report in words as an SR document after TID 2000 Basic Diagnostic Imaging Report (PS3.16).

For destinations that show text and no measurements. The same content in Basic Text, Enhanced and Comprehensive SR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dicom_out import codes, wording
from dicom_out.content import MODIFIES, Item, code, container, text
from dicom_out.document import describe_document, observer, written
from dicom_out.kind import Encoded, Order
from domain.codes import Code
from domain.findings import Findings
from domain.ports import Result


def encode_text_sr(order: Order) -> Iterator[Encoded]:
    """Yield the report."""
    ds = order.begin()
    describe_document(order, ds)
    manifest = order.result.manifest
    tree = [
        code(codes.LANGUAGE, codes.ENGLISH, MODIFIES),
        *observer(manifest),
        _section(codes.PROCEDURE_DESCRIPTIONS, codes.PROCEDURE_DESCRIPTION, [_about(order.result)]),
        *_sections(order.result),
    ]
    root = container(codes.DIAGNOSTIC_IMAGING_REPORT, tree, relationship=None, template="2000")
    yield Encoded(pieces=written(ds, root, order.source, order.declared))


def _sections(result: Result) -> Iterator[Item]:
    found = list(paragraphs(result.findings))
    if found:
        yield _section(codes.FINDINGS, codes.FINDING, found)
    if result.findings.impression:
        yield _section(codes.IMPRESSIONS, codes.IMPRESSION, [result.findings.impression])


def _section(name: Code, item: Code, said: Sequence[str]) -> Item:
    return container(name, [text(item, sentence) for sentence in said])


def _about(result: Result) -> str:
    manifest = result.manifest
    return (
        f"Automatic analysis by {manifest.title} ({manifest.algorithm_name} {manifest.version}, "
        f"{manifest.manufacturer}). {wording.NOT_FOR_DIAGNOSIS}. Not verified by a person."
    )


def paragraphs(findings: Findings) -> Iterator[str]:
    """Yield what was found, one paragraph for the narrative and one for each thing that was looked at."""
    if findings.narrative:
        yield findings.narrative
    for number, segment in enumerate(findings.segments, start=1):
        yield _line(segment.label, _said(findings, segment.key) or [_presence(findings, number)])
    for item in findings.detections:
        probability = wording.probability(item.probability)
        yield f"{item.label}: {item.type.meaning}{probability and f', probability {probability}'}."
    whole = _said(findings, None)
    if whole:
        yield _line("Whole series", whole)
    if not (findings.narrative or findings.impression or findings.segments or findings.detections or whole):
        yield "Nothing was found."


def _line(subject: str, said: Sequence[str]) -> str:
    return f"{subject}: {'; '.join(said)}."


def _presence(findings: Findings, number: int) -> str:
    """Say whether a segment of which nothing else is said was found."""
    if findings.shape is None:
        return "nothing was measured"
    has_voxels = findings.masks[number - 1].any() if findings.masks else bool(np.any(findings.labels == number))
    return "found" if has_voxels else "not found"


def _said(findings: Findings, key: str | None) -> list[str]:
    numbers = [
        f"{wording.name(item)} {_plain(wording.measured(item))}"
        for item in findings.measurements
        if item.segment == key
    ]
    return numbers + [wording.statement(item) for item in findings.evaluations if item.segment == key]


def _plain(words: str) -> str:
    """Write exponents in ASCII: the character set of the object is chosen by the engine's texts alone."""
    return words.replace("²", "2").replace("³", "3")
