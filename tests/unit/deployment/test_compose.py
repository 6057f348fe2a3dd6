"""docker-compose.yml is what the Compose Specification says, whatever profile is chosen; Docker is not needed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from jsonschema import Draft201909Validator, ValidationError  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "tests" / "compose_spec" / "compose-spec.json"
VOXGATES = ("voxgate", "voxgate-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def validate(document: dict[str, Any]) -> None:
    # The project's name came into the specification in 2022, after this edition of its schema
    known = {key: value for key, value in document.items() if key != "name"}
    Draft201909Validator(json.loads(SCHEMA.read_text())).validate(known)


def test_the_file_is_valid_by_the_schema_of_the_specification(compose: dict[str, Any]) -> None:
    validate(compose)


@pytest.mark.parametrize(
    ("service", "key"), [("voxgate", "volume"), ("postgres", "profile"), ("orthanc", "cap-drop")]
)
def test_the_schema_finds_a_misspelt_key(compose: dict[str, Any], service: str, key: str) -> None:
    spoilt = copy.deepcopy(compose)
    spoilt["services"][service][key] = []
    with pytest.raises(ValidationError, match=key):
        validate(spoilt)


def test_every_service_belongs_to_one_profile_and_the_example_starts_a_whole(compose: dict[str, Any]) -> None:
    profiles = {name: service["profiles"] for name, service in compose["services"].items()}
    assert profiles == {"voxgate": ["cpu"], "voxgate-gpu": ["gpu"], "orthanc": ["orthanc"], "postgres": ["postgres"]}
    lines = (ROOT / ".env.example").read_text().splitlines()
    (chosen,) = [line.partition("=")[2].split(",") for line in lines if line.startswith("COMPOSE_PROFILES=")]
    assert chosen == ["cpu", "orthanc"]


def test_with_a_gpu_voxgate_is_the_same_but_for_the_device(compose: dict[str, Any]) -> None:
    cpu, gpu = (dict(compose["services"][name]) for name in VOXGATES)
    (device,) = gpu.pop("deploy")["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert gpu.pop("build")["args"] == {"MODELS": "1"}
    cpu.pop("build")
    assert {**gpu, "profiles": ["cpu"]} == cpu
    assert cpu["networks"]["imaging"]["aliases"] == ["voxgate"]  # Orthanc finds either under this name


def test_no_container_has_more_rights_than_it_needs(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    assert compose["services"]["postgres"]["user"] == "postgres"
    assert "ports" not in compose["services"]["postgres"]
