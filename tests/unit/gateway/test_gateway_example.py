"""``voxgate.example.toml`` says what the code does."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from dicom_out.profile import DEFAULT
from dicom_out.settings import DimseSettings, StowSettings
from gateway import sections
from gateway.config import Config, load_config
from gateway.destinations import CONFIRMATION
from gateway.http import HttpSettings
from gateway.profiles import profile_called
from inference.predict_settings import PredictSettings
from inference.registry import declarations
from pipeline.completeness import CompletenessSettings
from pipeline.delivery import DeliverySettings
from pipeline.rules import Route
from scp.settings import ScpSettings
from store.settings import StoreSettings

EXAMPLE = Path(__file__).resolve().parents[3] / "voxgate.example.toml"
LISTS = {"destinations", "routes", "engines", "profiles"}


def uncommented() -> str:
    """The example with the entries that it shows as comments."""
    return re.sub(r"^# ?((?:\[|[a-z_]+ =).*)$", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def plain(model: BaseModel) -> dict[str, Any]:
    """Settings as TOML would give them."""
    return {name: _plain(getattr(model, name)) for name in type(model).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def test_the_example_lists_every_setting_with_its_default() -> None:
    shown = tomllib.loads(EXAMPLE.read_text())
    defaults = load_config(None, {}, engines=("lungs",))
    assert set(shown) == set(Config.model_fields) - LISTS
    for name, section in shown.items():
        assert section == plain(getattr(defaults, name)), name


def test_the_entries_shown_as_comments_are_complete_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "voxgate.toml"
    file.write_text(uncommented())
    config = load_config(file, {}, engines=tuple(declarations()))
    shown = tomllib.loads(uncommented())
    for entry, model in zip(shown["destinations"], config.destinations, strict=True):
        assert set(entry) == set(type(model).model_fields)
    assert [set(route) for route in shown["routes"]] == [set(sections.RouteSection.model_fields)]
    assert set(shown["profiles"]["ward"]) == set(sections.ProfileSection.model_fields)
    assert profile_called(config, "ward") == replace(DEFAULT, name="ward", why="")
    of_all = set(shown["engines"]["lungs"])
    assert of_all | set().union(*shown["engines"].values()) == set(sections.EngineSection.model_fields)
    for name, declared in declarations().items():
        assert set(shown["engines"][name]) - of_all == set(declared.settings), name


def test_defaults_of_entries_are_those_that_the_comments_show() -> None:
    shown = tomllib.loads(uncommented())
    models: list[type[sections.Section]] = [sections.DimseDestination, sections.StowDestination]
    for entry, model in zip(shown["destinations"], models, strict=True):
        for name, field in model.model_fields.items():
            if not field.is_required() and name != "ca_file":
                assert entry[name] == _plain(field.default), name


@pytest.mark.parametrize(
    ("section", "settings", "ours"),
    [
        (sections.ScpSection, ScpSettings, {"allow_any_peer"}),
        (sections.HttpSection, HttpSettings, {"processes"}),  # 0: by the processors there are
        (sections.PredictSection, PredictSettings, set()),
        (sections.CompletenessSection, CompletenessSettings, set()),
        (sections.DeliverySection, DeliverySettings, set()),
        (sections.StoreSection, StoreSettings, {"retention_days"}),
        (sections.RouteSection, Route, set()),
        (sections.DimseDestination, DimseSettings, {"kind", *CONFIRMATION}),
        (sections.StowDestination, StowSettings, {"kind", *CONFIRMATION}),
    ],
)
def test_a_section_has_the_settings_and_defaults_of_its_package(
    section: type[sections.Section], settings: Any, ours: set[str]
) -> None:
    theirs = {field.name: field.default for field in fields(settings)}
    for name, field in section.model_fields.items():
        if name in ours:
            continue
        assert name in theirs
        if not field.is_required() and isinstance(theirs[name], str | int | float | bool | tuple):
            default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            assert default == theirs[name], name
    assert set(theirs) - set(section.model_fields) <= {"headers", "folder"}
