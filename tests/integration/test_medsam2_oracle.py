"""Against the original code itself, where PyPI's ``sam2`` is installed (development only)."""

from __future__ import annotations

import importlib.util
import os

import pytest
from extras import require_models

require_models()
if importlib.util.find_spec("sam2") is None or importlib.util.find_spec("hydra") is None:
    pytest.skip(
        "not installed: sam2 (pip install --no-deps sam2==1.1.0, hydra-core, iopath)", allow_module_level=True
    )
if os.environ.get("VOXGATE_GOLDEN") != "1":
    pytest.skip("20 s of CPU; VOXGATE_GOLDEN=1 runs it", allow_module_level=True)

import torch
from medsam2_golden import case, checkpoint, drawn, golden_network, meta, volume

from inference.medsam2.network import Features
from inference.medsam2.tracker import at_size, track
from inference.medsam2.windowing import Windowed


@pytest.mark.filterwarnings("ignore")
def test_four_slices_are_followed_as_the_original_code_follows_them() -> None:
    from sam2_oracle import follow, predictor  # importing it warns

    voxels, (box,) = volume()[3:7], case("box")["boxes"]
    seen = Windowed(voxels, tuple(meta()["window"]))
    with torch.inference_mode():
        expected = dict(follow(predictor(checkpoint()), lambda k: seen.image(k, 512), voxels.shape, 1, box))
        features = Features(golden_network(), lambda k: torch.from_numpy(seen.image(k, 512)), range(1, 2))
        prompts = [{1: next(iter(drawn("box")[0].values()))}]
        found = {item.slice: item.logits for item in track(golden_network(), features, 4, prompts)}
    assert found.keys() == expected.keys() == set(range(4))
    for index, logits in found.items():
        difference = float((at_size(logits, voxels.shape[1:]) - expected[index]).abs().max())
        assert difference < (1e-4 if index == 1 else 2e-3)
