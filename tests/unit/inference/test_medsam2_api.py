"""``POST /models/medsam2/predict`` with an engine that fills the box it is shown."""

from __future__ import annotations

import gzip
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from boxes import BoxFiller, card, nifti_file
from flask.testing import FlaskClient
from questions import QuestionEngines, client
from werkzeug.test import TestResponse

from domain.errors import EngineFailed, EngineUnavailable, NotApplicable
from inference.medsam2_api import METADATA, nested
from inference.openapi import paths_and_schemas

PATH = "/models/medsam2/predict"
SHAPE = (4, 16, 20)


@pytest.fixture
def scan(tmp_path: Path) -> bytes:
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return nifti_file(tmp_path / "scan.nii.gz", voxels).read_bytes()


def server(engine: BoxFiller | None = None, **settings: Any) -> FlaskClient:
    return client(registry=QuestionEngines({"medsam2": engine or BoxFiller()}), **settings)


def post(body: Any, at: FlaskClient | None = None, **headers: str) -> TestResponse:
    return (at or server()).post(PATH, json=body, headers=headers)


def refusal(answer: TestResponse) -> tuple[int, str]:
    """Return status and details of an error, after proving its form."""
    assert answer.json is not None
    assert set(answer.json) == {"error", "status", "details"}
    assert answer.json["status"] == answer.status_code
    assert isinstance(answer.json["error"], str)
    return answer.status_code, "; ".join(answer.json["details"])


def test_one_image_gives_the_object_of_the_model_card(scan: bytes) -> None:
    engine = BoxFiller()
    answer = post(card(scan), server(engine))
    assert answer.status_code == 200
    assert answer.json is not None
    assert set(answer.json) == {"mask", "metadata"}
    mask = np.array(answer.json["mask"])
    assert mask.shape == SHAPE
    assert np.argwhere(mask).min(axis=0).tolist() == [2, 3, 4]
    assert np.argwhere(mask).max(axis=0).tolist() == [2, 8, 11]
    metadata = answer.json["metadata"]
    assert metadata["spacing"] == pytest.approx([0.7, 0.8, 2.5])
    assert metadata["origin"] == pytest.approx([-10, 20, 30])  # LPS, as SimpleITK has it; nibabel says 10, -20, 30
    assert {key: metadata[key] for key in ("shape", "key_slice_index", "adjusted_key_slice_index")} == {
        "shape": [20, 16, 4],
        "key_slice_index": 5,
        "adjusted_key_slice_index": 2,
    }
    assert (metadata["bbox"], metadata["dicom_window"]) == ([4, 3, 12, 9], [-160, 240])
    assert engine.cases[0].options == {"window": "-160,240"}


def test_several_images_give_a_list_in_their_order(scan: bytes, tmp_path: Path) -> None:
    other = nifti_file(tmp_path / "other.nii", np.ones((6, 10, 30), np.float32)).read_bytes()  # not gzipped
    body = card(scan, other, bbox=[[4, 3, 12, 9], [0, 0, 30, 10]], key_slice_idx=[5, 8.0])
    answer = post(body)
    assert answer.json is not None
    assert [item["metadata"]["shape"] for item in answer.json] == [[20, 16, 4], [30, 10, 6]]
    assert np.array(answer.json[1]["mask"])[5].all()  # a box as large as the slice


def test_the_mask_comes_in_binary_where_it_is_asked_for(scan: bytes, tmp_path: Path) -> None:
    plain = np.array((post(card(scan)).json or {})["mask"])
    as_npy = post(card(scan), Accept="application/x-npy")
    assert as_npy.mimetype == "application/x-npy"
    assert np.array_equal(np.load(io.BytesIO(as_npy.data), allow_pickle=False), plain)
    assert json.loads(as_npy.headers[METADATA])["shape"] == [20, 16, 4]
    as_nifti = post(card(scan), Accept="application/gzip")
    (tmp_path / "mask.nii.gz").write_bytes(as_nifti.data)
    (tmp_path / "scan.nii.gz").write_bytes(scan)
    drawn: Any = SimpleITK.ReadImage(str(tmp_path / "mask.nii.gz"))
    source: Any = SimpleITK.ReadImage(str(tmp_path / "scan.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(drawn), plain)
    assert drawn.GetOrigin() == source.GetOrigin()
    assert drawn.GetSpacing() == source.GetSpacing()
    assert post(card(scan), Accept="*/*").mimetype == "application/json"
    status, details = refusal(post(card(scan, scan), Accept="application/x-npy"))
    assert (status, "one image only" in details) == (400, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bbox": [[12, 3, 4, 9]]}, "bbox[0]: must be x0, y0, x1, y1"),
        ({"bbox": [[1, 2, 3]]}, "input_data.bbox[0]"),
        ({"bbox": [["1", 2, 3, 4]]}, "input_data.bbox[0][0]"),
        ({"bbox": [[4, 3, 12, float("nan")]]}, "input_data.bbox[0][3]"),
        ({"key_slice_idx": [1.5]}, "input_data.key_slice_idx[0]"),
        ({"key_slice_idx": [5, 6]}, "must have one entry for each of the 1 nii_image, not 2"),
        ({"dicom_window": [[240, -160]]}, "not centre and width"),
        ({"nii_image": []}, "input_data.nii_image"),
        ({"colour": ["red"]}, "Unknown field: input_data.colour"),
    ],
)
def test_a_request_that_is_not_the_cards_is_refused_with_every_fault(
    scan: bytes, changes: dict[str, Any], said: str
) -> None:
    status, details = refusal(post(card(scan, **changes)))
    assert status == 400
    assert said in details


def test_all_faults_come_at_once_and_none_quotes_a_value(scan: bytes) -> None:
    _, details = refusal(post(card(scan, bbox=[[90, 3, 4, 9]], dicom_window=[[777, 1]])))
    assert "bbox" in details
    assert "dicom_window" in details
    assert "777" not in details


def test_what_is_no_json_is_told_by_its_status() -> None:
    assert refusal(server().post(PATH, data=b"x", content_type="text/plain"))[0] == 415
    assert refusal(server().post(PATH, data=b"{", content_type="application/json"))[0] == 400
    assert refusal(post([]))[0] == 400
    assert refusal(post({}))[1] == "Missing required field: input_data"
    big = server(most_body_mb=1).post(PATH, data=b"x" * (2 << 20), content_type="application/json")
    assert refusal(big)[0] == 413


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (gzip.compress(b"\0" * (3 << 20)), 413, "unpacks to more than 2 MiB"),
        (b"no volume", 422, "not a NIfTI-1 file"),
        (b"", 400, "nii_image[0]"),
    ],
    ids=["bomb", "no volume", "empty"],
)
def test_a_file_that_is_no_volume_or_a_bomb_is_refused(data: bytes, status: int, said: str) -> None:
    found, details = refusal(post(card(data), server(most_unpacked_mb=2)))
    assert (found, said in details) == (status, True)


def test_a_volume_is_too_large_before_it_is_read_and_so_are_several_together(scan: bytes) -> None:
    assert refusal(post(card(scan), server(most_voxels=1000)))[0] == 413
    assert post(card(scan), server(most_voxels=2000)).status_code == 200
    assert refusal(post(card(scan, scan), server(most_voxels=2000)))[0] == 413


def test_no_base64_a_slice_or_a_box_beside_the_image_cannot_be_segmented(scan: bytes) -> None:
    assert refusal(post(card(scan, nii_image=["***"])))[0] == 422
    status, details = refusal(post(card(scan, key_slice_idx=[2])))
    assert (status, "must be from 0 to 3" in details) == (422, True)
    status, details = refusal(post(card(scan, bbox=[[4, 3, 21, 9]])))
    assert (status, "within the 20 x 16 pixels" in details) == (422, True)


@pytest.mark.parametrize(
    ("error", "status"), [(NotApplicable("Nothing varies."), 422), (EngineFailed("No."), 422), (ValueError("x"), 500)]
)
def test_what_the_engine_says_is_told(scan: bytes, error: Exception, status: int) -> None:
    assert refusal(post(card(scan), server(BoxFiller(error=error))))[0] == status


def test_without_a_model_it_is_unavailable_and_says_when_to_come_again(scan: bytes) -> None:
    none = QuestionEngines({"medsam2": BoxFiller()}, obstacles={"medsam2": "engines.medsam2.weights is not set"})
    answer = post(card(scan), client(registry=none))
    assert refusal(answer) == (
        503,
        "The engine medsam2 cannot be used: engines.medsam2.weights is not set",
    )
    assert answer.headers["Retry-After"] == "10"
    assert refusal(post(card(scan), server(enabled=False)))[0] == 503
    out = QuestionEngines({"medsam2": BoxFiller()}, fails=EngineUnavailable("Out of memory."))
    assert refusal(post(card(scan), client(registry=out))) == (503, "Out of memory.")


def test_a_full_queue_and_a_late_answer_are_503(scan: bytes) -> None:
    engine = BoxFiller(wait=threading.Event())
    assert refusal(post(card(scan), server(engine, timeout_s=0.1)))[0] == 503
    assert refusal(post(card(scan), server(queue=0)))[0] == 503


def test_nested_lists_are_what_json_would_have_written() -> None:
    mask = np.random.default_rng(5).integers(0, 2, (3, 4, 5)).astype(np.uint8)
    assert json.loads(nested(mask)) == mask.tolist()
    assert json.loads(nested(mask[:1, :1, :1])) == mask[:1, :1, :1].tolist()


def test_the_openapi_document_has_it_and_its_references_lead_somewhere() -> None:
    paths, schemas = paths_and_schemas()
    operation = paths[PATH]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(operation["responses"])
    text = json.dumps([paths, schemas])
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
