from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.errors import ConfigurationError, WeightsRefused
from gateway.commands.engines import list_engines
from gateway.commands.weights import install_weights, list_weights
from gateway.config import Config, load_config
from gateway.offline import analyse


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(None, {"VOXGATE_WEIGHTS__PATH": str(tmp_path / "weights")})


def test_weights_that_are_not_there_are_listed_as_such(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_weights(config, as_json=True)
    (deepbet,) = (item for item in json.loads(capsys.readouterr().out) if item["engine"] == "deepbet")
    assert deepbet["state"] == "not installed"
    assert deepbet["version"] == "1.0.2"
    assert {Path(file["path"]).parent for file in deepbet["files"]} == {tmp_path / "weights" / "deepbet"}
    list_weights(config, as_json=False)
    assert "not installed" in capsys.readouterr().out


def test_weights_that_were_changed_are_listed_as_such(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights" / "deepbet"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"another net")
    list_weights(config, as_json=True)
    (deepbet,) = (item for item in json.loads(capsys.readouterr().out) if item["engine"] == "deepbet")
    assert "install again" in deepbet["state"]


def test_a_file_that_is_not_the_wheel_is_refused(config: Config, tmp_path: Path) -> None:
    other = tmp_path / "deepbet-1.0.2-py3-none-any.whl"
    other.write_bytes(b"PK")
    with pytest.raises(WeightsRefused, match=r"not the wheel of deepbet 1\.0\.2"):
        install_weights(config, "deepbet", other)
    assert not (tmp_path / "weights").exists()


def test_a_file_that_is_not_there_and_an_engine_without_weights_are_wrong_usage(
    config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        install_weights(config, "deepbet", tmp_path / "none.whl")
    with pytest.raises(ConfigurationError, match='no weights to install for "lungs"; known: deepbet'):
        install_weights(config, "lungs", None)


def test_without_a_package_index_the_way_out_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(WeightsRefused, match="voxgate weights install deepbet --from FILE"):
        install_weights(config, "deepbet", None)


def test_engines_that_cannot_be_used_are_listed_with_the_reason(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    list_engines(config, as_json=True)
    (deepbet,) = (item for item in json.loads(capsys.readouterr().out) if item["name"] == "deepbet")
    assert not deepbet["usable"]
    assert "make models" in deepbet["reason"] or "voxgate weights install deepbet" in deepbet["reason"]
    list_engines(config, as_json=False)
    assert "cannot be used" in capsys.readouterr().out


def test_running_an_engine_that_cannot_be_used_is_refused_before_anything_is_read(
    config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match='"deepbet" cannot be used'):
        analyse([tmp_path / "nowhere"], tmp_path / "out", config=config, engine="deepbet")


def test_the_real_wheel_is_unpacked_once(
    config: Config, deepbet_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = load_config(None, {"VOXGATE_WEIGHTS__PATH": str(deepbet_weights)})
    install_weights(there, "deepbet", None)
    assert "installed already" in capsys.readouterr().err
    list_weights(there, as_json=True)
    (deepbet,) = (item for item in json.loads(capsys.readouterr().out) if item["engine"] == "deepbet")
    assert deepbet["state"] == "installed"
