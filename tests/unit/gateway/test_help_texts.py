from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from domain.job import JobState
from gateway.cli import app
from gateway.commands.offline import segment_line

COMMANDS = (
    "", "serve", "demo", "run", "inspect", "send", "engines", "routes", "routes test", "jobs", "jobs list",
    "jobs show", "jobs retry", "jobs cancel", "weights", "weights install", "weights list", "weights convert",
    "check-config", "version",
)  # fmt: skip


def help_of(command: str) -> str:
    done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "250", "TERMINAL_WIDTH": "250"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_no_python_types(command: str) -> None:
    assert not re.search(r"<|list\[|\b(str|bool|int|TEXT|INTEGER|BOOLEAN)\b", help_of(command))


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, those that have commands too."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for key, child in getattr(command, "commands", {}).items():
            yield from below(f"{name} {key}".strip(), child)

    yield from below("", get_command(app))


EXAMPLES = [
    (name, line)
    for name, command in commands()
    for line in (command.epilog or "").split("\n\n")
    if line not in ("", "Examples:")
]


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_examples_can_be_typed_as_they_stand(name: str, line: str) -> None:
    assert len(line) <= 78  # else it is broken where a terminal is as wide as most are
    words = shlex.split(line)
    assert words[: len(name.split()) + 1] == ["voxgate", *name.split()]
    command, words = get_command(app), words[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    assert not hasattr(command, "commands")
    command.make_context(line, words)  # parses and checks, and runs nothing
    assert line in help_of(name)


def test_the_main_commands_have_examples() -> None:
    have = {name for name, _ in EXAMPLES}
    assert have >= {"", "serve", "run", "inspect", "send", "jobs", "weights", "check-config", "routes test", "demo"}


def test_help_lists_every_state_of_a_job() -> None:
    assert ", ".join(JobState) in help_of("jobs list")


@pytest.mark.parametrize("command", ["jobs show", "jobs retry", "jobs cancel"])
def test_help_says_what_a_job_is(command: str) -> None:
    assert re.search(r"JOB +A job's id, or at least its first six characters", help_of(command))


def test_tables_show_only_digits_that_mean_something() -> None:
    values = {"[hnsf'U]": -821.2871, "%": 12.34567, "mm": 31.0449, "[arb'U]": 412.34567}
    numbers = [{"label": "x", "value": value, "unit": unit} for unit, value in values.items()]
    volumes = [{"label": "v", "value": value, "unit": "ml"} for value in (2170.4321, 7.0512, -0.01)]
    line = segment_line({"label": "Left lung", "measurements": [*numbers, *volumes]})
    assert line == ("Left lung: x -821.3 HU, x 12.3 %, x 31.0 mm, x 412.3 [arb'U], v 2170 ml, v 7.1 ml, v 0.0 ml")
