"""The context of a stack for people: ``voxgate inspect --context``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from domain.context import StudyContext
from gateway.terminal import print_table, say

_UNITS = {"_y": "years", "_m": "m", "_kg": "kg", "_kg_m2": "kg/m²", "_kv": "kV", "_mm": "mm", "_t": "T"}


def print_contexts(contexts: Sequence[tuple[int, StudyContext]]) -> None:
    """Print every value with its unit and source, then the notes; contexts have the numbers of their stacks."""
    rows = [(number, *row) for number, context in contexts for row in context_rows(context)]
    print_table(("#", "Context", "Value", "Read from"), rows)
    for number, context in contexts:
        for note in context.notes:
            say(f"#{number}: {note}")


def context_rows(context: StudyContext) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and source of what is known, in the order of the fields."""
    said = context.as_dict()["values"]
    if not isinstance(said, dict):
        raise TypeError("values are a dictionary")
    for name, value in said.items():
        sources = context.sources.get("patient_age_y" if name == "patient_age_decade" else name, ())
        label, unit = _named(name)
        yield label, " ".join(filter(None, (_shown(value), unit))), "\n".join(map(str, sources))
    if context.comparison is not None:
        yield "comparison", context.comparison, "\n".join(map(str, context.sources.get("priors", ())))


def _named(name: str) -> tuple[str, str]:
    suffix = max((end for end in _UNITS if name.endswith(end)), key=len, default="")
    return name.removesuffix(suffix).replace("_", " "), _UNITS.get(suffix, "")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['meaning']} ({value['value']}, {value['scheme']})"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
