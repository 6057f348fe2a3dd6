"""Where what was sent is unpacked: full disks, and archives that are not what they say."""

from __future__ import annotations

import gzip
import io
import logging
import random
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from boxes import card
from factories import ct_series
from flask import Flask
from questions import QuestionEngines, QuestionModel, body, client, encoded, part10, zipped

from domain.errors import OutOfSpace
from inference.api import PredictService, Written
from inference.predict_request import InvalidRequest
from inference.predict_settings import PredictSettings
from inference.scratch import scratch, unpack

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let temporary folders have the files that are about to be written, on a device that is full."""
    made = iter(range(1000))

    def mkdtemp(*_: object, **__: object) -> str:
        folder = tmp_path / f"temporary-{next(made)}"
        folder.mkdir()
        for name in ("0", "1", "volume.nii"):
            (folder / name).symlink_to("/dev/full")
        return str(folder)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)


def _ct(folder: Path) -> list[bytes]:
    return part10(ct_series(10), folder)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("kind", ["zip", "dcm files", "picture", "nii.gz", "output dicom"])
def test_a_full_disk_is_no_fault_of_the_request(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = _ct(tmp_path / "ct")
    dicom = [{"data": encoded(file), "format": "dcm"} for file in files]
    archive = {"data": zipped({str(i): file for i, file in enumerate(files)}), "format": "dcm", "is_series": True}
    sent: dict[str, dict[str, object]] = {
        "zip": body(archive, modality="ct"),
        "dcm files": body(*dicom, modality="ct"),
        "picture": body(dicom[0]),
        "nii.gz": body({"data": encoded(_gzipped()), "format": "nii.gz"}, modality="ct"),
        "output dicom": body(*dicom, modality="ct", output="dicom"),
    }
    registry = QuestionEngines({"medversa": QuestionModel()})
    app = Flask("test")
    asking = PredictSettings(enabled=True)
    app.register_blueprint(PredictService(registry, asking, dicom=lambda *asked: Written(objects={})).blueprint())
    with caplog.at_level(logging.INFO):
        answer = app.test_client().post("/predict", json=sent[kind])
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10"), answer.json
    assert answer.json == {
        "error": "Service unavailable",
        "details": ["The gateway's disk for temporary files has no room for what was sent."],
    }
    assert "no room for temporary files" in caplog.text
    assert "Traceback" not in caplog.text


def _gzipped() -> bytes:
    return gzip.compress(b"\0" * 500)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_told_by_the_other_interface_too() -> None:
    engines = QuestionEngines({"medsam2": QuestionModel()})
    answer = client(registry=engines).post("/models/medsam2/predict", json=card(_gzipped()))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10"), answer.json


def test_other_faults_of_the_disk_stay_what_they_are() -> None:
    with pytest.raises(FileNotFoundError), scratch() as folder:
        (folder / "nothing").read_bytes()
    with pytest.raises(OutOfSpace), scratch():
        raise OSError(28, "No space left on device")


def _archive(method: int, names: int = 3) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for number in range(names):
            archive.writestr(f"{number}", random.Random(number).randbytes(200) + b"x" * 300)
    return out.getvalue()


@pytest.mark.parametrize("method", METHODS)
def test_whatever_is_wrong_with_an_archive_is_the_senders_fault(method: int, tmp_path: Path) -> None:
    whole, chance, refused = _archive(method), random.Random(method), list[int]()
    assert unpack(whole, tmp_path, PredictSettings(), 1 << 20) == 1500
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            unpack(bytes(damaged[: chance.choice((None, -1, 300))]), tmp_path, PredictSettings(), 1 << 20)
        except InvalidRequest as error:
            refused.append(error.status)
    assert set(refused) == {422}
    assert len(refused) > 100


@pytest.mark.parametrize("method", METHODS)
def test_no_more_is_unpacked_than_there_is_room_for(method: int, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("bomb", b"\0" * (8 << 20))
    with pytest.raises(InvalidRequest) as refused:
        unpack(out.getvalue(), tmp_path, PredictSettings(), 2 << 20)
    assert refused.value.status == 413
    assert (tmp_path / "0").stat().st_size <= 2 << 20


@pytest.mark.parametrize("name", ["{}", "{}/"])
def test_an_archive_of_nothing_but_entries_is_given_up_before_they_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(50):
            archive.writestr(name.format(number), b"")
    opened: list[Any] = []
    monkeypatch.setattr(zipfile, "ZipFile", opened.append)
    with pytest.raises(InvalidRequest) as refused:
        unpack(out.getvalue(), tmp_path, PredictSettings(most_entries=20), 1 << 20)
    assert (refused.value.status, opened) == (413, [])
