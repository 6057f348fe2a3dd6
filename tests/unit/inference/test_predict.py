"""``POST /predict`` on engines that say what the test wants. (n) is a defect of the public server."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import ct_series, mr_series, save
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from domain.engine import Case, EngineManifest
from domain.errors import EngineFailed, EngineUnavailable
from domain.findings import Findings
from domain.ports import Engine
from domain.question import Answer, Question
from inference.api import PredictService
from inference.manifest import read_declaration
from inference.predict_settings import PredictSettings
from inference.registry import ENGINES

DECLARED = read_declaration(ENGINES / "medversa" / "manifest.toml")


@dataclass
class Model:
    """Answers with what it was shown; draws where it is bright."""

    manifest: EngineManifest = DECLARED.manifest
    text: str = "Seen."
    draws: int = 1
    error: Exception | None = None
    wait: threading.Event | None = None
    asked: list[Question] = field(default_factory=list)

    def load(self) -> None:
        """There is nothing to load."""

    def run(self, case: Case) -> Findings:
        raise NotImplementedError

    def ask(self, question: Question, cancelled: Callable[[], bool] = lambda: False) -> Answer:
        self.asked.append(question)
        if self.wait is not None:
            self.wait.wait(10)
        if self.error is not None:
            raise self.error
        pictures = tuple((picture[..., 0] > 127).astype(np.uint8) for picture in question.pictures)
        volumes = () if question.volume is None else ((question.volume.voxels > 100).astype(np.uint8),)
        boxes = ((0.25, 0.5, 0.75, 1.0),) if question.task == "detection" else ()
        return Answer(
            text=self.text,
            picture_masks=(pictures,) * self.draws if pictures and question.task == "segmentation" else (),
            volume_masks=volumes * self.draws,
            boxes=boxes,
        )


@dataclass
class Registry:
    """Engines of a test; ``obstacles`` by name."""

    engines: dict[str, Engine]
    obstacles: dict[str, str] = field(default_factory=dict)
    fails: Exception | None = None
    loaded: set[str] = field(default_factory=set)

    def obstacle(self, name: str) -> str | None:
        return self.obstacles.get(name) if name in self.engines else "there is no such engine"

    def prompts(self, name: str) -> Mapping[str, Mapping[str, str]]:
        return DECLARED.prompts if name == "medversa" else {}

    def is_loaded(self, name: str) -> bool:
        return name in self.loaded

    def engine(self, name: str) -> Engine:
        if self.fails is not None:
            raise self.fails
        self.loaded.add(name)
        return self.engines[name]


def client(model: Model | None = None, registry: Registry | None = None, **settings: Any) -> FlaskClient:
    registry = registry or Registry({"medversa": model or Model()})
    app = Flask("test")
    service = PredictService(registry, PredictSettings(**{"enabled": True, **settings}))
    app.register_blueprint(service.blueprint())
    return app.test_client()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(shape: tuple[int, int] = (30, 50), *, seed: int = 0, kind: str = "png") -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (*shape, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, {"png": "PNG", "jpg": "JPEG"}[kind])
    return encoded(out.getvalue())


def zipped(files: Mapping[str, bytes]) -> str:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return encoded(out.getvalue())


def part10(datasets: list[Dataset], folder: Path) -> list[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return [path.read_bytes() for path in save(datasets, folder)]


def body(*images: Mapping[str, object], **changes: object) -> dict[str, object]:
    sent = list(images) or [{"data": png(), "format": "png"}]
    return {"images": sent, "modality": "derm", "task": "segmentation", **changes}


def masks(answer: Any, key: str = "segmentation_mask") -> list[np.ndarray]:
    return [np.load(io.BytesIO(base64.b64decode(item))) for item in answer.json[key]]


def grey(pixels: np.ndarray, photometric: str = "MONOCHROME2", **attributes: object) -> bytes:
    """Return a digital radiograph as a Part 10 file."""
    ds = ct_series(1)[0]
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.Modality, ds.PhotometricInterpretation = "DX", photometric
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(pixels.min() < 0)
    ds.PixelData = pixels.astype("<i2" if pixels.min() < 0 else "<u2").tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


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


# -- Pictures -------------------------------------------------------------------------------------------------------


def test_masks_lie_on_the_grid_of_each_picture_sent() -> None:
    """(4)"""
    answer = client().post(
        "/predict",
        json=body({"data": png((30, 50)), "format": "png"}, {"data": png((20, 10), kind="jpg"), "format": ".JPG"}),
    )
    assert answer.json is not None
    assert answer.json["is_3d"] is False
    assert answer.json["segmentation_mask"] == answer.json["segmentation_2d"]
    assert [mask.shape for mask in masks(answer)] == [(30, 50), (20, 10)]
    assert {mask.dtype.name for mask in masks(answer)} == {"uint8"}
    assert set(np.unique(masks(answer)[0])) <= {0, 1}


def test_an_answer_without_a_mask_has_an_empty_list() -> None:
    answer = client(Model(draws=0)).post("/predict", json=body())
    assert answer.json is not None
    assert (answer.json["segmentation_2d"], answer.json["is_3d"]) == ([], False)


def test_several_masks_of_one_picture_are_joined() -> None:
    assert len(masks(client(Model(draws=3)).post("/predict", json=body()))) == 1


def test_boxes_are_in_pixels_of_the_picture() -> None:
    answer = client().post("/predict", json=body(task="detection"))
    assert answer.json is not None
    assert answer.json["boxes"] == [[12.5, 15.0, 37.5, 30.0]]


def test_a_radiograph_and_its_inverse_give_the_same_picture() -> None:
    """(6)"""
    pixels = np.random.default_rng(2).integers(0, 4096, (40, 30))
    model = Model()
    for data in (grey(pixels), grey(4095 - pixels, "MONOCHROME1")):
        sent = body({"data": encoded(data), "format": "dcm"}, modality="cxr", task="classification")
        assert client(model).post("/predict", json=sent).status_code == 200
    one, other = (question.pictures[0] for question in model.asked)
    assert np.array_equal(one, other)


def test_rescale_and_window_are_applied_and_negative_values_do_not_wrap() -> None:
    """(6)"""
    pixels = np.linspace(-1000, 3000, 1200).reshape(40, 30).astype(int)
    data = grey(pixels, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=1000, WindowWidth=400)
    model = Model()
    client(model).post("/predict", json=body({"data": encoded(data), "format": "dcm"}, modality="cxr", task="report"))
    shown = model.asked[0].pictures[0][..., 0].ravel().astype(int)
    assert (np.diff(shown) >= 0).all()
    values = pixels.ravel() * 2 - 10
    assert set(shown[values < 790]) == {0}
    assert set(shown[values > 1210]) == {255}


def test_a_picture_of_16_bits_is_spread_not_clipped() -> None:
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)).save(out, "PNG")
    model = Model()
    client(model).post("/predict", json=body({"data": encoded(out.getvalue()), "format": "png"}))
    shown = model.asked[0].pictures[0]
    assert (shown.min(), shown.max(), len(np.unique(shown))) == (0, 255, 256)


def test_the_header_adds_to_the_context_and_sent_lines_win() -> None:
    pixels = np.arange(12).reshape(3, 4)
    image = {"data": encoded(grey(pixels, PatientAge="064Y", PatientSex="F")), "format": "dcm"}
    sent = body(image, modality="cxr", task="report", context="Indication: cough.")
    answer = client().post("/predict", json=sent)
    assert answer.json is not None
    assert answer.json["context_used"] == "Indication: cough.\nAge:60-70.\nGender:F."
    answer = client().post("/predict", json={**sent, "context": "Age:5.\nGender:M."})
    assert answer.json is not None
    assert answer.json["context_used"] == "Age:5.\nGender:M."


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_a_picture_too_large_is_refused_before_it_is_decoded(kind: str) -> None:
    data = png((40, 40)) if kind == "png" else encoded(grey(np.arange(1600).reshape(40, 40)))
    answer = client(most_pixels=1000).post("/predict", json=body({"data": data, "format": kind}))
    assert answer.status_code in (413, 422)
    assert answer.json is not None
    assert "1000 pixels" in answer.json["details"][0]


def test_a_body_too_large_is_answered_413() -> None:
    answer = client(most_body_mb=1).post("/predict", json=body({"data": "A" * (2 << 20), "format": "png"}))
    assert answer.status_code == 413


# -- Volumes --------------------------------------------------------------------------------------------------------


def test_a_zipped_series_is_one_volume_in_its_own_order_whatever_the_files_are_called(tmp_path: Path) -> None:
    """(7), (9)"""
    series = ct_series(6)
    files = part10(series, tmp_path)
    order = [3, 0, 5, 1, 4, 2]
    names = {f"a/b{i}/f{'x' * i}": files[i] for i in order} | {"DICOMDIR": b"no", "readme.txt": b"hello"}
    model = Model()
    answer = client(model).post(
        "/predict", json=body({"data": zipped(names), "format": "dcm", "is_series": True}, modality="ct")
    )
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert model.asked[0].prompt == "Segment the liver."
    volume = model.asked[0].volume
    assert volume is not None
    assert [item["sop_instance_uid"] for item in answer.json["slices"]] == list(volume.sop_instance_uids)
    assert answer.json["is_3d"] is True
    assert [mask.shape for mask in masks(answer, "segmentation_3d")] == [volume.grid.shape[1:]] * 6
    assert volume.unit == "HU"


def test_the_slices_may_be_sent_one_by_one(tmp_path: Path) -> None:
    files = [{"data": encoded(data), "format": "dcm"} for data in part10(ct_series(4), tmp_path)]
    assert len(masks(client().post("/predict", json=body(*files, modality="ct")))) == 4


def test_of_several_series_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    """(9)"""
    files = part10(ct_series(4), tmp_path / "ct") + part10(mr_series(5), tmp_path / "mr")
    data = zipped({str(i): file for i, file in enumerate(files)})
    answer = client().post("/predict", json=body({"data": data, "format": "dcm", "is_series": True}, modality="ct"))
    assert len(masks(answer)) == 4


def test_several_series_that_fit_are_listed(tmp_path: Path) -> None:
    """(9)"""
    other = ct_series(5)
    series_uid = generate_uid()
    for ds in other:
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series_uid, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    files = part10(ct_series(4), tmp_path / "one") + part10(other, tmp_path / "other")
    data = zipped({str(i): file for i, file in enumerate(files)})
    answer = client().post("/predict", json=body({"data": data, "format": "dcm", "is_series": True}, modality="ct"))
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["details"] == [
        "images: not exactly one CT volume",
        "series 1, 4 instances: a CT volume",
        "series 2, 5 instances: a CT volume",
    ]


def test_a_series_with_a_gap_is_refused_with_the_reason(tmp_path: Path) -> None:
    files = part10(ct_series(8), tmp_path)
    data = zipped({str(i): file for i, file in enumerate(files) if i != 4})
    answer = client().post("/predict", json=body({"data": data, "format": "dcm", "is_series": True}, modality="ct"))
    assert answer.status_code == 422
    assert "missing" in answer.text.lower()


def nifti(voxels: np.ndarray, *, claim: tuple[int, ...] | None = None) -> bytes:
    """Return a gzipped NIfTI-1 file of voxels ``(x, y, z)``."""
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *(claim or voxels.shape), 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1.0, 1.0, 1.0, 3.0, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<f", header, 112, 1.0)
    struct.pack_into("<h", header, 254, 1)
    for row, values in enumerate(((-1.0, 0, 0, 0), (0, -1.0, 0, 0), (0, 0, 3.0, 0))):
        struct.pack_into("<4f", header, 280 + 16 * row, *values)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + b"\0" * 4 + voxels.astype("<i2").tobytes(order="F"))


def test_a_nifti_is_taken_and_its_masks_are_its_slices() -> None:
    """(3)"""
    voxels = np.zeros((8, 6, 5), np.int16)
    voxels[7, 2, 3] = 300
    answer = client().post("/predict", json=body({"data": encoded(nifti(voxels)), "format": "nii.gz"}, modality="CT"))
    assert answer.status_code == 200, answer.text
    drawn = np.stack(masks(answer))
    assert drawn.shape == (5, 6, 8)
    assert np.argwhere(drawn).tolist() == [[3, 2, 7]]
    assert answer.json is not None
    assert "slices" not in answer.json


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"no gzip", 422),
        (gzip.compress(b"short"), 422),
        (nifti(np.zeros((4, 4, 4)), claim=(30000, 30000, 30000)), 413),
        (nifti(np.zeros((4, 4, 4)), claim=(40, 40, 40)), 422),
        (nifti(np.zeros((4, 4, 4)), claim=(4, 4, 0)), 422),
        (gzip.compress(b"\0" * (3 << 20)), 413),
    ],
)
def test_a_nifti_that_lies_is_refused(data: bytes, status: int) -> None:
    sent = body({"data": encoded(data), "format": "nii.gz"}, modality="ct")
    assert client(most_unpacked_mb=2).post("/predict", json=sent).status_code == status


def test_an_archive_cannot_write_outside_nor_burst(tmp_path: Path) -> None:
    """(9)"""
    outside = tmp_path / "outside"
    sent = {"format": "dcm", "is_series": True}
    for names, status in (
        ({f"../../../../..{outside}": b"x", str(outside): b"x"}, 422),
        ({"bomb": b"\0" * (3 << 20)}, 413),
        ({str(i): b"" for i in range(30)}, 413),
    ):
        answer = client(most_unpacked_mb=2, most_entries=20).post(
            "/predict", json=body({**sent, "data": zipped(names)}, modality="ct")
        )
        assert answer.status_code == status
    assert not outside.exists()


def test_a_picture_is_no_volume() -> None:
    assert client().post("/predict", json=body(modality="ct")).status_code == 415
    volume = {"data": encoded(nifti(np.zeros((4, 4, 4)))), "format": "nii.gz"}
    assert client().post("/predict", json=body(volume)).status_code == 415


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
            return Findings(labels=(case.volume.voxels > 100).astype(np.uint8) * 2, narrative="Bright.")

    app = client(registry=Registry({"lungs": Bright()}))
    files = [{"data": encoded(data), "format": "dcm"} for data in part10(ct_series(3), tmp_path)]
    answer = app.post("/predict", json=body(*files, modality="ct", engine="lungs"))
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert (answer.json["text"], answer.json["engine"]) == ("Bright.", "lungs")
    assert set(np.unique(masks(answer))) <= {0, 1}
    assert app.post("/predict", json=body(engine="lungs")).status_code == 400
    assert app.post("/predict", json=body(engine="nobody")).status_code == 503


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
    document = client().get("/openapi.json").json
    assert document is not None
    operation = document["paths"]["/predict"]["post"]
    assert {"200", "400", "413", "415", "422", "500", "503"} == set(operation["responses"])
    assert "ImagePart" in document["components"]["schemas"]
    assert "#/$defs/" not in json.dumps(document)


def test_nothing_of_a_request_is_in_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    sent = body(context="CANARY^PHI", prompt="CANARY^PHI", modality="cxr", task="report")
    for model in (Model(), Model(error=RuntimeError("no")), Model(error=EngineFailed("no"))):
        client(model).post("/predict", json=sent)
        assert "CANARY" not in repr(model.asked)
    assert "CANARY" not in caplog.text
