"""The engine ``lungs`` on real series, assembled by the product's own reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from chests import dice, lungs_in, millilitres, volume_of

from domain.codes import Code
from domain.errors import NotApplicable
from domain.instance import Header
from domain.series import StackKind
from domain.volume import Volume
from volume.assembly import assemble
from volume.grouping import group
from volume.header import header_of

INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
VOLUME = Code("118565006", "SCT", "Volume")


def volumes_of(files: Sequence[Path]) -> list[Volume]:
    paths: dict[str, Path] = {}
    headers: list[Header] = []
    for path in files:
        ds = pydicom.dcmread(path, defer_size=4096)
        if ds.get("Modality") == "CT":
            headers.append(header_of(ds, ds.file_meta.TransferSyntaxUID))
            paths[headers[-1].sop_instance_uid] = path
    stacks = [stack for stack in group(headers) if stack.refusal is None and stack.kind is StackKind.VOLUME]
    return [assemble(stack, paths) for stack in stacks]


def nifti(path: Path) -> Volume:
    """Read a NIfTI file; ITK's coordinates are LPS as ours."""
    image: Any = sitk.ReadImage(str(path))  # untyped
    affine = np.eye(4)
    origin = np.asarray(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    for axis, step in enumerate(((0, 0, 1), (0, 1, 0), (1, 0, 0))):
        affine[:3, axis] = np.asarray(image.TransformIndexToPhysicalPoint(step)) - origin
    affine[:3, 3] = origin
    return volume_of(sitk.GetArrayFromImage(image).astype(np.int16), affine)


def test_a_chest_whose_bases_are_cut_off_is_qualified(unpacked: Callable[[str], Path]) -> None:
    (volume,) = volumes_of(sorted(unpacked("ct/chest_GE_CMB-CRC_100sl").rglob("*.dcm")))
    findings = lungs_in(volume)
    found = millilitres(findings, volume)
    assert found["left_lung"] == pytest.approx(2000, rel=0.03)
    assert found["right_lung"] == pytest.approx(2480, rel=0.03)
    assert {e.segment for e in findings.evaluations if e.value == INCOMPLETE} == {"left_lung", "right_lung"}
    assert VOLUME not in {measurement.concept for measurement in findings.measurements}


def test_lung_bases_in_an_abdomen_agree_with_the_reference_segmentation(shared_data: Path) -> None:
    volume = nifti(shared_data / "gt" / "totalseg_example_ct_sm.nii.gz")
    reference = nifti(shared_data / "gt" / "totalseg_example_seg.nii.gz").voxels
    findings = lungs_in(volume)
    assert findings.labels is not None
    # TotalSegmentator numbers the lobes: 10, 11 left; 12, 13, 14 right.
    assert dice(findings.labels == 1, np.isin(reference, (10, 11))) > 0.94
    assert dice(findings.labels == 2, np.isin(reference, (12, 13, 14))) > 0.95
    assert {e.segment for e in findings.evaluations if e.value == INCOMPLETE} == {"left_lung", "right_lung"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ct/headphantom_Philips_study_localizer+5mm+SCsummary", "no lung"),
        ("ct/IBSI_PAT2_lungCT_RTSTRUCT", "field of view"),
    ],
    ids=["head phantom", "crop around one lung"],
)
def test_series_without_whole_lungs_are_not_applicable(
    unpacked: Callable[[str], Path], name: str, reason: str
) -> None:
    volumes = volumes_of([path for path in sorted(unpacked(name).rglob("*")) if path.is_file()])
    assert volumes
    for volume in volumes:
        with pytest.raises(NotApplicable, match=reason):
            lungs_in(volume)


def test_a_magnetic_resonance_series_that_says_ct_is_not_applicable(shared_data: Path) -> None:
    files = sorted((shared_data / "ct" / "torchio_mislabelled_CT_17sl").glob("*.dcm"))
    (volume,) = volumes_of(files)
    with pytest.raises(NotApplicable, match="Hounsfield"):
        lungs_in(volume)


def test_an_abdomen_with_bowel_gas_and_a_couch_is_not_applicable(shared_data: Path) -> None:
    files = sorted((shared_data / "ct" / "abdomen_Siemens_J2K_20sl_TotalSeg").glob("*"))
    datasets = sorted(map(pydicom.dcmread, files), key=lambda ds: float(ds.ImagePositionPatient[2]))
    first, last = (np.asarray(datasets[k].ImagePositionPatient, float) for k in (0, -1))
    row_mm, column_mm = map(float, datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, :4] = np.stack(
        [(last - first) / (len(datasets) - 1), [0, row_mm, 0], [column_mm, 0, 0], first], axis=1
    )
    stored = np.stack([ds.pixel_array for ds in datasets]).astype(np.int16)
    with pytest.raises(NotApplicable, match="no lung"):
        lungs_in(volume_of(stored + np.int16(datasets[0].RescaleIntercept), affine))
