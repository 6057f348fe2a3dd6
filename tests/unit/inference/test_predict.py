"""``POST /predict``: requests, engines, answers. (n) is a defect of the public server that is not here."""

from __future__ import annotations

import base64
import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series
from flask import Flask
from PIL import Image
from questions import DECLARED, body, client, encoded, masks, part10, png
from questions import QuestionEngines as Registry
from questions import QuestionModel as Model

from domain.engine import Case, EngineManifest
from domain.errors import EngineFailed, EngineUnavailable
from domain.findings import Findings
from inference.api import PredictService
from inference.openapi import paths_and_schemas
from inference.predict_settings import PredictSettings

# -- Requests -------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_request_is_told_at_once() -> None:
    """(1)"""
    answer = client().post("/predict", json={"modality": "mr", "hyperparams": {"top_p": 2}, "extra": 1})
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"] == "Invalid request"
    assert answer.json["details"] == [
        "Missing required field: images",
        "Invalid field: modality: must be 'cxr', 'derm' or 'ct'",
        "Missing required field: task",
        "Invalid field: hyperparams.top_p: must be less than or equal to 1",
        "Unknown field: extra",
    ]


@pytest.mark.parametrize(
    ("sent", "status"),
    [("{", 400), ("[]", 400), ("null", 400), ('"text"', 400), ("\xff", 400), ('{"images": []}', 400)],
)
def test_a_bad_body_is_answered_400_without_a_traceback(sent: str, status: int) -> None:
    """(1), (2)"""
    answer = client().post("/predict", data=sent.encode("latin-1"), content_type="application/json")
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert answer.json is not None
    assert set(answer.json) == {"error", "details"}


def test_a_body_that_is_no_json_is_answered_415() -> None:
    assert client().post("/predict", data="x", content_type="text/plain").status_code == 415


def test_a_format_that_nobody_knows_is_answered_415() -> None:
    assert client().post("/predict", json=body({"data": png(), "format": "tiff"})).status_code == 415


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"data": "%%%", "format": "png"}, "not base64"),
        ({"data": encoded(b"no picture"), "format": "png"}, "not decodable as png"),
        ({"data": png(kind="png"), "format": "jpg"}, "not decodable as jpg"),
        ({"data": encoded(b"no dicom"), "format": "dcm"}, "not readable as DICOM"),
    ],
)
def test_what_cannot_be_decoded_is_answered_422_with_its_place(image: dict[str, object], said: str) -> None:
    """(2)"""
    answer = client().post("/predict", json=body(image))
    assert answer.status_code == 422
    assert answer.json is not None
    assert answer.json["details"][0].startswith("images[0].data: ")
    assert said in answer.json["details"][0]


@pytest.mark.parametrize("task", ["Segmentation", "SEGMENTATION", "segmentation"])
@pytest.mark.parametrize("modality", ["DERM", "derm"])
def test_case_makes_no_difference(task: str, modality: str) -> None:
    """(8)"""
    answer = client().post("/predict", json=body(task=task, modality=modality))
    assert (answer.status_code, len(masks(answer))) == (200, 1)


@pytest.mark.parametrize("task", ["report generation", "Report_Generation", "report"])
def test_both_spellings_of_a_task_are_taken(task: str) -> None:
    model = Model()
    assert client(model).post("/predict", json=body(task=task, modality="cxr")).status_code == 200
    assert model.asked[0].task == "report generation"
    assert model.asked[0].prompt == "How would you characterize the findings from <img0>?"


@pytest.mark.parametrize("path", ["/predict", "/models/medsam2/predict"])
@pytest.mark.parametrize(
    ("sent", "headers", "status"),
    [
        (b"[" * 100_000, {}, 400),
        (b'{"a":' * 100_000, {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"\x1f\x8b", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_body_that_is_no_plain_json_is_the_clients_fault(
    path: str, sent: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client().post(path, data=sent, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == status, answer.text


def test_defaults_are_those_that_the_public_interface_documents() -> None:
    """(12)"""
    model = Model()
    client(model).post("/predict", json=body())
    sampling = model.asked[0].sampling
    assert (sampling.num_beams, sampling.do_sample, sampling.min_length, sampling.top_p) == (1, True, 1, 0.9)
    assert (sampling.repetition_penalty, sampling.length_penalty, sampling.temperature) == (1.0, 1.0, 0.1)


def test_hyperparameters_reach_the_model() -> None:
    model = Model()
    sent = {"num_beams": 3, "do_sample": False, "seed": 4, "max_new_tokens": 9, "temperature": 1}
    client(model).post("/predict", json=body(hyperparams=sent))
    sampling = model.asked[0].sampling
    assert (sampling.num_beams, sampling.do_sample, sampling.seed, sampling.max_new_tokens) == (3, False, 4, 9)


def test_a_task_without_a_default_prompt_asks_for_one() -> None:
    answer = client().post("/predict", json=body(modality="cxr", task="detection"))
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["details"] == ["Missing required field: prompt (detection of cxr has no default)"]


# -- Engines --------------------------------------------------------------------------------------------------------


def test_without_a_model_the_answer_is_503_with_the_reason() -> None:
    """(11)"""
    registry = Registry({"medversa": Model()}, obstacles={"medversa": "engines.medversa.weights is not set"})
    answer = client(registry=registry).post("/predict", json=body())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "engines.medversa.weights is not set" in answer.text


def test_a_model_that_cannot_be_loaded_is_503_too() -> None:
    """(11)"""
    registry = Registry({"medversa": Model()}, fails=EngineFailed("the checkpoint does not fit"))
    answer = client(registry=registry).post("/predict", json=body())
    assert answer.status_code == 503
    assert "does not fit" in answer.text


def test_predict_is_off_until_it_is_asked_for() -> None:
    answer = client(enabled=False).post("/predict", json=body())
    assert answer.status_code == 503
    assert "[predict] enabled is false" in answer.text


def test_another_engine_may_be_named_and_does_what_it_can(tmp_path: Path) -> None:
    @dataclass
    class Bright:
        manifest: EngineManifest = DECLARED.manifest

        def load(self) -> None:
            """There is nothing to load."""

        def run(self, case: Case) -> Findings:
            return Findings(labels=(case.the_volume().voxels > 100).astype(np.uint8) * 2, narrative="Bright.")

    app = client(registry=Registry({"lungs": Bright()}))
    files = [{"data": encoded(data), "format": "dcm"} for data in part10(ct_series(3), tmp_path)]
    answer = app.post("/predict", json=body(*files, modality="ct", engine="lungs"))
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert (answer.json["text"], answer.json["engine"]) == ("Bright.", "lungs")
    assert set(np.unique(masks(answer))) <= {0, 1}
    assert app.post("/predict", json=body(engine="lungs")).status_code == 400
    assert app.post("/predict", json=body(engine="nobody")).status_code == 400


@pytest.mark.parametrize(
    ("error", "status"), [(EngineUnavailable("no memory"), 503), (EngineFailed("too long"), 422)]
)
def test_what_the_model_cannot_do_is_told(error: Exception, status: int) -> None:
    answer = client(Model(error=error)).post("/predict", json=body())
    assert answer.status_code == status
    assert str(error) in answer.text


def test_an_unexpected_fault_has_a_number_that_the_log_knows(caplog: pytest.LogCaptureFixture) -> None:
    """(2)"""
    answer = client(Model(error=RuntimeError("secret detail"))).post("/predict", json=body())
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json is not None
    number = answer.json["details"][0].rpartition(" ")[2]
    assert number in [getattr(record, "fault", "") for record in caplog.records]


def test_a_full_queue_and_a_slow_answer_are_503() -> None:
    """(10)"""
    model = Model(wait=threading.Event())
    registry = Registry({"medversa": model})
    service = PredictService(registry, PredictSettings(enabled=True, queue=1, timeout_s=0.5))
    app = Flask("test")
    app.register_blueprint(service.blueprint())
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(app.test_client().post("/predict", json=body()).status_code)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.wait is not None
    model.wait.set()
    assert statuses == [503] * 5
    assert len(model.asked) == 1  # the others were refused, or given up before their turn


def test_answers_are_never_mixed_up() -> None:
    """(10)"""
    app = client(queue=100).application
    wrong: list[int] = []

    def ask(number: int) -> None:
        data = png((10 + number, 20), seed=number)
        answer = app.test_client().post("/predict", json=body({"data": data, "format": "png"}))
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        if answer.status_code != 200 or not np.array_equal(masks(answer)[0], pixels[..., 0] > 127):
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_info_says_what_the_public_server_says() -> None:
    service = PredictService(Registry({"medversa": Model()}), PredictSettings(enabled=True), "cuda:0")
    info = service.info()
    assert info["name"] == "MedVersa_Internal"
    assert info["supported_modalities"] == ["cxr", "derm", "ct"]
    assert {"report generation", "classification", "segmentation"} <= set(info["supported_tasks"])  # type: ignore[call-overload]
    assert (info["device"], service.model_loaded) == ("cuda:0", False)


def test_the_api_describes_itself() -> None:
    paths, schemas = paths_and_schemas()
    operation = paths["/predict"]["post"]
    assert {"200", "202", "400", "413", "415", "422", "429", "500", "503"} == set(operation["responses"])
    assert "ImagePart" in schemas
    assert "#/$defs/" not in json.dumps([paths, schemas])


def test_nothing_of_a_request_is_in_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    sent = body(context="CANARY^PHI", prompt="CANARY^PHI", modality="cxr", task="report")
    for model in (Model(), Model(error=RuntimeError("no")), Model(error=EngineFailed("no"))):
        client(model).post("/predict", json=sent)
        assert "CANARY" not in repr(model.asked)
    assert "CANARY" not in caplog.text
