"""Every kind of object on real volumes of every kind, before judges that share no code with the writers.

Four slices each, with the names and identifiers of the source; pictures and cine: ``test_pictures_judged.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from results import ATTENUATION, MEAN, VOLUME, ball, manifest

from dicom_out.profile import Options, Profile
from dicom_out.writer import Writer
from domain.codes import HOUNSFIELD_UNIT, MILLILITRE, Code
from domain.findings import Detection, Evaluation, Findings, Measurement
from domain.ports import Result
from domain.volume import Volume
from volume.assembly import assemble
from volume.digest import inspect
from volume.grouping import group

SLICES = 4
ABDOMEN = "ct/abdomen_Siemens_J2K_20sl_TotalSeg"
VOLUMES = {
    "GE chest": "ct/chest_GE_CMB-CRC_100sl",
    "abdomen in JPEG 2000": ABDOMEN,
    "oblique FLAIR": "mr/brain_FLAIR_ax_Philips_BRAINIX_22sl",
    "PET": "pet/PET_wholebody_QIN-HEADNECK-0024_299sl",
    "enhanced MR": "enhanced/BRTUM004",
}
PROFILES = {
    "all": Profile(name="all", objects=("SEG", "SR", "TEXT-SR", "PMAP", "SC", "PDF", "KOS")),
    "map": Profile(name="map", objects=("SEG",), options=Options(segmentation="labelmap", compression="rle")),
    "soft": Profile(name="soft", objects=("SEG",), options=Options(segmentation="fractional")),
}
KINDS = {
    "SEG", "SEG-LABELMAP", "SEG-FRACTIONAL", "SR", "SR-COMPREHENSIVE", "TEXT-SR", "PMAP", "SC", "PDF", "KOS"
}  # fmt: skip
SUV, UPTAKE = Code("{SUVbw}g/ml", "UCUM", "Standardized Uptake Value body weight"), Code("126400", "DCM", "SUV")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")
SUMMARY = Code("111065", "DCM", "Summary of Analyses")
pytestmark = pytest.mark.peer


@pytest.fixture
def source(
    request: pytest.FixtureRequest, shared_data: Path, unpacked: Callable[[str], Path], tmp_path: Path
) -> Path:
    """A folder with four slices of a series, or with an enhanced image."""
    folder, name = tmp_path / "source", VOLUMES[request.param]
    folder.mkdir()
    if name.startswith("enhanced"):
        series: list[Dataset] = [dcmread(shared_data / name)]
    else:
        home = shared_data / name if name == ABDOMEN else unpacked(name)
        series = [dcmread(path) for path in home.rglob("*") if path.is_file()]
        series.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    middle = len(series) // 2
    for number, ds in enumerate(_sound(series[middle : middle + SLICES], is_bare=name == ABDOMEN)):
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def _sound(series: list[Dataset], *, is_bare: bool) -> list[Dataset]:
    """Fill in the identifiers that a series lacks; what names images that are not here would fail the source."""
    uids = [generate_uid() for _ in range(3)]
    for ds in series:
        if is_bare:
            ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
            ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids
        _forget(ds)
        if ds.get("PatientSex") not in ("M", "F", "O"):
            ds.PatientSex = ""  # no other value is copied
    return series


def _forget(ds: Dataset) -> None:
    """Leave out what names other instances, in the functional groups too."""
    for element in list(ds):
        if element.keyword.startswith(("Referenced", "Source", "RequestAttributes", "ProcedureCode")):
            del ds[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                _forget(item)


def volume_in(folder: Path) -> tuple[Volume, dict[str, Path], str]:
    found = [(inspect(path)[0], path) for path in sorted(folder.iterdir())]
    paths = {header.sop_instance_uid: path for header, path in found}
    stacks = [stack for stack in group([header for header, _ in found]) if stack.refusal is None]
    return assemble(stacks[0], paths), paths, str(dcmread(found[0][1], stop_before_pixels=True).Modality)


def everything(volume: Volume, paths: dict[str, Path], modality: str) -> Result:
    """Return masks, probabilities, a detection, numbers, statements and texts on a volume."""
    grid, engine = volume.grid, manifest()
    slices, rows, columns = grid.shape
    labels = ball(grid, grid.to_lps((slices * 0.4, rows * 0.5, columns * 0.4)), 30.0).astype(np.uint8)
    labels[ball(grid, grid.to_lps((slices * 0.5, rows * 0.5, columns * 0.65)), 12.0)] = 2
    unit = {"CT": (ATTENUATION, HOUNSFIELD_UNIT), "PT": (UPTAKE, SUV)}.get(modality)
    numbers = [
        Measurement(segment=segment.key, concept=VOLUME, value=_ml(labels == number, volume), unit=MILLILITRE)
        for number, segment in enumerate(engine.segments, start=1)
    ]
    if unit is not None:
        mean = Measurement(
            segment=engine.segments[0].key, concept=unit[0], value=-12.3456, unit=unit[1], derivation=MEAN
        )
        numbers.append(mean)
    findings = Findings(
        labels=labels,
        segments=engine.segments,
        probabilities=tuple((labels == n).astype(np.float32) * np.float32(0.75) for n in (1, 2)),
        measurements=tuple(numbers),
        evaluations=(Evaluation(segment=None, concept=Code("121052", "DCM", "Presence of property"), value="seen"),),
        detections=(
            Detection(
                key="box",
                label="Box",
                category=engine.segments[0].category,
                type=engine.segments[0].type,
                box=(4.0, 5.0, 20.5, 30.0),
                image=1,
                probability=0.25,
            ),
        ),
        narrative="Something is seen.",
        impression="Nothing of importance.",
    )
    return Result(
        job_id="0123456789abcdef",
        findings=findings,
        grid=grid,
        source_paths=tuple(paths[uid] for uid in volume.sop_instance_uids),
        source_frames=volume.frame_numbers,
        manifest=engine,
        route="all",
        stack="",
        started_at=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
        destinations=tuple(PROFILES),
    )


def _ml(mask: np.ndarray, volume: Volume) -> float:
    return float(np.count_nonzero(mask)) * volume.grid.voxel_volume_ml


@pytest.mark.parametrize("source", VOLUMES, indirect=True)
def test_judges_pass_every_kind_on_a_real_volume(
    tmp_path: Path, source: Path, check_objects: Path, peer: Callable[[str], str]
) -> None:
    for tool in ("dciodvfy", "dcentvfy", "dsrdump", "dcmdump", "segimage2itkimage", "tid1500reader"):
        peer(tool)
    result = everything(*volume_in(source))
    notice = replace(
        result,
        job_id="fedcba9876543210",
        is_notice=True,
        findings=Findings(labels=None, evaluations=(Evaluation(segment=None, concept=SUMMARY, value=NOT_ATTEMPTED),)),
    )
    writer = Writer(profiles=PROFILES)
    for number, said in enumerate((result, notice)):
        objects = writer.write(said, tmp_path / "results" / str(number))
        writer.verify(said, objects)
        if said is result:
            assert {item.kind for item in objects} == KINDS
    search = os.pathsep.join(("/usr/bin", os.environ["PATH"]))
    command = [sys.executable, str(check_objects), str(tmp_path / "results"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": search}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
