"""Answers of ``POST /predict`` as DICOM."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import ct_series, save

from domain.errors import EngineFailed
from gateway.config import load_config
from gateway.dicom_answers import dicom_answers
from gateway.wiring import engine_registry


def test_an_answer_that_nobody_waits_for_is_not_made(tmp_path: Path) -> None:
    files = save(ct_series(12), tmp_path / "in")
    config = load_config(environ={})
    make = dicom_answers(config, engine_registry(config))
    with pytest.raises(EngineFailed, match="Nobody waits"):
        make(files, "lungs", {}, tmp_path / "out", lambda: True)
    assert not (tmp_path / "out").exists()
