"""The guides for administrators name everything that the program can say."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from voxgate_rest import Settings

from domain.job import JobState
from domain.series import RefusalCode

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("code", [*RefusalCode, *JobState], ids=str)
def test_every_state_and_every_cause_is_explained(code: RefusalCode | JobState) -> None:
    assert f"`{code.value}`" in (DOCS / "troubleshooting.md").read_text()


def test_every_setting_of_the_auto_routing_is_listed_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", (DOCS / "orthanc.md").read_text(), flags=re.MULTILINE))
    defaults = Settings()
    for known in fields(Settings):
        key = "".join(word.capitalize() for word in known.name.split("_"))
        default = getattr(defaults, known.name)
        assert json.loads(listed.pop(key)) == (list(default) if isinstance(default, tuple) else default)
    assert listed == {}
