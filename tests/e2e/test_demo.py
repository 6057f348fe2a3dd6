"""``make demo`` as a newcomer sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import ct_series, save
from PIL import Image

from gateway.runfiles import read_status

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.e2e
def test_the_demo_holds_and_leaves_seg_sr_and_a_picture(tmp_path: Path) -> None:
    done = demo(cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything held." in done.stderr
    for word in ("Left lung", "Right lung", "lungs 1", "Truth ml"):
        assert word in done.stdout
    (picture,) = (tmp_path / "voxgate-demo").glob("*.montage.png")
    with Image.open(picture) as image:
        assert image.width > 1000
    (seg,) = (tmp_path / "voxgate-demo" / "store").rglob("seg.dcm")
    assert str(seg) in done.stdout
    assert read_status(tmp_path / "voxgate-demo" / "store") is None


@pytest.mark.e2e
def test_the_demo_on_a_users_folder_tells_the_fate_of_each_series(tmp_path: Path) -> None:
    save(ct_series(3), tmp_path / "mine")
    done = demo("mine", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not-run" in done.stdout
    assert "CANARY" not in done.stdout + done.stderr + (tmp_path / "voxgate-demo" / "voxgate.log").read_text()
