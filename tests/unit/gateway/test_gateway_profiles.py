from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_out.kinds import KINDS
from dicom_out.package import kind_name
from dicom_out.profile import BUILT_IN
from domain.errors import ConfigurationError
from gateway.commands.profiles import list_profiles
from gateway.config import Config, load_config
from gateway.profiles import profile_called, profiles, profiles_of_destinations

PACS = '[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "pacs"\nport = 104\nae_title = "PACS"\n'


def load(tmp_path: Path, toml: str) -> Config:
    file = tmp_path / "voxgate.toml"
    file.write_text(toml)
    return load_config(file, {}, engines=("lungs",))


def test_every_object_of_a_built_in_profile_is_of_a_known_kind() -> None:
    known = {kind.name for kind in KINDS}
    assert {kind_name(role, item.options) for item in BUILT_IN.values() for role in item.objects} <= known
    assert all(kind.fallback in known | {""} for kind in KINDS)
    assert all(item.why for item in BUILT_IN.values())


def test_names_of_kinds_fit_into_the_index() -> None:
    assert max(len(kind.name) for kind in KINDS) <= 16


def test_an_own_profile_is_a_built_in_one_with_changes(tmp_path: Path) -> None:
    toml = '[profiles.ward]\nbase = "weasis"\nobjects = ["seg", "text-sr", "seg"]\nsegmentation = "labelmap"\n'
    config = load(tmp_path, toml + PACS + 'profile = "ward"\n')
    ward = profiles_of_destinations(config)["pacs"]
    assert ward.objects == ("SEG", "TEXT-SR") == ward.objects_on(is_picture=True)
    assert (ward.options.segmentation, ward.options.max_frames) == ("labelmap", 400)


def test_an_own_profile_may_differ_on_pictures(tmp_path: Path) -> None:
    toml = '[profiles.a]\nbase = "ohif"\nobjects = ["SEG"]\n[profiles.b]\nbase = "ohif"\npictures = ["gsps", "sr"]\n'
    made = profiles(load(tmp_path, toml))
    assert made["a"].objects_on(is_picture=True) == ("SR", "SC")
    assert made["b"].objects_on(is_picture=True) == ("GSPS", "SR")
    assert made["b"].objects_on(is_picture=False) == ("SEG", "SR")


@pytest.mark.parametrize(
    ("toml", "fault"),
    [
        ("[profiles.a]\npictures = []", "profiles.a.pictures"),
        (PACS + 'profile = "ohfi"', 'destinations[0].profile: no profile called "ohfi"; known: default, ohif'),
        ("[profiles.ohif]", 'profiles.ohif: "ohif" is a built-in profile'),
        ('[profiles.a]\nobjects = ["SEQ"]', "profiles.a.objects[0]: must be 'SEG', 'SR'"),
        ("[profiles.a]\nobjects = []", "profiles.a.objects"),
        ("[profiles.a]\nmax_frame = 2", "profiles.a.max_frame: unknown setting; did you mean max_frames?"),
    ],
)
def test_faults_are_named_with_their_path(tmp_path: Path, toml: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, toml)
    assert fault in str(caught.value)


def test_profiles_are_listed_with_their_destinations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(tmp_path, PACS + 'profile = "pacs-basic"\n')
    list_profiles(config, as_json=True)
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(BUILT_IN)
    assert listed["pacs-basic"]["destinations"] == ["pacs"]
    assert [item["kind"] for item in listed["default"]["objects"]] == ["SEG", "SR"]
    assert listed["default"]["objects"][1]["fallback"] == "SR-COMPREHENSIVE"
    list_profiles(config, as_json=False)
    assert [item["kind"] for item in listed["ohif"]["pictures"]] == ["SR", "SC"]
    assert "SR, else SR-COMPREHENSIVE" in capsys.readouterr().out


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="known: default, ohif, weasis, slicer, pacs-basic"):
        profile_called(load_config(None, {}, engines=("lungs",)), "none")
