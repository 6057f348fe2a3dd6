"""The engine ``deepbet`` on a real coronal T1 of a head, and on what is no T1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from scipy import ndimage

from domain.codes import Code
from domain.engine import Answer, Case, Engine
from domain.errors import NotApplicable
from domain.volume import Grid, Volume
from inference.registry import Registry
from inference.weighting import native_t1
from volume.assembly import assemble
from volume.axes import Axes
from volume.facts import facts
from volume.grouping import group
from volume.header import header_of

ROOT = Path(__file__).resolve().parents[2]
T1 = "mr/brain_T1_cor_GE_MRHEAD_100sl"
TRUTH_ML = 1726.5
"""What the package's own driver says of this series, voxel for voxel the same mask."""
INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")


@pytest.fixture(scope="module")
def head(unpacked: Callable[[str], Path]) -> Volume:
    datasets = [pydicom.dcmread(path, defer_size=4096) for path in files(unpacked(T1))]
    headers = [header_of(ds, ds.file_meta.TransferSyntaxUID) for ds in datasets]
    paths = {str(ds.SOPInstanceUID): Path(str(ds.filename)) for ds in datasets}
    (stack,) = group(headers)
    return assemble(stack, paths)


@pytest.fixture(scope="module")
def deepbet(deepbet_weights: Path) -> Engine:
    return Registry({}, weights=deepbet_weights).engine("deepbet")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def on_grid(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> Volume:
    slices, rows, columns = voxels.shape
    return Volume(
        voxels=np.ascontiguousarray(voxels),
        grid=Grid(shape=(slices, rows, columns), affine=affine.copy(), frame_of_reference_uid="2.25.1"),
        sop_instance_uids=tuple(f"2.25.{number + 1}" for number in range(slices)),
    )


def test_a_coronal_head_and_the_same_turned_to_other_axes_have_the_same_mask(deepbet: Engine, head: Volume) -> None:
    plain = deepbet.run(Case(volume=head))
    (measured,) = plain.measurements
    assert measured.value == pytest.approx(TRUTH_ML, rel=0.002)
    assert plain.labels is not None
    order, axial = (1, 2, 0), head.grid.affine[:, [1, 2, 0, 3]].copy()
    axial[:3, 3] += axial[:3, 1] * (head.grid.shape[2] - 1)
    axial[:3, 1] *= -1
    turned = on_grid(head.voxels.transpose(order)[:, ::-1], axial)
    other = deepbet.run(Case(volume=turned))
    assert other.labels is not None
    assert np.array_equal(Axes.of(turned.grid).view(other.labels), Axes.of(head.grid).view(plain.labels))


def test_a_head_cut_at_the_level_of_the_skull_base_is_qualified(deepbet: Engine, head: Volume) -> None:
    # Rows of a coronal slice go down: what is left is the upper half of the picture.
    upper = on_grid(head.voxels[:, :128], head.grid.affine)
    findings = deepbet.run(Case(volume=upper))
    assert findings.measurements == ()
    assert INCOMPLETE in {said.value for said in findings.evaluations}


@pytest.mark.parametrize("change", ["no vertex", "lying about the axes", "noise"])
def test_what_is_no_upright_head_is_not_applicable(deepbet: Engine, head: Volume, change: str) -> None:
    affine = head.grid.affine.copy()
    if change == "no vertex":
        affine[:3, 3] += affine[:3, 1] * 100
        spoilt = on_grid(head.voxels[:, 100:], affine)
    elif change == "lying about the axes":
        tilted = ndimage.rotate(head.voxels, 60, axes=(1, 2), reshape=False, order=1)  # type: ignore[attr-defined]
        spoilt = on_grid(tilted, affine)
    else:
        noise = np.random.default_rng(0).integers(0, 400, head.grid.shape)
        spoilt = on_grid(noise.astype(np.int16), affine)
    with pytest.raises(NotApplicable):
        deepbet.run(Case(volume=spoilt))


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        (T1, Answer.YES, "T1"),
        ("mr/brain_FLAIR_ax_Philips_BRAINIX_22sl", Answer.NO, "FLAIR"),
        ("mr/brain_T2_EPI_ax_Philips_BRAINIX_22sl", Answer.NO, "T2"),
        ("mr/prostate_DWI_3b_ProstateX-0000", Answer.NO, "BodyPartExamined"),
        ("mr/multiecho_GRE_Siemens_72", Answer.NO, "a map"),
    ],
)
def test_real_headers_tell_t1_from_everything_else(
    unpacked: Callable[[str], Path], name: str, answer: Answer, reason: str
) -> None:
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in files(unpacked(name))]
    headers = [header_of(ds, ds.file_meta.TransferSyntaxUID) for ds in datasets]
    for stack in group(headers):
        verdict = native_t1(facts(stack, None, None))
        assert verdict.answer is answer
        assert reason in verdict.reason


@pytest.mark.peer
def test_voxgate_run_measures_the_t1_and_says_why_not_the_others(
    unpacked: Callable[[str], Path],
    deepbet_weights: Path,
    check_objects: Path,
    peer: Callable[[str], str],
    tmp_path: Path,
) -> None:
    for program in ("dciodvfy", "dsrdump"):
        peer(program)
    folders = [unpacked(name) for name in (T1, "mr/brain_FLAIR_ax_Philips_BRAINIX_22sl")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "run", *map(str, folders), "--out", str(tmp_path / "out"), "--json"],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(ROOT), "VOXGATE_WEIGHTS__PATH": str(deepbet_weights)},
        capture_output=True,
        text=True,
        check=True,
    )
    head, flair = json.loads(done.stdout)["series"]
    assert head["state"] == "done"
    assert head["summary"][0]["measurements"][0]["value"] == pytest.approx(TRUTH_ML, rel=0.002)
    assert flair["state"] == "not-run"
    assert "FLAIR" in flair["reason"]
    source = without_dangling_references(folders[0], tmp_path / "source")
    judged = subprocess.run(
        [sys.executable, str(check_objects), str(tmp_path / "out"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout


def without_dangling_references(folder: Path, copy: Path) -> Path:
    """Return a copy of a series that no longer refers to what is not part of the sample."""
    copy.mkdir()
    for path in files(folder):
        dataset = pydicom.dcmread(path)
        for what in ("Image", "Study", "PerformedProcedureStep"):
            delattr(dataset, f"Referenced{what}Sequence")
        dataset.save_as(copy / path.name)
    return copy
