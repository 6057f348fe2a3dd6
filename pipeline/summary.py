"""What tables and lists show of an engine's findings."""

from __future__ import annotations

from domain.findings import Findings


def summary(findings: Findings) -> list[dict[str, object]]:
    """Return what tables show: per segment its label, its measurements with units, and the statements about it."""
    return [
        {
            "segment": segment.key,
            "label": segment.label,
            "measurements": [
                {"label": m.label or m.concept.meaning, "value": round(m.value, 4), "unit": m.unit.value}
                for m in findings.measurements
                if m.segment == segment.key
            ],
            "statements": [
                f"{e.concept.meaning}: {e.value if isinstance(e.value, str) else e.value.meaning}"
                for e in findings.evaluations
                if e.segment == segment.key
            ],
        }
        for segment in findings.segments
    ]
