"""The measurement of MedVersa's speed runs, on a model of any size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("language_models")
def test_speed_is_measured_with_weights_that_it_makes_itself() -> None:
    script = str(ROOT / "tests/benchmarks/medversa_speed.py")
    options = ["--size", "tiny", "--precision", "bf16", "--tokens", "4", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, script, *options],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith(("yes", "NO"))]
    assert [(row[0], row[-1]) for row in rows] == [(batch, "yes") for batch in ("1", "2", "4", "8")]
