"""BodyPartExamined, codes and descriptions become one SNOMED CT code."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom.sr.codedict import Collection

import volume.body_parts
from volume.body_parts import from_code, from_term, from_words

ROWS = list(csv.DictReader(Path(volume.body_parts.__file__).with_name("body_parts.csv").open(encoding="utf-8")))


def test_every_code_of_the_table_is_one_of_dicom_with_that_meaning() -> None:
    """Compares with the copy of PS3.16 that pydicom carries, where it has the meaning."""
    known: dict[str, set[str]] = {}
    for cid in ("CID4", "CID4030", "CID4031", "CID4042"):
        for found in Collection(cid).concepts.values():
            known.setdefault(found.value, set()).add(found.meaning.lower().removeprefix("endo-"))
    compared = [row for row in ROWS if row["code"] in known]
    assert len(compared) > 120
    assert [
        row["term"]
        for row in compared
        if not known[row["code"]] & {row["meaning"].lower(), f"{row['term'].lower()}l"}
    ] == []


def test_terms_and_spellings_mean_one_part_each() -> None:
    spelled = [word for row in ROWS for word in (row["term"], *row["spellings"].split())]
    assert len(spelled) == len(set(spelled))
    words = [word for row in ROWS for word in row["words"].split()]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("text", "meaning", "is_defined"),
    [("CHEST", "Chest", True), ("Chest ", "Chest", True), ("THORAX", "Chest", False), ("CSPINE", "Cervical spine",
     True),
     ("C-SPINE", "Cervical spine", True), ("CHEST_ABD_PELVIS", "Chest, Abdomen and Pelvis", True),
     ("HWS", "Cervical spine", False), ("Schädel", None, False), ("", None, False), ("PARTIALBODY", None, False)],
)  # fmt: skip
def test_body_part_examined(text: str, meaning: str | None, is_defined: bool) -> None:
    code, defined = from_term(text)
    assert (None if code is None else code.meaning, defined) == (meaning, is_defined)


def test_codes_of_all_editions_are_known() -> None:
    for value, scheme in (("816094009", "SCT"), ("51185008", "SCT"), ("T-D3000", "SRT"), ("T-D3000", "SNM3")):
        assert from_code(value, scheme) == from_term("CHEST")[0]
    assert from_code("T-D3000", "99LOCAL") is None
    assert from_code("1", "SCT") is None


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("CT THORAX/ABDOMEN mit KM", "Chest and Abdomen"), ("Thorax^1HEAD_NECK_PETCT", None), ("t2_tse_sag L-spine",
     "Lumbar spine"),
     ("Thoracic Spine AP", "Thoracic spine"), ("CAP 3.0 B30f", "Chest, Abdomen and Pelvis"), ("Knee left", "Knee"),
     ("knee and hip", None), ("5 mm", None), ("lungen", None), ("Chest", "Chest")],
)  # fmt: skip
def test_descriptions_name_one_part_or_a_region(text: str, meaning: str | None) -> None:
    code = from_words(text)
    assert (None if code is None else code.meaning) == meaning
