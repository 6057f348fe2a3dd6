from __future__ import annotations

from pathlib import Path

import pytest

from gateway import names


def test_every_package_of_ours_is_ours() -> None:
    assert names.foreign_packages() == {}


def test_a_foreign_module_of_our_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "HERE", Path("/somewhere/else"))
    assert set(names.foreign_packages()) == set(names.PACKAGES)
