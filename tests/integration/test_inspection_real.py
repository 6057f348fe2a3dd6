"""Everything in the folder of real data, as ``voxgate inspect`` judges it: a table of expected outcomes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from domain.series import StackKind
from gateway.config import LUNGS_ROUTE, load_config
from gateway.file_intake import DIRECTORY
from gateway.inspection import Inspection, StackReport, inspected

NOT_DICOM = "Not a DICOM Part 10 file: no DICM prefix after the preamble"
NO_CLASS = "SOPClassUID is absent or empty"
ANOTHER = "SOPInstanceUID is there with another dataset; the first one is used"
AGAIN = "the same instance again; the first one is used"
REPEATED = (
    "the same image as another one of its series (equal pixels, position and acquisition) under another UID; the one "
    "with the lower InstanceNumber is used"
)

CONFIG = load_config(environ={}).model_copy(update={"routes": (LUNGS_ROUTE,)})

Counts = dict[str, int]

EXPECTED: dict[str, tuple[Counts, Counts]] = {
    "charset": ({"image pixels-unreadable": 1, "image no-route": 7}, {NO_CLASS: 1, ANOTHER: 2}),
    # Twenty slices of the abdomen have no identity at all; the archives are judged one by one below.
    "ct": ({"no-route": 1}, {NOT_DICOM: 5, NO_CLASS: 20}),
    "derm": ({"image no-route": 3}, {NOT_DICOM: 17}),
    "enhanced": (
        {"no-route": 2, "no-frame-of-reference": 1, "unsupported-pixels": 1, "no-functional-groups": 1},
        {ANOTHER: 3, AGAIN: 1},
    ),
    "gt": ({}, {NOT_DICOM: 10}),
    "mg": ({"image no-route": 1}, {}),
    "odd": (
        {
            "no-frame-of-reference": 1,
            "not-an-image": 3,
            "image no-route": 4,
            "single-slice": 2,
            "unsupported-sop-class": 1,
        },
        {
            NOT_DICOM: 5,
            NO_CLASS: 5,
            ANOTHER: 1,
            "BeamSequence runs past the end of the file or of its sequence": 1,
            "PixelData is encapsulated and has no end: the file is cut off": 1,
            "PixelData runs past the end of the file or of its sequence": 1,
            "SOPInstanceUID is not a UID": 1,
            "TransferSyntaxUID is absent or empty": 1,
        },
    ),
    "seg_sr": ({"missing-slices": 1, "no-route": 2, "not-an-image": 6, "unsupported-sop-class": 13}, {}),
    "ts": (
        {
            "duplicate-position": 2,
            "mixed-matrix": 1,
            "image no-route": 15,
            "cine no-route": 1,
            "single-slice": 3,
            "unsupported-sop-class": 1,
        },
        {ANOTHER: 11, AGAIN: 6, REPEATED: 2, "StudyInstanceUID is absent or empty": 2},
    ),
    "us": ({"image no-route": 2, "cine no-route": 3}, {}),
    "xr": ({"image no-route": 4}, {NOT_DICOM: 8, ANOTHER: 1}),
}

ARCHIVES: dict[str, tuple[Counts, Counts]] = {
    "ct/IBSI_PAT2_lungCT_RTSTRUCT": ({"taken by lungs": 1, "not-an-image": 1}, {}),
    "ct/chest_GE_CMB-CRC_100sl": ({"taken by lungs": 1}, {}),
    "ct/derived_missing_slices_torchio": ({"missing-slices": 1}, {}),
    "ct/headphantom_Philips_gantrytilt+16.5_58sl": ({"gantry-tilt": 1}, {DIRECTORY: 1}),
    "ct/headphantom_Philips_study_localizer+5mm+SCsummary": (
        {"taken by lungs": 1, "localizer": 1, "image no-route": 6},
        {DIRECTORY: 3},
    ),
    "mr/brain_FLAIR_ax_Philips_BRAINIX_22sl": ({"no-route": 1}, {}),
    "mr/brain_T1_cor_GE_MRHEAD_100sl": ({"no-route": 1}, {}),
    "mr/brain_T2_EPI_ax_Philips_BRAINIX_22sl": ({"no-route": 1}, {}),
    "mr/multiecho_GRE_Siemens_72": ({"no-route": 2}, {}),
    "mr/prostate_DWI_3b_ProstateX-0000": ({"no-route": 3}, {}),
    "pet/PET_wholebody_QIN-HEADNECK-0024_299sl": ({"no-route": 1}, {}),
}


def judged(folder: Path) -> tuple[Counts, Counts]:
    with inspected([folder], CONFIG, lambda what, share: None) as found:
        check_sentences(found)
        verdicts = Counter(verdict(report) for report in found.stacks)
        return dict(verdicts), dict(Counter(item.reason for item in found.left_out))


def verdict(report: StackReport) -> str:
    """Name what is no volume with its kind: most of it has no route here, and is told apart from refused volumes."""
    kind = report.stack.kind
    return report.verdict if kind is StackKind.VOLUME else f"{kind} {report.verdict}"


def check_sentences(found: Inspection) -> None:
    """Every stack that nothing takes has a cause and a sentence; every volume has its geometry in words."""
    for report in found.stacks:
        assert bool(report.routes) != bool(report.code)
        assert bool(report.code) == bool(report.reason)
        assert report.grid is None or " mm, " in report.geometry
        assert report.grid is None or report.raster is None
        assert report.raster is None or report.stack.kind is not StackKind.VOLUME
        if report.raster is not None:
            assert " pixels" in report.geometry
            assert report.code == "no-route"


@pytest.mark.parametrize("name", EXPECTED)
def test_each_folder_is_judged_as_expected(name: str, shared_data: Path) -> None:
    assert judged(shared_data / name) == EXPECTED[name]


@pytest.mark.parametrize("name", ARCHIVES)
def test_each_archive_is_judged_as_expected(name: str, unpacked: Callable[[str], Path]) -> None:
    assert judged(unpacked(name)) == ARCHIVES[name]


def test_every_folder_and_archive_has_its_row(shared_data: Path) -> None:
    archives = {str(p.relative_to(shared_data)).removesuffix(".tar.xz") for p in shared_data.rglob("*.tar.xz")}
    assert archives == set(ARCHIVES)
    only_archives = {"mr", "pet"}
    assert {p.name for p in shared_data.iterdir() if p.is_dir()} == set(EXPECTED) | only_archives


COMMAND = """
import sys
from pathlib import Path
from gateway.cli import main
peak, sys.argv = Path(sys.argv[1]), ["voxgate", *sys.argv[2:]]
try:
    main()
finally:
    peak.write_text(Path("/proc/self/status").read_text())
"""
"""Leaves the process' own peak memory: what wait4 says includes that of the process it was forked from."""


def test_the_command_survives_everything_odd_within_a_gigabyte(shared_data: Path, tmp_path: Path) -> None:
    picture, peak = tmp_path / "sheet.png", tmp_path / "peak"
    folders = [str(shared_data / name) for name in ("odd", "ts", "us", "xr", "mg", "enhanced", "seg_sr")]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(peak), "inspect", *folders, "--png", str(picture)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "fault inside" not in done.stderr
    (peak_kib,) = [line.split()[1] for line in peak.read_text().splitlines() if line.startswith("VmHWM")]
    assert int(peak_kib) < 1 << 20
    with Image.open(picture) as image:
        assert image.height > 160 * 30
