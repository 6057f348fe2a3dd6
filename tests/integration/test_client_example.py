"""The example client against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from factories import ct_series, save
from flask import Flask
from PIL import Image
from programs import REPOSITORY, module_at, served
from questions import QuestionEngines, QuestionModel, grey

from inference.api import PredictService
from inference.predict_settings import PredictSettings


@pytest.fixture(scope="module")
def client() -> ModuleType:
    return module_at(REPOSITORY / "examples" / "client.py")


@pytest.fixture
def url() -> Iterator[str]:
    app = Flask("test")
    engines = QuestionEngines({"medversa": QuestionModel(text="No acute findings.")})
    app.register_blueprint(PredictService(engines, PredictSettings(enabled=True)).blueprint())
    with served(app) as address:
        yield address


def test_a_report_on_a_radiograph(
    client: ModuleType, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chest.dcm"
    path.write_bytes(grey(np.arange(1200).reshape(40, 30)))
    assert client.main(["report", str(path), "--url", url, "--context", "Age:70."]) == 0
    assert capsys.readouterr().out == "No acute findings.\n"


def test_a_lesion_is_classified_and_segmented_with_an_overlay(client: ModuleType, url: str, tmp_path: Path) -> None:
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[10:20, 10:30] = 200
    Image.fromarray(pixels).save(tmp_path / "lesion.png")
    assert client.main(["classify", str(tmp_path / "lesion.png"), "--url", url]) == 0
    assert client.main(["segment", str(tmp_path / "lesion.png"), "--url", url, "--out", str(tmp_path / "out")]) == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "mask-0.png"))
    assert np.array_equal(mask > 0, pixels[..., 0] > 127)
    drawn = np.asarray(Image.open(tmp_path / "out" / "overlay.png"))
    assert drawn[15, 15].tolist() == [227, 100, 100]
    assert drawn[0, 0].tolist() == [0, 0, 0]


def test_a_folder_of_ct_slices_is_segmented(client: ModuleType, url: str, tmp_path: Path) -> None:
    source = tmp_path / "series"
    source.mkdir()
    save(ct_series(5), source)
    assert client.main(["ct", str(source), "--url", url, "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("mask-*.png"))) == 5


def test_a_refusal_is_told_and_ends_in_failure(
    client: ModuleType, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lesion.png").write_bytes(b"no picture")
    assert client.main(["segment", str(tmp_path / "lesion.png"), "--url", url]) == 1
    assert "422: images[0].data: not decodable as png" in capsys.readouterr().err


def test_a_gateway_that_is_not_there_is_told(
    client: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lesion.png").write_bytes(b"x")
    assert client.main(["segment", str(tmp_path / "lesion.png"), "--url", "http://127.0.0.1:9"]) == 1
    assert "no answer from" in capsys.readouterr().err
