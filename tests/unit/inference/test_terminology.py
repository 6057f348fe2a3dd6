"""Codes of manifests, and the table of structures, against pydicom's code dictionary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from typer.testing import CliRunner

from domain.codes import LEFT, Code
from domain.errors import ConfigurationError
from gateway.cli import app
from inference.manifest import read_declaration
from inference.registry import ENGINES
from inference.terminology import Terminology

TERMS = Terminology()
MANIFEST = (ENGINES / "lungs" / "manifest.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (Code("39607008", "SCT", "Lung"), None),
        (Code("39607008", "SCT", "lung structure"), None),
        (Code("39607008", "SCT", "Heart"), "does not mean 'Heart'"),
        (Code("39607009", "SCT", "Lung"), "is not a code of the DICOM Standard"),
        (Code("T-28000", "SRT", "Lung"), "is retired"),
        (Code("LAA950", "99VOXGATE", "Lung volume below -950 HU"), None),
        (Code("1", "ACME", "x"), "is not a code of the DICOM Standard"),
    ],
)
def test_a_code_is_one_of_the_standard_with_its_meaning(code: Code, says: str | None) -> None:
    fault = TERMS.fault(code)
    assert (fault is None) if says is None else (fault is not None and says in fault)


def test_every_structure_has_codes_of_the_standard_and_a_colour() -> None:
    structures = TERMS.structures()
    assert len(structures) > 104
    assert not {item.key for item in structures} & set(TERMS.omitted())
    for item in structures:
        held = (item.category, item.type, *item.type_modifiers, item.anatomic_region)
        faults = [TERMS.fault(code) for code in held if code is not None]
        assert faults == [None] * len(faults), item.key
        assert all(0 <= value <= 255 for value in item.colour_rgb)


def test_every_category_is_one_of_context_group_7150_and_every_type_is_in_some() -> None:
    categories = {str(getattr(codes.cid7150, name).value) for name in codes.cid7150.dir()}
    dictionary: Any = concepts
    in_a_group = {v for held in dictionary["SCT"].values() for v, (_, groups) in held.items() if groups}
    for item in TERMS.structures():
        assert item.category.value in categories, item.key
        assert item.type.value in in_a_group, item.key


def test_sides_are_said_where_the_name_says_them_and_nowhere_else() -> None:
    for item in TERMS.structures():
        said = {code.meaning.lower() for code in item.type_modifiers} | set(item.type.meaning.lower().split())
        assert said & {"left", "right"} == set(item.key.split("_")) & {"left", "right"}, item.key


def test_what_is_left_out_is_not_in_the_dictionary() -> None:
    for name, code in TERMS.omitted().items():
        assert TERMS.fault(code) is not None, name


def test_pydicom_has_the_codes_under_its_public_names_too() -> None:
    liver = TERMS.structure("liver")
    assert liver is not None
    assert PydicomCode(liver.type.value, "SCT", "x") == codes.SCT.Liver


def test_every_manifest_of_ours_passes() -> None:
    for path in ENGINES.glob("*/manifest.toml"):
        read_declaration(path, TERMS)


def written(folder: Path, old: str, new: str) -> Path:
    assert old in MANIFEST
    path = folder / "manifest.toml"
    path.write_text(MANIFEST.replace(old, new), "utf-8")
    return path


def test_a_manifest_with_a_wrong_digit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 'type = ["39607008"', 'type = ["39607080"')
    with pytest.raises(ConfigurationError, match=r"segments\[0\]\.type: \(39607080, SCT\) is not a code"):
        read_declaration(path)


def test_a_manifest_with_the_code_of_another_organ_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 'type = ["39607008", "SCT", "Lung"]', 'type = ["10200004", "SCT", "Lung"]')
    with pytest.raises(ConfigurationError, match="does not mean 'Lung', but"):
        read_declaration(path)


def test_a_manifest_takes_structures_by_name(tmp_path: Path) -> None:
    head, *_ = MANIFEST.partition("[[segments]]")
    path = tmp_path / "manifest.toml"
    path.write_text(f'{head}[[segments]]\nstructure = "liver"\n[[segments]]\nstructure = "rib_left_3"\nkey = "rib"\n')
    liver, rib = read_declaration(path).manifest.segments
    assert (liver.key, liver.label, liver.type) == ("liver", "Liver", Code("10200004", "SCT", "Liver"))
    assert (rib.key, rib.label, rib.type_modifiers) == ("rib", "Rib left 3", (LEFT,))


@pytest.mark.parametrize(("name", "why"), [("livr", "voxgate terms lists"), ("gluteus_maximus", "not in the DICOM")])
def test_a_structure_that_is_not_there_is_refused(tmp_path: Path, name: str, why: str) -> None:
    head, *_ = MANIFEST.partition("[[segments]]")
    path = tmp_path / "manifest.toml"
    path.write_text(f'{head}[[segments]]\nstructure = "{name}"\n')
    with pytest.raises(ConfigurationError, match=why) as caught:
        read_declaration(path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_command_lists_structures() -> None:
    listed = CliRunner().invoke(app, ["terms", "kidney", "--json"])
    assert listed.exit_code == 0
    rows = {row["structure"]: row for row in json.loads(listed.stdout)}
    assert rows["kidney_left"]["type_modifiers"] == [["7771000", "SCT", "Left"]]
    assert "no code of the DICOM Standard" in CliRunner().invoke(app, ["terms", "gluteus"]).stdout
