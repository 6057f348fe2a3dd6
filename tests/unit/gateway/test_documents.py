"""What the documents say is what the code does, as far as a program can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from dicomweb import response
from domain.series import RefusalCode
from gateway.cli import app
from gateway.config import Config, load_config
from gateway.demo import COLUMNS
from gateway.sections import (
    DimseDestination,
    EngineSection,
    ProfileSection,
    RouteSection,
    StowDestination,
)
from inference.registry import declarations
from scp import status

ROOT = Path(__file__).resolve().parents[3]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text()


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_cause_of_refusal_is_in_the_conformance_statement(code: RefusalCode) -> None:
    assert f"| `{code.value}` |" in CONFORMANCE


def test_no_cause_is_in_the_statement_that_the_code_does_not_know() -> None:
    table = CONFORMANCE.partition("## 3. Refused series")[2].partition("Further codes")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, flags=re.MULTILINE)) == {code.value for code in RefusalCode}


def test_every_c_store_status_is_in_the_statement() -> None:
    stated = re.findall(r"^\| ([0-9A-F]{4}) \|", CONFORMANCE, flags=re.MULTILINE)
    assert {int(text, 16) for text in stated} == {status.SUCCESS, *status._STATUS.values()}


def test_every_failure_reason_is_in_the_statement() -> None:
    stated = dict(re.findall(r"^\| ([0-9A-F]{4})H \| (\d+) \|", CONFORMANCE, flags=re.MULTILINE))
    assert {int(text, 16) for text in stated} == set(response._REASON.values())
    assert all(int(text, 16) == int(decimal) for text, decimal in stated.items())


def test_every_proof_that_is_named_is_a_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "conformance-volumes.md").read_text()))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), flags=re.MULTILINE)
    }
    assert len(named) > 60
    assert named <= written


@pytest.mark.parametrize("document", ["README.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_shows_the_columns_that_the_demo_prints() -> None:
    assert f"| {' | '.join(COLUMNS)} |\n" in (ROOT / "README.md").read_text()


EXAMPLES = [
    pytest.param(text, id=f"{path.name}:{number}")
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
    for number, text in enumerate(
        re.findall(r"^ *```toml\n(.*?)```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_configuration_that_is_shown_is_in_order(text: str, tmp_path: Path) -> None:
    file = tmp_path / "voxgate.toml"
    file.write_text(re.sub(r'^( *destinations = )\[".*', r"\1[]", text, flags=re.MULTILINE))  # shown elsewhere
    load_config(file, {}, engines=tuple(declarations()))


def code_of(document: Path) -> list[str]:
    """Return what is set as code: words between backticks, and lines of blocks that are no example of a log."""
    text = document.read_text()
    blocks = re.findall(r"^ *```(?:sh|toml|)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [
        *(" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)),
        *(line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()),
    ]


def settings() -> dict[str, set[str]]:
    """Return every setting by its section."""
    models: dict[str, tuple[type[BaseModel], ...]] = {
        "routes": (RouteSection,),
        "engines": (EngineSection,),
        "profiles": (ProfileSection,),
        "destinations": (DimseDestination, StowDestination),
    }
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            models[name] = (field.annotation,)
    return {name: {key for model in found for key in model.model_fields} for name, found in models.items()}


DOCUMENTS = ["README.md", "CHANGELOG.md", *(str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("docs/**/*.md")))]


def named_settings(document: str) -> set[tuple[str, str]]:
    """Return sections and keys that a document names in one of three ways, in lower case."""
    names = "|".join(settings())
    patterns = (
        rf"^({names})\.([a-z]\w+)\b(?!\.|\()",
        rf"^\[{{1,2}}({names})(?:\.[^\]]+)?\]{{1,2}} ([a-z]\w+)",
        rf"\bVOXGATE_({names.upper()})__([A-Z_]+)\b",
    )
    found = {
        (section.lower(), key.lower())
        for code in code_of(ROOT / document)
        for pattern in patterns
        for section, key in re.findall(pattern, code)
    }
    return {(section, key) for section, key in found if not (ROOT / section / f"{key}.py").exists()}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_that_are_named_exist(document: str) -> None:
    known = settings()
    assert {(section, key) for section, key in named_settings(document) if key not in known[section]} == set()


def test_many_settings_are_named() -> None:
    assert len({named for document in DOCUMENTS for named in named_settings(document)}) > 40


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_are_shown_exist_with_their_options(document: str) -> None:
    for code in code_of(ROOT / document):
        if not re.match(r"([A-Z_]+=\S+ )*voxgate [a-z-]", code):
            continue
        words = re.sub(r"[\[\]…;&].*?(?= |$)|#.*", " ", code.partition("voxgate ")[2]).split()
        commands = [get_command(app)]
        while words and hasattr(commands[0], "commands"):
            names = words.pop(0).split("\\|")
            assert set(names) <= set(commands[0].commands), code
            commands = [commands[0].commands[name] for name in names]
        known = {option for command in commands for param in command.params for option in param.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}, code
