"""The Orthanc that other tests use."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from factories import ct_slice, save
from orthanc_server import OrthancServer

pytestmark = pytest.mark.peer


def test_holds_what_is_posted_to_it_and_can_be_emptied(orthanc: OrthancServer, tmp_path: Path) -> None:
    (path,) = save([ct_slice()], tmp_path)
    orthanc.upload(path)
    assert orthanc.count() == orthanc.count("CT") == 1
    assert orthanc.count("SR") == 0
    assert orthanc.datasets()[0].Modality == "CT"
    orthanc.clear()
    assert orthanc.count() == 0


def test_serves_dicomweb(orthanc: OrthancServer) -> None:
    answer = requests.get(f"{orthanc.dicomweb_url}/studies", timeout=10)
    assert (answer.status_code, answer.json()) == (200, [])
