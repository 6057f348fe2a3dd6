"""A checkpoint that the test makes itself, the whole way: by HTTP, and from CT files to verified SEG and SR."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from factories import ct_series, save
from flask import Flask
from medversa_checkpoint import write_checkpoint
from PIL import Image

from domain.job import JobState
from gateway.config import load_config
from gateway.offline import analyse
from inference.api import PredictService
from inference.predict_settings import PredictSettings
from inference.registry import Registry

pytestmark = pytest.mark.usefixtures("language_models")


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """``[engines.medversa]`` for a checkpoint with every part."""
    folder = write_checkpoint(tmp_path_factory.mktemp("medversa"), volumes=True)
    return {"weights": folder, "accept_license": "non-commercial research", "device": "cpu"}


def _masks(answer: Any) -> np.ndarray:
    return np.stack([np.load(io.BytesIO(base64.b64decode(item))) for item in answer.json["segmentation_mask"]])


def test_pictures_and_a_zipped_ct_are_answered_by_http(section: dict[str, object], tmp_path: Path) -> None:
    service = PredictService(Registry({"medversa": section}), PredictSettings(enabled=True))
    app = Flask("test")
    app.register_blueprint(service.blueprint())
    client = app.test_client()
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (70, 90, 3)).astype(np.uint8)).save(out, "PNG")
    picture = {"data": base64.b64encode(out.getvalue()).decode(), "format": "png"}
    asked = {"images": [picture], "modality": "derm", "task": "segmentation", "hyperparams": {"do_sample": False}}
    before = service.model_loaded
    answer = client.post("/predict", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert answer.json["text"] == "The mask <2DSEG> <3DSEG> <DET>"
    assert _masks(answer).shape == (1, 70, 90)
    assert (before, service.model_loaded) == (False, True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for path in save(ct_series(5), tmp_path):
            target.write(path, path.name)
    series = {"data": base64.b64encode(archive.getvalue()).decode(), "format": "dcm", "is_series": True}
    answer = client.post("/predict", json={**asked, "images": [series], "modality": "ct"})
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert _masks(answer).shape == (5, 16, 20)
    assert len(answer.json["slices"]) == 5


def test_a_route_with_a_prompt_makes_a_verified_segmentation(section: dict[str, object], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save(ct_series(12), source)
    file = tmp_path / "voxgate.toml"
    settings = "\n".join(f'{key} = "{value}"' for key, value in section.items())
    file.write_text(
        f"[engines.medversa]\n{settings}\n"
        '[[routes]]\nname = "liver"\nengine = "medversa"\nmodality = ["CT"]\n'
        'options = { prompt = "Segment the liver." }\n'
    )
    (report,) = analyse([source], tmp_path / "out", config=load_config(file, {})).series
    assert report.state is JobState.DONE, report.reason
    written = {ds.Modality: ds for ds in map(pydicom.dcmread, report.objects)}
    (segment,) = written["SEG"].SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert "MedVersa" in segment.SegmentAlgorithmName
    assert written["SR"].Modality == "SR"
    assert report.summary[0]["label"] == "Liver"
