"""``POST /predict`` answered later and as DICOM, by a running gateway that is killed in between."""

from __future__ import annotations

import base64
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from gateway_server import GatewayServer

from gateway.phantom import write_phantom

SECTIONS: dict[str, dict[str, object]] = {"predict": {"enabled": True, "engine": "lungs"}}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, slices=40, rows=96)
    return folder


def _question(folder: Path, **more: object) -> dict[str, Any]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    image = {"data": base64.b64encode(out.getvalue()).decode(), "format": "dcm", "is_series": True}
    return {"images": [image], "modality": "ct", "task": "segmentation", **more}


def _until(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    end = time.monotonic() + 120
    while (found := ask())["state"] in ("queued", "running"):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def _written(data: bytes) -> dict[str, pydicom.Dataset]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    return {ds.Modality: ds for ds in found}


def test_masks_come_as_segmentation_and_report_or_the_reason(phantom: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(phantom.iterdir())[:20]:
        if path.name not in ("0005.dcm", "0006.dcm"):
            (few / path.name).write_bytes(path.read_bytes())
    with GatewayServer(tmp_path / "gateway", sections=SECTIONS) as server:
        answer = requests.post(f"{server.http_url}/predict", json=_question(phantom, output="dicom"), timeout=120)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/zip"
        written = _written(answer.content)
        assert set(written) == {"SEG", "SR"}
        source = pydicom.dcmread(next(iter(sorted(phantom.iterdir()))), stop_before_pixels=True)
        assert written["SEG"].StudyInstanceUID == source.StudyInstanceUID
        picture = {"data": base64.b64encode(b"x").decode(), "format": "png"}
        refused = requests.post(
            f"{server.http_url}/predict",
            json={"images": [picture], "modality": "derm", "task": "segmentation", "output": "dicom"},
            timeout=30,
        )
        assert (refused.status_code, refused.json()["details"]) == (415, ["images[0].format: output dicom needs dcm"])
        answer = requests.post(f"{server.http_url}/predict", json=_question(few, output="dicom"), timeout=60)
        assert answer.status_code == 422
        assert "missing" in answer.json()["details"][0].lower()


def test_an_accepted_question_is_answered_though_the_gateway_was_killed(phantom: Path, tmp_path: Path) -> None:
    server = GatewayServer(tmp_path, sections=SECTIONS)
    with server:
        accepted = [
            requests.post(f"{server.http_url}/predict?async=1", json=_question(phantom, **more), timeout=60)
            for more in ({}, {"output": "dicom"})
        ]
        assert [answer.status_code for answer in accepted] == [202, 202]
        assert accepted[0].headers["Location"] == accepted[0].json()["url"]
        server.kill()
        server.start()
        urls = [f"{server.http_url}{answer.json()['url']}" for answer in accepted]
        plain, dicom = (_until(lambda url=url: requests.get(url, timeout=30).json()) for url in urls)  # type: ignore[misc]
        assert (plain["state"], plain["answer"]["is_3d"]) == ("done", True)
        assert len(plain["answer"]["segmentation_3d"]) == len(list(phantom.iterdir()))
        result = requests.get(f"{server.http_url}{dicom['answer']['url']}", timeout=30)
        assert set(_written(result.content)) == {"SEG", "SR"}
        assert requests.delete(urls[0], timeout=30).status_code == 204
        assert requests.get(urls[0], timeout=30).status_code == 404
