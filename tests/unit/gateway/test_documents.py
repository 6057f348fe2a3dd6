"""What the documents say is what the code does, as far as a program can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicomweb import response
from domain.series import RefusalCode
from gateway.config import load_config
from gateway.demo import COLUMNS
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
