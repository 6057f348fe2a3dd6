from __future__ import annotations

from pathlib import Path

import pytest
from pictures import cine, image_of, radiograph, region

from volume.calibration import plausible_spacing, region_fault

OBJECT = (4.0, 8.0, 10.0, 14.0)


def test_an_object_inside_a_plausible_region_has_its_spacing(tmp_path: Path) -> None:
    found = plausible_spacing(image_of(cine(), tmp_path), OBJECT)
    assert found.spacing_mm == pytest.approx((0.4, 0.5))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"RegionLocationMaxX1": 40}, "within the image"),
        ({"RegionSpatialFormat": 2}, "two-dimensional"),
        ({"PhysicalUnitsXDirection": 4}, "centimetres"),
        ({"PhysicalDeltaY": -0.04}, "not positive"),
        ({"PhysicalDeltaX": 0.0}, "not positive"),
        ({"RegionLocationMaxX1": 8}, "contains the whole object"),
    ],
)
def test_an_implausible_region_measures_nothing_and_says_why(
    change: dict[str, float], word: str, tmp_path: Path
) -> None:
    image = image_of(cine(regions=[region(**change)]), tmp_path)
    found = plausible_spacing(image, OBJECT)
    assert found.spacing_mm is None
    assert word in found.reason


def test_regions_that_contradict_one_another_measure_nothing(tmp_path: Path) -> None:
    image = image_of(cine(regions=[region(), region(PhysicalDeltaX=0.06)]), tmp_path)
    assert "contradict" in plausible_spacing(image, OBJECT).reason


def test_a_second_region_that_is_no_image_of_tissue_does_no_harm(tmp_path: Path) -> None:
    image = image_of(cine(regions=[region(RegionSpatialFormat=3), region()]), tmp_path)
    assert plausible_spacing(image, OBJECT).spacing_mm == pytest.approx((0.4, 0.5))


def test_without_regions_there_is_no_calibration(tmp_path: Path) -> None:
    assert plausible_spacing(image_of(cine(regions=[]), tmp_path), OBJECT).reason == "the image has no calibration"


def test_a_raster_that_knows_its_spacing_needs_no_region(tmp_path: Path) -> None:
    assert plausible_spacing(image_of(radiograph(), tmp_path), OBJECT).spacing_mm == (0.2, 0.1)


def test_a_region_that_lacks_a_number_is_left_out(tmp_path: Path) -> None:
    lacking = region()
    del lacking.PhysicalDeltaX
    image = image_of(cine(regions=[lacking, region()]), tmp_path)
    assert [region_fault(found, image.raster) for found in image.regions] == [""]
