"""The example client of MedSAM2 against a running server with a small network of random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from extras import require_models

require_models()

import SimpleITK
from boxes import MEDSAM2, nifti_file
from flask import Flask
from medsam2_golden import CPU, small_network
from programs import REPOSITORY, module_at, served
from questions import QuestionEngines

from inference.api import PredictService
from inference.medsam2.engine import MedSam2
from inference.predict_settings import PredictSettings

SHAPE = (5, 40, 56)


@pytest.fixture(scope="module")
def client() -> ModuleType:
    return module_at(REPOSITORY / "examples" / "medsam2_client.py")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engine = MedSam2(MEDSAM2.manifest, {})
    engine.use(small_network(), CPU)
    app = Flask("test")
    service = PredictService(QuestionEngines({"medsam2": engine}), PredictSettings(enabled=True))
    app.register_blueprint(service.blueprint())
    with served(app) as address:
        yield address


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(3).normal(-300, 20, SHAPE)
    voxels[:, 12:30, 18:40] += 350
    return nifti_file(tmp_path / "scan.nii.gz", voxels.astype(np.int16))


def test_a_box_becomes_a_mask_with_the_cards_numbers(
    client: ModuleType, url: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(scan), "--box", "18,12,40,30", "--slice", "12", "--offset", "10", "--url", url]
    assert client.main([*given, "--out", str(tmp_path / "mask.nii.gz")]) == 0
    said = json.loads(capsys.readouterr().out)
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "mask.nii.gz")))
    inside = int(mask.sum())
    assert inside > 0
    expected = {
        "file_path": str(scan),
        "mask_shape": list(SHAPE),
        "mask_dtype": "uint8",
        "unique_values": [0, 1],
        "total_voxels": mask.size,
        "segmented_voxels": inside,
        "segmentation_ratio": round(100 * inside / mask.size, 2),
        "segmentation_successful": True,
        "image_shape": [56, 40, 5],
        "key_slice_index": 12,
        "adjusted_key_slice_index": 2,
        "bbox": [18, 12, 40, 30],
        "dicom_window": [-160, 240],
    }
    assert {key: said[key] for key in expected} == expected
    assert client.main([*given, "--out", str(tmp_path / "mask.npy")]) == 0
    assert np.array_equal(np.load(tmp_path / "mask.npy"), mask)


def test_json_and_binary_say_the_same(client: ModuleType, url: str, scan: Path) -> None:
    body = client.payload(scan, [18, 12, 40, 30], 2, [-160, 240])
    listed, binary = (client.segment(url, body, accept=form) for form in (client.JSON, client.NPY))
    assert np.array_equal(listed["mask"], binary["mask"])
    assert listed["metadata"] == binary["metadata"]


def test_several_images_are_asked_for_in_one_request(
    client: ModuleType, url: str, scan: Path, tmp_path: Path
) -> None:
    other = nifti_file(
        tmp_path / "other.nii.gz", np.random.default_rng(5).normal(0, 99, (3, 24, 32)).astype(np.int16)
    )
    bodies = [
        client.payload(scan, [18, 12, 40, 30], 2, [-160, 240]),
        client.payload(other, [4, 4, 20, 20], 1, [-99, 99]),
    ]
    together = client.segment_all(url, *bodies)
    for one, body in zip(together, bodies, strict=True):
        alone = client.segment(url, body)
        assert np.array_equal(one["mask"], alone["mask"])
        assert one["metadata"] == alone["metadata"]
    bodies[1]["input_data"]["key_slice_idx"] = [99]
    refused = client.segment_all(url, *bodies)
    assert [answer["status"] for answer in refused] == [422, 422]
    assert "key_slice_idx[1]" in refused[0]["details"][0]


def test_an_error_and_its_status_are_passed_through(
    client: ModuleType, url: str, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.main([str(scan), "--box", "18,12,400,30", "--slice", "2", "--url", url]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["error"], said["segmentation_successful"]) == (422, "Cannot be segmented", False)
    assert "within the 56 x 40 pixels" in said["details"][0]
    assert client.main([str(scan), "--box", "1,2,3,4", "--slice", "2", "--url", "http://127.0.0.1:9"]) == 1
    assert "no answer from" in json.loads(capsys.readouterr().out)["error"]
    assert client.main([str(scan), "--box", "1,2,three", "--slice", "2"]) == 1
