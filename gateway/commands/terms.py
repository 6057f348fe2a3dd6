"""``voxgate terms``."""

from __future__ import annotations

from domain.codes import Code
from gateway.terminal import print_json, print_table
from inference.terminology import Terminology


def list_terms(words: str, *, as_json: bool) -> None:
    """List the structures that have codes of the DICOM Standard, and those that have none."""
    terminology = Terminology()
    found = [item for item in terminology.structures() if words.lower() in item.key]
    omitted = {name: code for name, code in terminology.omitted().items() if words.lower() in name}
    if as_json:
        print_json(
            [
                {
                    "structure": item.key,
                    "label": item.label,
                    "category": _json(item.category),
                    "type": _json(item.type),
                    "type_modifiers": [_json(code) for code in item.type_modifiers],
                    "anatomic_region": _json(item.anatomic_region) if item.anatomic_region else None,
                    "colour_rgb": list(item.colour_rgb),
                }
                for item in found
            ]
        )
        return
    print_table(
        ("Structure", "Category", "Type", "Side", "Region"),
        [
            (
                item.key,
                item.category.meaning,
                _text(item.type),
                ", ".join(code.meaning for code in item.type_modifiers) or "-",
                _text(item.anatomic_region) if item.anatomic_region else "-",
            )
            for item in found
        ]
        + [(name, "-", "no code of the DICOM Standard", "-", "-") for name in omitted],
    )


def _json(code: Code) -> list[str]:
    return [code.value, code.scheme, code.meaning]


def _text(code: Code) -> str:
    return f"{code.meaning} ({code.scheme} {code.value})"
