"""Numbers, units and names as people read them, on pictures and pages."""

from __future__ import annotations

import math

from domain.codes import Code
from domain.findings import Evaluation, Findings, Measurement

NOT_FOR_DIAGNOSIS = "Not for primary diagnosis"
"""Stands on every picture and page."""
_UNITS = {
    "[hnsf'U]": "HU",
    "{SUVbw}g/ml": "g/ml SUVbw",
    "1": "",
    "mm2": "mm²",
    "mm3": "mm³",
    "cm2": "cm²",
    "cm3": "cm³",
}
"""UCUM codes that nobody reads as they are."""


def number(value: float) -> str:
    """Return four significant digits without exponent where that is readable; whole numbers from 1000 on."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 9:
        return f"{value:.3e}"
    text = f"{value:.{max(0, 3 - magnitude)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def unit(code: Code) -> str:
    """Return a unit as it is written beside a number."""
    said = _UNITS.get(code.value, code.value if code.scheme == "UCUM" else code.meaning)
    return said.strip("{}") if said.startswith("{") and said.endswith("}") else said


def measured(measurement: Measurement) -> str:
    """Return value and unit."""
    return f"{number(measurement.value)} {unit(measurement.unit)}".rstrip()


def name(measurement: Measurement) -> str:
    """Return what was measured."""
    if measurement.label:
        return measurement.label
    derived = f"{measurement.derivation.meaning} of " if measurement.derivation else ""
    return f"{derived}{measurement.concept.meaning}"


def statement(evaluation: Evaluation) -> str:
    """Return a statement in one line."""
    value = evaluation.value.meaning if isinstance(evaluation.value, Code) else evaluation.value
    return f"{evaluation.concept.meaning}: {value}"


def probability(value: float | None) -> str:
    """Return a probability in percent; empty where there is none."""
    return "" if value is None else f"{value * 100:.0f} %"


def labels_of(findings: Findings) -> dict[str | None, str]:
    """Return the name of each segment by key; ``None`` is the whole series."""
    names: dict[str | None, str] = {segment.key: segment.label for segment in findings.segments}
    return {**names, None: "Whole series"}
