"""Real radiographs and photographs, as ``POST /predict`` shows them to a model."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pydicom
import pytest
from questions import QuestionModel, body, client, masks

NAMES = ["xr/CR_MONO1_chest_Fuji_440.dcm", "xr/RG1_chest_J2KI.dcm", "xr/dx_image.dcm", "derm/VL1.dcm", "derm/VL2.dcm",
         "derm/VL3.dcm"]  # fmt: skip


def _shown(path: Path, modality: str) -> np.ndarray:
    model = QuestionModel()
    image = {"data": base64.b64encode(path.read_bytes()).decode(), "format": "dcm"}
    answer = client(model).post("/predict", json=body(image, modality=modality, prompt="Segment the lesion."))
    assert answer.status_code == 200, answer.text
    (picture,) = model.asked[0].pictures
    assert masks(answer)[0].shape == picture.shape[:2]
    return picture


@pytest.mark.parametrize("name", NAMES)
def test_a_real_image_uses_the_whole_range_on_its_own_grid(shared_data: Path, name: str) -> None:
    picture = _shown(shared_data / name, "cxr" if name.startswith("xr") else "derm")
    ds = pydicom.dcmread(shared_data / name, stop_before_pixels=True)
    assert picture.shape == (ds.Rows, ds.Columns, 3)
    assert picture.max() - picture.min() > 150


def test_bone_is_bright_in_a_monochrome1_chest(shared_data: Path) -> None:
    """Stored values fall with density there; the mediastinum must come out brighter than the lungs beside it."""
    picture = _shown(shared_data / NAMES[0], "cxr")[..., 0].astype(float)
    rows, columns = picture.shape
    band = picture[int(rows * 0.55) : int(rows * 0.65)]
    spine = band[:, int(columns * 0.48) : int(columns * 0.54)].mean()
    lungs = [band[:, int(columns * at) : int(columns * (at + 0.06))].mean() for at in (0.26, 0.70)]
    assert spine > max(lungs)


def test_a_colour_photograph_stays_in_colour(shared_data: Path) -> None:
    picture = _shown(shared_data / "derm/VL1.dcm", "derm").astype(int)
    assert np.abs(picture[..., 0] - picture[..., 2]).mean() > 5


def test_an_image_relabelled_as_monochrome1_is_shown_as_its_negative(shared_data: Path) -> None:
    original = _shown(shared_data / "xr/1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", "cxr")
    relabelled = _shown(shared_data / "xr/Fake_MONOHR1.dcm", "cxr")
    assert np.abs(relabelled.astype(int) + original - 255).max() <= 1
