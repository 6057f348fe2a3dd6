"""What part of the body is meant: BodyPartExamined, codes and descriptions to one SNOMED CT code.

``body_parts.csv`` holds the defined terms of PS3.16 Annex L (DICOM 2024) with their codes and meanings. Its column
``former_codes`` has the SNOMED-RT identifiers and the retired SNOMED CT codes of the same table in earlier editions,
``spellings`` what modalities write in (0018,0015) instead of the terms, ``words`` what stands for the part in
descriptions (``~`` joins a phrase). The last two are ours.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from domain.codes import Code

_TOGETHER = {
    frozenset({"CHEST", "ABDOMEN"}): "CHESTABDOMEN",
    frozenset({"CHEST", "ABDOMEN", "PELVIS"}): "CHESTABDPELVIS",
    frozenset({"CHEST", "PELVIS"}): "CHESTABDPELVIS",
    frozenset({"ABDOMEN", "PELVIS"}): "ABDOMENPELVIS",
    frozenset({"NECK", "CHEST"}): "NECKCHEST",
    frozenset({"NECK", "CHEST", "ABDOMEN"}): "NECKCHESTABDOMEN",
    frozenset({"NECK", "CHEST", "ABDOMEN", "PELVIS"}): "NECKCHESTABDPELV",
    frozenset({"HEAD", "NECK"}): "HEADNECK",
    frozenset({"HEAD", "BRAIN"}): "HEAD",
    frozenset({"HEART", "CORONARYARTERY"}): "CORONARYARTERY",
    frozenset({"TSPINE", "LSPINE"}): "TLSPINE",
    frozenset({"CSPINE", "TSPINE"}): "CTSPINE",
    frozenset({"CSPINE", "SPINE"}): "CSPINE",
    frozenset({"TSPINE", "SPINE"}): "TSPINE",
    frozenset({"LSPINE", "SPINE"}): "LSPINE",
}


@dataclass(frozen=True, slots=True)
class _Tables:
    terms: Mapping[str, Code]
    spellings: Mapping[str, str]
    codes: Mapping[str, Code]
    words: Mapping[str, str]
    """Phrase to term."""
    phrases: re.Pattern[str]


def from_term(text: str) -> tuple[Code | None, bool]:
    """Return the part that a value of BodyPartExamined means, and whether it is a defined term."""
    tables = _tables()
    key = re.sub(r"[^A-Z]", "", unicodedata.normalize("NFKD", text).upper())
    if key in tables.terms:
        return tables.terms[key], True
    spelled = tables.spellings.get(key)
    return (tables.terms[spelled] if spelled else None), False


def from_code(value: str, scheme: str) -> Code | None:
    """Return the part that a code means, if it is one of the table in any of its schemes (PS3.16 8.1)."""
    return _tables().codes.get(value.strip()) if scheme.strip() in ("SCT", "SRT", "SNM3", "99SDM") else None


def from_words(text: str) -> Code | None:
    """Return the one part that a description names; nothing where it names several that are no region together."""
    tables = _tables()
    plain = " ".join(re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", text).lower()))
    found = frozenset(tables.words[match.group()] for match in tables.phrases.finditer(plain))
    term = next(iter(found)) if len(found) == 1 else _TOGETHER.get(found)
    return tables.terms[term] if term else None


@cache
def _tables() -> _Tables:
    terms: dict[str, Code] = {}
    spellings: dict[str, str] = {}
    codes: dict[str, Code] = {}
    words: dict[str, str] = {}
    with Path(__file__).with_name("body_parts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            term, code = row["term"], Code(row["code"], "SCT", row["meaning"])
            terms[term] = code
            spellings |= dict.fromkeys(row["spellings"].split(), term)
            codes |= dict.fromkeys((row["code"], *row["former_codes"].split()), code)
            words |= {word.replace("~", " "): term for word in row["words"].split()}
    longest_first = sorted(words, key=len, reverse=True)
    phrases = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")
    return _Tables(terms, spellings, codes, words, phrases)
