"""The codes that a manifest may use: those of the DICOM Standard, with the meaning that they have there.

The authority is pydicom's code dictionary, which is made of PS3.16; ``terms/allowed.toml`` adds, one by one and with
the reason, what it lacks. Nothing is guessed: a wrong digit is another organ.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from domain.codes import Code
from domain.errors import ConfigurationError
from domain.findings import SegmentDescription

_TERMS = Path(__file__).parent / "terms"
_PRIVATE = "99"
_FILLERS = re.compile(r"\(.*?\)|\b(structure|structures|of|the|region)\b")

Concepts = Mapping[tuple[str, str], tuple[str, ...]]


class Terminology:
    """Looks codes and structures up. Reads the dictionary when it is first asked; drop it when done: it is large."""

    def fault(self, code: Code) -> str | None:
        """Return why a code may not be used; ``None`` where it may.

        Private codes (schemes that begin with 99) are the engine's own affair.
        """
        if code.scheme.startswith(_PRIVATE):
            return None
        if code.scheme in ("SRT", "SNM3"):
            return f"the scheme {code.scheme} is retired; the SCT code of the concept is needed"
        meanings = self._meanings.get((code.value, code.scheme))
        if meanings is None:
            return f"({code.value}, {code.scheme}) is not a code of the DICOM Standard (PS3.16)"
        if _same(code.meaning) not in {_same(meaning) for meaning in meanings}:
            return f"({code.value}, {code.scheme}) does not mean {code.meaning!r}, but {meanings[0]!r}"
        return None

    def structure(self, name: str) -> SegmentDescription | None:
        """Return the description of a structure of ``terms/structures.toml``; ``None`` where there is none."""
        row = self._table["structures"].get(name)
        return None if row is None else _described(name, row)

    def structures(self) -> tuple[SegmentDescription, ...]:
        """Return every structure that a manifest may name."""
        return tuple(_described(name, row) for name, row in self._table["structures"].items())

    def omitted(self) -> dict[str, Code]:
        """Return the structures of the source whose codes are not in the DICOM Standard, with those codes."""
        return {name: Code(*code) for name, code in self._table["omitted"].items()}

    @cached_property
    def _table(self) -> Mapping[str, Any]:
        return tomllib.loads((_TERMS / "structures.toml").read_text("utf-8"))

    @cached_property
    def _meanings(self) -> Concepts:
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for scheme, keywords in _dictionary().items():
            for codes in keywords.values():
                for value, (meaning, _) in codes.items():
                    found[value, scheme] = (*found.get((value, scheme), ()), meaning)
        for entry in tomllib.loads((_TERMS / "allowed.toml").read_text("utf-8")).get("codes", ()):
            value, scheme, meaning = entry["code"]
            found[value, scheme] = (*found.get((value, scheme), ()), meaning)
        return found


def _dictionary() -> dict[str, dict[str, dict[str, tuple[str, list[int]]]]]:
    """Return pydicom's concepts: by scheme, keyword and value the meaning and the context groups.

    The file is loaded by itself, since its package imports ten times as much.
    """
    package = importlib.util.find_spec("pydicom")
    place = Path((package.submodule_search_locations or [""])[0]) if package else Path()
    spec = importlib.util.spec_from_file_location("voxgate_concepts", place / "sr" / "_concepts_dict.py")
    if spec is None or spec.loader is None:
        raise ConfigurationError("pydicom's code dictionary cannot be found; is the installation complete?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    concepts: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = module.concepts
    return concepts


def _same(meaning: str) -> str:
    """Return what wordings of one meaning have in common: ``Structure of aorta (body structure)`` is ``aorta``."""
    return " ".join(sorted(_FILLERS.sub(" ", meaning.lower()).split()))


def _described(name: str, row: Mapping[str, Any]) -> SegmentDescription:
    red, green, blue = row["colour_rgb"]
    return SegmentDescription(
        key=name,
        label=name.replace("_", " ").capitalize(),
        category=Code(*row["category"]),
        type=Code(*row["type"]),
        type_modifiers=tuple(Code(*code) for code in row.get("type_modifiers", ())),
        anatomic_region=Code(*row["anatomic_region"]) if "anatomic_region" in row else None,
        colour_rgb=(red, green, blue),
    )
