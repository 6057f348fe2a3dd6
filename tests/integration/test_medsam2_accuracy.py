from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from extras import require_models

require_models()

from medsam2_golden import checkpoint
from programs import REPOSITORY, module_at


@pytest.fixture(scope="module")
def measuring() -> ModuleType:
    """The program behind ``make accuracy``."""
    return module_at(REPOSITORY / "tests" / "benchmarks" / "medsam2_accuracy.py")


def test_the_box_is_that_of_the_largest_slice_and_dice_is_exact(measuring: ModuleType) -> None:
    truth = np.zeros((3, 10, 12), bool)
    truth[0, 1:3, 1:3] = truth[1, 2:6, 3:10] = True
    assert measuring.box_of(truth).corners == ((1, 2, 3), (1, 5, 9))
    assert measuring.dice(truth, truth) == 1
    assert measuring.dice(truth, ~truth) == 0
    half = truth.copy()
    half[1] = False
    assert measuring.dice(half, truth) == pytest.approx(2 * 4 / (4 + 32))


@pytest.mark.skipif(os.environ.get("VOXGATE_GOLDEN") != "1", reason="30 s of CPU; VOXGATE_GOLDEN=1 runs it")
def test_the_published_examples_run_through(measuring: ModuleType, shared_data: Path) -> None:
    files = sorted((shared_data / "gt" / "medsam2").glob("*.npz"))
    found = list(measuring.accuracy(checkpoint(), files, device="cpu", precision="fp32", threads=1))
    assert [label for _, label, _ in found] == [1, 1]
    assert all(0 <= value <= 1 for *_, value in found)  # these weights are random: the number means nothing
