"""What the containers are built and started from agrees with the project; Docker itself is not needed."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from voxgate_rest import METADATA, Settings

from gateway.config import load_config

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "orthanc" / "Dockerfile")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def orthanc_configuration(environ: dict[str, str]) -> dict[str, Any]:
    """Return ``orthanc.json`` as Orthanc reads it: variables replaced, comments dropped."""
    text = (ROOT / "orthanc" / "orthanc.json").read_text()
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    loaded: dict[str, Any] = json.loads(VARIABLE.sub(lambda m: environ.get(m[1], m[3] or ""), text))
    return loaded


def environment(service: dict[str, Any]) -> dict[str, str]:
    """Return a service's environment with a value for each variable that compose demands."""
    return {
        name: VARIABLE.sub(lambda m: m[3] if m[2] == "-" else "a-secret", str(value))
        for name, value in service["environment"].items()
    }


def sources(dockerfile: Path) -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), flags=re.MULTILINE)
    return [source.rstrip("/") for line in lines for source in line.split()[:-1]]


def test_every_setting_that_compose_gives_voxgate_is_one(compose: dict[str, Any]) -> None:
    given = environment(compose["services"]["voxgate"])
    config = load_config(environ=given, engines=("lungs",))
    assert (config.scp.host, config.http.host) == ("0.0.0.0", "0.0.0.0")
    assert config.scp.calling_ae_titles == ("ORTHANC",)
    assert config.http.token.get_secret_value() == "a-secret"
    assert [destination.name for destination in config.destinations] == ["orthanc"]


def test_voxgate_and_orthanc_name_each_other_alike(compose: dict[str, Any]) -> None:
    services = compose["services"]
    voxgate = load_config(environ=environment(services["voxgate"]), engines=("lungs",))
    orthanc = orthanc_configuration(environment(services["orthanc"]))
    node = orthanc["DicomModalities"]["voxgate"]
    assert (node["AET"], node["Host"], node["Port"]) == (voxgate.scp.ae_title, "voxgate", voxgate.scp.port)
    assert orthanc["DicomAet"] in voxgate.scp.calling_ae_titles
    destination = voxgate.destinations[0].model_dump()
    assert (destination["host"], destination["port"]) == ("orthanc", orthanc["DicomPort"])
    assert destination["ae_title"] == orthanc["DicomAet"]
    settings = Settings.from_configuration(orthanc["Voxgate"])
    assert settings.http_url == f"http://voxgate:{voxgate.http.port}"
    assert settings.http_token == voxgate.http.token.get_secret_value()


def test_every_variable_that_compose_gives_orthanc_is_used_there(compose: dict[str, Any]) -> None:
    used = {match[1] for match in VARIABLE.finditer((ROOT / "orthanc" / "orthanc.json").read_text())}
    assert set(compose["services"]["orthanc"]["environment"]) <= used


def test_every_variable_of_compose_is_explained_in_the_example() -> None:
    needed = {"COMPOSE_PROFILES"} | {
        match[1] for match in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text())
    }
    explained = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert needed == explained


def test_ports_are_published_on_loopback_alone(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_builds_from_files_that_exist_and_keeps_data_in_the_declared_volumes(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "image" in service:
            continue
        dockerfile = ROOT / service["build"].get("dockerfile", "Dockerfile")
        assert dockerfile in DOCKERFILES
        declared = re.findall(r"^VOLUME (\S+)$", dockerfile.read_text(), flags=re.MULTILINE)
        assert [volume.split(":")[1] for volume in service["volumes"]] == declared
        assert all(volume.split(":")[0] in compose["volumes"] for volume in service["volumes"])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_an_image_copies_exists_and_is_not_kept_out_of_the_build(dockerfile: Path) -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in sources(dockerfile):
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source.split("/")[0], pattern) for pattern in let_in), source


def test_the_image_holds_every_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert set(packages) <= set(sources(ROOT / "Dockerfile"))


def test_the_image_of_orthanc_holds_the_whole_plug_in() -> None:
    ours = {f"orthanc/{path.name}" for path in (ROOT / "orthanc").glob("*.py")}
    assert ours <= set(sources(ROOT / "orthanc" / "Dockerfile"))


def test_no_image_runs_as_root() -> None:
    for dockerfile in DOCKERFILES:
        users = re.findall(r"^USER (\w+)$", dockerfile.read_text(), flags=re.MULTILINE)
        assert users[-1:] not in ([], ["root"])


def test_the_configuration_of_orthanc_shows_every_setting_with_its_default() -> None:
    orthanc = orthanc_configuration({"VOXGATE_HTTP_URL": ""})
    assert Settings.from_configuration(orthanc["Voxgate"]) == Settings()
    assert len(orthanc["Voxgate"]) == len(Settings.__dataclass_fields__)
    assert orthanc["UserMetadata"]["VoxgateAcknowledged"] == METADATA
