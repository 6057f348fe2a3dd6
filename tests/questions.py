"""Requests to ``POST /predict``, and engines that answer what a test wants."""

from __future__ import annotations

import base64
import io
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from factories import ct_series, save
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset

from domain.engine import Case, Engine, EngineManifest
from domain.findings import Findings
from domain.question import Answer, Question
from inference.api import PredictService
from inference.manifest import read_declaration
from inference.predict_settings import PredictSettings
from inference.registry import ENGINES

DECLARED = read_declaration(ENGINES / "medversa" / "manifest.toml")


@dataclass
class QuestionModel:
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
class QuestionEngines:
    """Engines of a test; ``obstacles`` by name."""

    engines: dict[str, Engine]
    obstacles: dict[str, str] = field(default_factory=dict)
    fails: Exception | None = None
    loaded: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        return tuple(self.engines)

    def obstacle(self, name: str) -> str | None:
        return self.obstacles.get(name) if name in self.engines else "there is no such engine"

    def prompts(self, name: str) -> Mapping[str, Mapping[str, str]]:
        return DECLARED.prompts if name == "medversa" else {}

    def is_loaded(self, name: str) -> bool:
        return name in self.loaded

    def devices(self) -> Mapping[str, str]:
        return {name: self.places.get(name, "") for name in self.engines}

    def engine(self, name: str) -> Engine:
        if self.fails is not None:
            raise self.fails
        self.loaded.add(name)
        return self.engines[name]


def client(
    model: QuestionModel | None = None, registry: QuestionEngines | None = None, **settings: Any
) -> FlaskClient:
    registry = registry or QuestionEngines({"medversa": model or QuestionModel()})
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
