from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chests import lungs_in, millilitres

from domain.codes import Code
from domain.volume import Volume
from gateway.phantom import PhantomTruth, write_phantom
from volume.assembly import assemble
from volume.grouping import group
from volume.header import header_of


def assembled(truth: PhantomTruth) -> Volume:
    datasets = [pydicom.dcmread(path, defer_size=4096) for path in truth.paths]
    headers = [header_of(ds, ds.file_meta.TransferSyntaxUID) for ds in datasets]
    (stack,) = group(headers)
    return assemble(stack, {h.sop_instance_uid: path for h, path in zip(headers, truth.paths, strict=True)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("small"), small=True)


def test_the_series_is_a_regular_volume_in_hounsfield_units(whole: PhantomTruth) -> None:
    volume = assembled(whole)
    assert volume.unit == "HU"
    assert volume.grid.shape == whole.shape
    assert volume.grid.shape[0] >= 120
    assert volume.grid.spacing_mm == pytest.approx(whole.spacing_mm, rel=1e-4)


def test_lungs_finds_the_true_volumes_and_densities(whole: PhantomTruth) -> None:
    volume = assembled(whole)
    findings = lungs_in(volume)
    found = millilitres(findings, volume)
    assert found["left_lung"] == pytest.approx(whole.left_ml, rel=0.03)
    assert found["right_lung"] == pytest.approx(whole.right_ml, rel=0.03)
    density = {item.segment: item.value for item in findings.measurements if item.label == "Mean attenuation"}
    assert density["left_lung"] == pytest.approx(whole.left_mean_hu, abs=5)
    assert density["right_lung"] == pytest.approx(whole.right_mean_hu, abs=5)
    stated = [item for item in findings.measurements if item.concept == Code("118565006", "SCT", "Volume")]
    assert len(stated) == 2


def test_the_small_series_shows_both_lungs_too(small: PhantomTruth) -> None:
    volume = assembled(small)
    found = millilitres(lungs_in(volume), volume)
    assert found["left_lung"] == pytest.approx(small.left_ml, rel=0.03)
    assert found["right_lung"] == pytest.approx(small.right_ml, rel=0.03)


@pytest.mark.parametrize("seed", range(1, 6))
def test_every_small_series_shows_both_lungs(tmp_path: Path, seed: int) -> None:
    truth = write_phantom(tmp_path, small=True, seed=seed)
    volume = assembled(truth)
    found = millilitres(lungs_in(volume), volume)
    assert found["left_lung"] == pytest.approx(truth.left_ml, rel=0.05)
    assert found["right_lung"] == pytest.approx(truth.right_ml, rel=0.05)


def test_the_same_seed_writes_the_same_files(small: PhantomTruth, tmp_path: Path) -> None:
    again = write_phantom(tmp_path, small=True)
    assert [path.read_bytes() for path in again.paths] == [path.read_bytes() for path in small.paths]


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"patient_name": "OTHER"}, {"fresh": True}], ids=["seed", "patient", "fresh"]
)
def test_another_phantom_has_other_uids(small: PhantomTruth, tmp_path: Path, other: dict[str, object]) -> None:
    made = write_phantom(tmp_path, small=True, **other)  # type: ignore[arg-type]  # one argument a case
    assert made.study_instance_uid != small.study_instance_uid
    assert made.series_instance_uid != small.series_instance_uid


def test_the_patient_is_ours_or_the_one_asked_for(small: PhantomTruth, tmp_path: Path) -> None:
    named = write_phantom(tmp_path, small=True, patient_name="CANARY^PHI")
    assert pydicom.dcmread(small.paths[0]).PatientName == "PHANTOM^CHEST"
    assert pydicom.dcmread(named.paths[0]).PatientName == "CANARY^PHI"
    assert not any("CANARY" in path.name for path in tmp_path.iterdir())


def test_slices_ascend_and_no_lung_reaches_the_first_or_last(whole: PhantomTruth) -> None:
    heights = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in whole.paths]
    assert np.diff(heights) == pytest.approx([whole.spacing_mm[0]] * (len(heights) - 1), rel=1e-4)
    labels = lungs_in(assembled(whole)).labels
    assert labels is not None
    assert not labels[[0, -1]].any()


@pytest.mark.peer
def test_dciodvfy_finds_no_error(small: PhantomTruth, peer: Callable[[str], str]) -> None:
    for path in itertools.islice(small.paths, 2):
        told = subprocess.run([peer("dciodvfy"), path], capture_output=True, text=True, check=False)
        assert "CTImage" in told.stderr
        assert "Error" not in told.stderr
