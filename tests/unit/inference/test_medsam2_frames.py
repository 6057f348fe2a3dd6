"""MedSAM2 on frames: what the network sees of them, what is measured, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extras import require_models
from pictures import cine, image_of, region, with_pixels

require_models()

from medsam2_golden import CPU, counted_encodings, small_network

from domain.codes import Code
from domain.engine import Case
from domain.errors import EngineFailed, NotApplicable
from domain.findings import Findings, SegmentDescription
from domain.image import Image, Raster
from domain.prompt import Box, ObjectPrompt, Prompt, Space
from domain.voi import Voi, VoiLut, VoiWindow
from inference.manifest import read_declaration
from inference.measures import AREA, PIXELS, SQUARE_MILLIMETRE
from inference.medsam2.areas import NO_UNITS, area_measurements, area_statements, traced
from inference.medsam2.engine import MedSam2
from inference.medsam2.frames import as_seen, windowed_frames
from inference.registry import ENGINES
from inference.terminology import Terminology

FRAMES = 5
SQUARE = Box(corners=((2, 7, 5), (2, 14, 12)))


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return image_of(cine(FRAMES), tmp_path_factory.mktemp("cine"))


def engine(**settings: object) -> MedSam2:
    made = MedSam2(read_declaration(ENGINES / "medsam2" / "manifest.toml").manifest, settings)
    made.use(small_network(), CPU)
    return made


def found(*images: Image, box: Box = SQUARE, space: Space = Space.VOXEL, **options: object) -> Findings:
    prompt = Prompt(objects=(ObjectPrompt(boxes=(box,)),), space=space)
    return engine().run(Case(images=images, prompt=prompt, options=options))


def labels(findings: Findings) -> Any:
    assert findings.labels is not None
    return findings.labels


def changed(image: Image, pixels: Any, **also: Any) -> Image:
    return replace(image, pixels=np.array(pixels), **also)


# -- what the network sees ------------------------------------------------------------------------------------------


def test_a_box_on_a_frame_gives_a_mask_on_every_frame_and_each_is_encoded_once(loop: Image) -> None:
    told: list[float] = []
    prompt = Prompt(objects=(ObjectPrompt(boxes=(SQUARE,)), ObjectPrompt(boxes=(SQUARE,))))
    with counted_encodings(small_network()) as calls:
        findings = engine().run(Case(images=(loop,), prompt=prompt, progress=told.append))
    assert labels(findings).shape == loop.raster.shape == (FRAMES, 36, 40)
    assert (len(calls), told[-1]) == (FRAMES, 1.0)
    assert [segment.label for segment in findings.segments] == ["Object 1", "Object 2"]
    (said,) = (item.value for item in findings.evaluations if "belong to an earlier object too" in str(item.value))
    assert "pixels" in str(said)


def test_grey_stored_as_colours_and_the_same_shown_in_inverse_give_the_same_masks(loop: Image) -> None:
    plain = labels(found(loop))
    colours = changed(loop, np.repeat(loop.pixels[..., None], 3, axis=3), photometric_interpretation="RGB")
    np.testing.assert_array_equal(labels(found(colours)), plain)
    inverse = changed(loop, 220 - loop.pixels, photometric_interpretation="MONOCHROME1")
    np.testing.assert_array_equal(labels(found(inverse)), plain)
    np.testing.assert_array_equal(labels(found(inverse, window="10,210")), labels(found(loop, window="10,210")))


def test_colours_stay_colours_behind_one_window_for_all_frames(loop: Image) -> None:
    pixels = np.repeat(loop.pixels[..., None] // 2, 3, axis=3)
    pixels[0, 8:20, 4:20] = (255, 0, 0)
    seen = windowed_frames(changed(loop, pixels, photometric_interpretation="RGB"), None)
    assert seen.image(0, 64).shape == (3, 64, 64)
    assert seen.eight_bit(0)[10, 6].tolist() == [255, 0, 0]
    # The square of the other frames is as bright as it is, and not as bright as their own brightest pixel
    assert 80 < seen.eight_bit(3)[10, 9].max() < 140


def test_grey_is_seen_through_the_window_of_the_header_else_by_percentiles_of_all_frames(loop: Image) -> None:
    windowed = replace(loop, voi=Voi(windows=(VoiWindow(centre=60, width=80),)))
    np.testing.assert_array_equal(np.unique(as_seen(windowed)), [0, 255])
    np.testing.assert_array_equal(as_seen(loop), loop.pixels)
    table = replace(loop, voi=Voi(luts=(VoiLut(table=np.arange(255, -1, -1, dtype=np.uint16)),)))
    np.testing.assert_array_equal(as_seen(table)[0], 255 - loop.pixels[0])
    dark = changed(loop, np.where(np.arange(FRAMES)[:, None, None] == 1, 0, loop.pixels))
    assert not windowed_frames(dark, None).eight_bit(1).any()


def test_black_and_even_frames_are_refused(loop: Image) -> None:
    for value, said in ((0, "nothing to see|above 0"), (7, "nothing to see")):
        with pytest.raises(NotApplicable, match=said):
            found(changed(loop, np.full(loop.pixels.shape, value, np.uint8)))


def test_the_engine_setting_for_volumes_is_not_taken_for_frames(loop: Image) -> None:
    case = Case(images=(loop,), prompt=Prompt(objects=(ObjectPrompt(boxes=(SQUARE,)),)))
    np.testing.assert_array_equal(labels(engine(window=(-160, 240)).run(case)), labels(engine().run(case)))


def test_parts_are_dropped_only_on_request_and_on_each_frame_by_itself(loop: Image) -> None:
    kept = labels(found(loop))
    largest = labels(found(loop, largest_component=True))
    assert not (largest & ~kept).any()
    assert all(largest[k].any() == kept[k].any() for k in range(FRAMES))


def test_frames_outside_the_chosen_range_are_not_looked_at(loop: Image) -> None:
    findings = found(loop, first_slice=1, last_slice=3)
    assert set(np.flatnonzero(labels(findings).any(axis=(1, 2)))) <= {1, 2, 3}
    assert "of 3 frames" in str(findings.evaluations[0].value)
    with pytest.raises(EngineFailed, match="outside the slices or frames"):
        found(loop, first_slice=3)


def test_what_has_no_place_on_frames_is_refused_with_the_way_out(loop: Image) -> None:
    with pytest.raises(NotApplicable, match="patient coordinates"):
        found(loop, space=Space.LPS)
    with pytest.raises(NotApplicable, match="5 frames, counted from 0, of 36 rows and 40 columns"):
        found(loop, box=Box(corners=((5, 7, 5), (5, 14, 12))))
    with pytest.raises(EngineFailed, match='unit = "study"'):
        found(loop, loop)


def test_fractions_point_at_the_middle_frame(loop: Image) -> None:
    middle = Box(corners=((0.5, 0.2, 0.15), (0.5, 0.4, 0.35)))
    assert labels(found(loop, box=middle, space=Space.FRACTION)).any()


# -- what is measured -----------------------------------------------------------------------------------------------

OBJECT = SegmentDescription(
    key="object", label="Object", category=Code("85756007", "SCT", "Tissue"), type=Code("85756007", "SCT", "Tissue")
)


def beating(sizes: Sequence[int], *, at: tuple[int, int] = (4, 6)) -> Any:
    """Return labels of a square of so many pixels to a side on each frame; shape (frames, 36, 40)."""
    made = np.zeros((len(sizes), 36, 40), np.uint8)
    for k, size in enumerate(sizes):
        made[k, at[0] : at[0] + size, at[1] : at[1] + size] = 1
    return made


def measured(image: Image, drawn: Any) -> dict[str, tuple[float, Code]]:
    return {item.label: (item.value, item.unit) for item in area_measurements(traced(image, drawn, (OBJECT,)))}


def said(image: Image, drawn: Any) -> list[str]:
    return [str(item.value) for item in area_statements(traced(image, drawn, (OBJECT,)), image, len(drawn))]


def test_areas_of_a_beat_are_told_with_their_frames_and_times_in_mm2(loop: Image) -> None:
    drawn = beating((6, 10, 8, 0, 5))
    pixel = 0.5 * 0.4
    assert {name: value for name, (value, _) in measured(loop, drawn).items()} == pytest.approx(
        {
            "Largest area": 100 * pixel,
            "Smallest area": 25 * pixel,
            "Mean area": (36 + 100 + 64 + 25) / 4 * pixel,
            "Fractional area change": 75.0,
            "Frame of largest area": 2,
            "Frame of smallest area": 5,
        }
    )
    assert measured(loop, drawn)["Largest area"][1] == SQUARE_MILLIMETRE
    assert said(loop, drawn) == ["On 4 of 5 frames; largest on frame 2 (40 ms), smallest on frame 5 (160 ms)."]
    untimed = replace(loop, frame_times_ms=())
    assert said(untimed, drawn) == ["On 4 of 5 frames; largest on frame 2, smallest on frame 5."]


@pytest.mark.parametrize(
    ("regions", "drawn", "reason"),
    [
        ([], beating((6, 10)), "the image has no calibration"),
        ([region(RegionLocationMaxX1=40)], beating((6, 10)), "does not lie within the image"),
        ([region(PhysicalDeltaX=-0.05)], beating((6, 10)), "not positive"),
        ([region(PhysicalUnitsXDirection=4)], beating((6, 10)), "not in centimetres"),
        # On the second frame it reaches beyond the region's last row, 19.
        ([region()], beating((6, 17)), "no calibrated region contains the whole object"),
    ],
)
def test_without_a_plausible_region_around_the_object_on_all_frames_areas_are_in_pixels(
    regions: list[Any], drawn: Any, reason: str, tmp_path: Path
) -> None:
    image = image_of(cine(2, regions=regions), tmp_path)
    sizes = drawn[1].sum(), drawn[0].sum()
    numbers = measured(image, drawn)
    assert (numbers["Largest area"], numbers["Smallest area"]) == ((sizes[0], PIXELS), (sizes[1], PIXELS))
    assert reason in said(image, drawn)[1]


def test_a_projection_is_never_measured_in_mm_whatever_its_header_says(loop: Image) -> None:
    raster = Raster(shape=loop.raster.shape, spacing_mm=(0.2, 0.2), spacing_origin="PixelSpacing")
    projection = replace(loop, modality="XA", raster=raster)
    assert measured(projection, beating((6, 10, 6, 6, 6)))["Largest area"] == (100, PIXELS)
    assert "no scale in the patient" in said(projection, beating((6, 10, 6, 6, 6)))[1]


def test_one_image_has_its_area_and_where_there_is_a_scale_its_diameters(tmp_path: Path) -> None:
    single = cine(1)
    image = image_of(with_pixels(single, np.full((36, 40), 9, np.uint8)), tmp_path)
    drawn = beating((10,))
    numbers = {item.label: item for item in area_measurements(traced(image, drawn, (OBJECT,)))}
    assert numbers["Area"].value == pytest.approx(20)
    assert list(numbers) == ["Area", "Longest diameter", "Perpendicular diameter"]
    assert {point[0] for item in numbers.values() for point in item.points} == {0.0}
    assert list(measured(replace(image, regions=()), drawn)) == ["Area"]
    assert said(image, drawn) == []


def test_what_was_not_found_has_no_numbers(loop: Image) -> None:
    assert measured(loop, beating((0,) * FRAMES)) == {}


def test_every_code_is_one_of_the_standard_or_our_own(loop: Image) -> None:
    terms = Terminology()
    items = area_measurements(traced(loop, beating((6, 10, 8, 0, 5)), (OBJECT,)))
    codes = [code for item in items for code in (item.concept, item.unit, item.derivation) if code is not None]
    assert {AREA, SQUARE_MILLIMETRE, NO_UNITS} <= set(codes)
    assert [terms.fault(code) for code in codes] == [None] * len(codes)
