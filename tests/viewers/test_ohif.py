"""What OHIF shows of our results, in a headless browser: ``make viewers``.

``VOXGATE_OHIF`` names the folder ``dist`` of ``@ohif/app``; ``VOXGATE_SHOTS`` a folder for pictures of what was seen.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from orthanc_server import OrthancServer
from scipy.ndimage import binary_dilation, binary_erosion  # type: ignore[attr-defined]
from viewers.finding import STEM, TILE, inside
from viewers.ohif import WITHOUT_GPU, Ohif, served
from viewers.scenes import DOCUMENTS, LABEL_MAP, Scene, scene

from dicom_out.profile import BUILT_IN

OHIF = os.environ.get("VOXGATE_OHIF", "")
SHOTS = os.environ.get("VOXGATE_SHOTS", "")
VOLUMES = ("oblique MR", "compressed CT", "enhanced MR", "PET")
PICTURES = ("radiograph", "mammogram", "cine", "photograph", "Japanese name", "Arabic name")
NEAR, PROBES = 3, 12
"""Pixels from the edge of a mask that are not looked at, and how many places are."""
pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not OHIF, reason="VOXGATE_OHIF is not set (make viewers)"),
]
Opened = Callable[[Scene], Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of the system; skips where it, playwright or OHIF is not installed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed")
    try:
        sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed")
    if not (Path(OHIF) / "index.html").is_file():
        pytest.skip(f"there is no OHIF in {OHIF}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, headless=True, args=list(WITHOUT_GPU))
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, orthanc: OrthancServer, request: pytest.FixtureRequest) -> Opened:
    """Return a function that stores a scene, opens it in OHIF, and at the end wants to have heard of no fault."""

    @contextmanager
    def open_scene(shown: Scene) -> Iterator[Ohif]:
        orthanc.clear()
        orthanc.upload(shown.folder)
        with served(Path(OHIF), orthanc.dicomweb_url) as url:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            ohif = Ohif(page, url, shown.study_instance_uid)
            try:
                yield ohif
                assert ohif.faults == []
            finally:
                if SHOTS:
                    ohif.picture(Path(SHOTS) / f"{request.node.name}.png")
                page.close()

    return open_scene


def probes(mask: npt.NDArray[np.bool_], seed: int = 0) -> npt.NDArray[np.int64]:
    """Return some (column, row) in a mask."""
    found = np.argwhere(mask)[:, ::-1]
    return np.random.default_rng(seed).permutation(found)[:PROBES]


def assert_overlay(ohif: Ohif, shown: Scene, k: int) -> int:
    """Look where the letter, the tile and nothing should be; return at how many places that was something."""
    ohif.go_to(shown.image(k))
    labels = shown.labels[k]
    seen = 0
    for number, (more, less) in {1: (0, 2), 2: (2, 0)}.items():  # red, blue
        places = probes(binary_erosion(labels == number, iterations=NEAR))
        if len(places):
            colours = ohif.colours_at(shown.places(k, places))
            assert (colours[:, more] - colours[:, less] > 40).all(), (k, number, places, colours)
            seen += len(places)
    middle = np.zeros_like(labels, bool)
    rows, columns = labels.shape
    middle[rows // 4 : rows * 3 // 4, columns // 4 : columns * 3 // 4] = True  # the borders may be off the screen
    nothing = probes(middle & ~binary_dilation(labels > 0, iterations=NEAR), seed=k)
    colours = ohif.colours_at(shown.places(k, nothing))
    assert (np.ptp(colours, axis=1) < 25).all(), (k, nothing, colours)
    return seen


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("name", VOLUMES)
def test_a_segmentation_of_a_volume_lies_where_it_belongs(
    name: str, kind: str, opened: Opened, shared_data: Path, unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    profile = BUILT_IN["ohif"] if kind == "binary" else LABEL_MAP
    shown = scene(name, shared_data, unpacked, tmp_path / "study", [profile])
    slices = np.flatnonzero(shown.labels.any(axis=(1, 2)))
    with opened(shown) as ohif:
        (series,) = shown.series("SEG")
        ohif.show(series)
        ohif.wait_for_segmentation()
        seen = [assert_overlay(ohif, shown, int(k)) for k in (slices[0] - 1, slices[0], shown.middle, slices[-1])]
        assert seen[0] == 0
        assert all(count > 0 for count in seen[1:])


@pytest.mark.parametrize("name", VOLUMES)
def test_the_lines_of_a_report_lie_where_they_were_measured(
    name: str, opened: Opened, shared_data: Path, unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    shown = scene(name, shared_data, unpacked, tmp_path / "study", [BUILT_IN["ohif"]])
    top, left, bottom, right = inside(STEM, shown.labels.shape)
    stem = [((left + right - 1) / 2, top), ((left + right - 1) / 2, bottom - 1)]
    with opened(shown) as ohif:
        ohif.show(*shown.series("SR"))
        here = [item for item in ohif.drawn() if item["image"].endswith(shown.image(shown.middle))]
        expected = shown.places(shown.middle, stem)
        assert any(np.allclose(line, expected, atol=0.01) for item in here for line in item["lines"]), here


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_a_report_in_its_place_and_a_key_image(
    name: str, opened: Opened, shared_data: Path, unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    shown = scene(name, shared_data, unpacked, tmp_path / "study", [BUILT_IN["ohif"]])
    top, left, bottom, right = inside(TILE, shown.labels.shape)
    with opened(shown) as ohif:
        assert all(ohif.shows().values())
        ohif.show(*shown.series("SR"))
        here = [item for item in ohif.drawn() if item["image"].endswith(shown.image(shown.middle))]
        corners = [np.asarray(line)[:, :2] for item in here for line in item["lines"]]
        box = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]) - 0.5
        assert any(len(line) == 5 and _alike(line, box) for line in corners), (corners, box)
        family = shown.patient_name.split("=")[0].split("^")[0]
        assert family in ohif.patient()


def _alike(line: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> bool:
    """Compare in pixels or, where OHIF has a spacing, in mm."""
    scale = np.ptp(line, axis=0) / np.ptp(box, axis=0)
    return bool(np.allclose(line, box * scale, atol=0.01))


def test_documents_and_key_images_open(
    opened: Opened, shared_data: Path, unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    shown = scene("oblique MR", shared_data, unpacked, tmp_path / "study", [DOCUMENTS])
    with opened(shown) as ohif:
        assert all(ohif.shows().values())
        for modality in ("OT", "DOC"):
            ohif.show(*shown.series(modality))
            ohif.go_to("") if modality == "OT" else ohif.patient()
