"""Every real single-frame set, voxel by voxel and in millimetres, beside highdicom and dcm2niix."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pytest
from factories import save
from mosaics import mosaic, slices_of_mr
from pydicom import dcmread
from pydicom.uid import CTImageStorage, generate_uid
from received import read
from scipy.spatial.transform import Rotation

from domain.series import Stack
from domain.volume import Volume
from volume.assembly import assemble
from volume.grouping import group

ABDOMEN = "ct/abdomen_Siemens_J2K_20sl_TotalSeg"
MISLABELLED = "ct/torchio_mislabelled_CT_17sl"
SETS = (
    ABDOMEN,
    MISLABELLED,
    "ct/IBSI_PAT2_lungCT_RTSTRUCT",
    "ct/chest_GE_CMB-CRC_100sl",
    "ct/headphantom_Philips_study_localizer+5mm+SCsummary",
    "mr/brain_FLAIR_ax_Philips_BRAINIX_22sl",
    "mr/brain_T1_cor_GE_MRHEAD_100sl",
    "mr/brain_T2_EPI_ax_Philips_BRAINIX_22sl",
    "mr/multiecho_GRE_Siemens_72",
    "mr/prostate_DWI_3b_ProstateX-0000",
    "pet/PET_wholebody_QIN-HEADNECK-0024_299sl",
)
FOLDERS = (ABDOMEN, MISLABELLED)


@pytest.fixture
def folder(
    request: pytest.FixtureRequest, shared_data: Path, unpacked: Callable[[str], Path], tmp_path: Path
) -> Path:
    """The files of a set; those of the abdomen with the identifiers that they lack."""
    name: str = request.param
    if name not in FOLDERS:
        return unpacked(name)
    if name != ABDOMEN:
        return shared_data / name
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for path in (shared_data / name).iterdir():
        ds = dcmread(path)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.save_as(tmp_path / path.name)
    return tmp_path


def volumes_in(folder: Path) -> list[tuple[Stack, Volume, dict[str, Path]]]:
    series, paths = read(folder)
    stacks = [stack for headers in series.values() for stack in group(headers)]
    return [(s, assemble(s, paths), paths) for s in stacks if s.refusal is None and len(s.headers) > 1]


def compare(
    volume: Volume, voxels: npt.NDArray[np.float64], affine: npt.NDArray[np.float64], *, within_mm: float = 1e-3
) -> None:
    """Compare with an array whose ``affine`` maps its indices to LPS, whatever the order of its axes."""
    corners = np.array([(k, j, i) for k in (0, -1) for j in (0, -1) for i in (0, -1)]) % np.array(volume.grid.shape)
    places = volume.grid.to_lps(corners)
    index = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    np.testing.assert_allclose(np.rint(index) @ affine[:3, :3].T + affine[:3, 3], places, atol=within_mm)
    # Where index (0, 0, 0) lies and along which axis each of our indices goes:
    start = np.rint(index[0]).astype(int)
    steps = np.rint(np.linalg.inv(affine[:3, :3]) @ volume.grid.affine[:3, :3]).astype(int)
    order = [int(np.abs(steps[:, axis]).argmax()) for axis in range(3)]
    theirs = voxels.transpose(order)
    flips = tuple(slice(None, None, -1) if start[axis] else slice(None) for axis in order)
    theirs = theirs[flips]
    assert theirs.shape == volume.grid.shape
    ours = volume.voxels.astype(np.float64)
    same = np.isclose(ours, theirs, rtol=1e-5, atol=1e-3)
    if volume.padding_value is not None:
        same |= ours == volume.padding_value  # the others keep what stands for no measurement
    assert same.all(), f"{np.count_nonzero(~same)} voxels differ"


@pytest.mark.parametrize("folder", SETS, indirect=True)
def test_equals_highdicom(folder: Path) -> None:
    found = volumes_in(folder)
    assert found
    for _, volume, paths in found:
        datasets = [dcmread(paths[uid]) for uid in volume.sop_instance_uids]
        other = highdicom.get_volume_from_series(
            datasets, apply_presentation_lut=False, apply_voi_transform=False, rtol=0.02
        )
        compare(volume, np.asarray(other.array, float), np.asarray(other.affine, float))


def as_dcm2niix_has_it(
    program: str, paths: Sequence[Path], folder: Path
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the voxels and the affine to LPS that dcm2niix makes of some files."""
    nibabel = pytest.importorskip("nibabel")
    here, out = folder / "stack", folder / "nifti"
    here.mkdir()
    out.mkdir()
    for number, path in enumerate(paths):
        shutil.copy(path, here / f"{number:05d}.dcm")
    subprocess.run([program, "-z", "n", "-f", "x", "-o", str(out), str(here)], check=True, capture_output=True)
    (path,) = out.glob("*.nii")
    image = nibabel.load(path)
    return np.asarray(image.get_fdata(), float), np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine


@pytest.mark.peer
@pytest.mark.parametrize("folder", SETS, indirect=True)
def test_equals_dcm2niix(folder: Path, tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str], str]) -> None:
    program = peer("dcm2niix")
    for _, volume, paths in volumes_in(folder):
        source = [paths[uid] for uid in volume.sop_instance_uids]
        voxels, affine = as_dcm2niix_has_it(program, source, tmp_path_factory.mktemp("beside"))
        # Of the PET's 299 slices, 3.37 and 3.38 mm apart, it keeps another mean, which adds up to 5 micrometres.
        compare(volume, voxels, affine, within_mm=1e-2 if volume.unit == "BQML" else 1e-3)


@pytest.mark.peer
@pytest.mark.parametrize("descending", [False, True])
def test_a_mosaic_equals_dcm2niix(tmp_path: Path, descending: bool, peer: Callable[[str], str]) -> None:
    turned = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
    voxels = np.random.default_rng(0).integers(1, 4000, (11, 12, 10)).astype(np.int16)
    slices = slices_of_mr(voxels, orientation=[*turned[:, 0], *turned[:, 1]], in_plane_spacing_mm=(1.8, 2.1))
    (path,) = save([mosaic(slices[::-1] if descending else slices)], tmp_path / "mosaic")
    ((_, volume, _),) = volumes_in(tmp_path / "mosaic")
    compare(volume, *as_dcm2niix_has_it(peer("dcm2niix"), [path], tmp_path))
