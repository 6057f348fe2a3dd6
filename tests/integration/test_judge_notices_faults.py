"""The judge of result objects notices what it is there for: one fault in each of many copies of good objects."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from results import result_of

from dicom_out.writer import Writer

pytestmark = pytest.mark.peer
Fault = Callable[[Dataset], object]


def _shared(seg: Dataset) -> Dataset:
    item: Dataset = seg.SharedFunctionalGroupsSequence[0]
    return item


def _shifted(seg: Dataset) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        plane = group.PlanePositionSequence[0]
        x, y, z = (float(value) for value in plane.ImagePositionPatient)
        plane.ImagePositionPatient = [x, y, z + 1.0]


def _flipped(seg: Dataset) -> None:
    orientation = _shared(seg).PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def _without(code: str) -> Fault:
    def fault(report: Dataset) -> None:
        report.ContentSequence = [
            item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != code
        ]

    return fault


def _other_tracking(report: Dataset) -> None:
    (measured,) = (i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
    for item in measured.ContentSequence[0].ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "112040":
            item.UID = generate_uid()


def _one_reference_less(report: Dataset) -> None:
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence = series.ReferencedSOPSequence[1:]


SEG_FAULTS: dict[str, Fault] = {
    "another frame of reference": lambda ds: setattr(ds, "FrameOfReferenceUID", generate_uid()),
    "a millimetre off": _shifted,
    "rows turned round": _flipped,
    "another pixel spacing": lambda ds: setattr(_shared(ds).PixelMeasuresSequence[0], "PixelSpacing", [0.9, 0.9]),
    "another slice distance": lambda ds: setattr(_shared(ds).PixelMeasuresSequence[0], "SpacingBetweenSlices", "5.0"),
    "no algorithm name": lambda ds: ds.SegmentSequence[0].pop("SegmentAlgorithmName"),
    "no referenced series": lambda ds: ds.pop("ReferencedSeriesSequence"),
    "another patient": lambda ds: setattr(ds, "PatientID", "SOMEONE"),
}
SR_FAULTS: dict[str, Fault] = {
    "no procedure reported": _without("121058"),
    "no observer type": _without("121005"),
    "another tracking": _other_tracking,
    "an image not in evidence": _one_reference_less,
}


def test_each_fault_is_noticed_and_the_good_objects_pass(
    tmp_path: Path, check_objects: Path, peer: Callable[[str], str]
) -> None:
    for tool in ("dciodvfy", "dcentvfy", "dsrdump", "dcmdump", "segimage2itkimage", "tid1500reader"):
        peer(tool)
    series = ct_series(voxels=np.zeros((5, 16, 24), np.int16))
    labels = np.zeros((5, 16, 24), np.uint8)
    labels[1:4, 4:9, 5:12] = 1
    result = result_of(series, tmp_path / "source", labels)
    results = tmp_path / "results"
    seg, report = Writer().write(result, results)
    for original, faults in ((seg, SEG_FAULTS), (report, SR_FAULTS)):
        for name, fault in faults.items():
            ds = dcmread(original.path)
            ds.SOPInstanceUID = generate_uid()
            fault(ds)
            ds.save_as(results / f"{name.replace(' ', '-')}.dcm", enforce_file_format=True)
    search = os.pathsep.join(("/usr/bin", os.environ["PATH"]))
    command = [sys.executable, str(check_objects), str(results), str(tmp_path / "source")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": search}, check=False)
    failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAIL")}
    faulty = {f"{name.replace(' ', '-')}.dcm" for name in (*SEG_FAULTS, *SR_FAULTS)}
    assert failed - {"dcentvfy"} == faulty, done.stdout
    assert done.returncode == 1
