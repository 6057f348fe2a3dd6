"""What tables and lists show of an engine's findings."""

from __future__ import annotations

from collections.abc import Iterator

from domain.findings import Findings


def summary(findings: Findings) -> list[dict[str, object]]:
    """Return what tables show: per segment its label, its measurements with units, and the statements about it.

    What is of no segment stands last, in an entry without one: numbers and statements about the whole, how many boxes
    were drawn, and how long a text is. The text itself may be about a patient, and is in the report alone.
    """
    entries = [_entry(findings, segment.key, segment.label) for segment in findings.segments]
    whole = _entry(findings, None, "")
    statements = [*_statements(findings, None), *_written(findings)]
    if statements or whole["measurements"]:
        entries.append({**whole, "statements": statements})
    return entries


def _entry(findings: Findings, key: str | None, label: str) -> dict[str, object]:
    return {
        "segment": key,
        "label": label,
        "measurements": [
            {"label": m.label or m.concept.meaning, "value": round(m.value, 4), "unit": m.unit.value}
            for m in findings.measurements
            if m.segment == key
        ],
        "statements": _statements(findings, key),
    }


def _statements(findings: Findings, key: str | None) -> list[str]:
    return [
        f"{e.concept.meaning}: {e.value if isinstance(e.value, str) else e.value.meaning}"
        for e in findings.evaluations
        if e.segment == key
    ]


def _written(findings: Findings) -> Iterator[str]:
    if findings.detections:
        yield f"{len(findings.detections)} boxes" if len(findings.detections) > 1 else "1 box"
    for name, text in (("text", findings.narrative), ("impression", findings.impression)):
        if text:
            yield f"{name} of {len(text)} characters"
