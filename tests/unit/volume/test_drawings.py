"""What is drawn in SR, GSPS, RTSTRUCT and SEG, and where it comes to lie on the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import drawn
import numpy as np
import pytest
from drawn import in_patient, num, presentation, rectangle, report, scoord, scoord3d, segmentation, structure_set
from factories import ct_series, headers_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from domain.errors import DrawingRefused
from domain.prompt import ObjectPrompt, Prompt
from domain.series import Stack
from volume.drawings.placing import Contours, Slices, is_on, prompt_on
from volume.drawings.reading import read_sketch
from volume.geometry import geometry

BOX = (3.25, 4.5, 11.75, 9.5)


def slices_of(series: Sequence[Dataset]) -> Slices:
    proven = geometry(Stack(name="", headers=tuple(headers_of(series))))
    return Slices(headers=proven.headers, grid=proven.grid)


def placed(ds: Dataset, series: Sequence[Dataset], contours: Contours = "traced") -> Prompt:
    sketch, slices = read_sketch(ds), slices_of(series)
    return prompt_on(sketch, [item for item in sketch.objects if is_on(item, sketch, slices)], slices, contours)


def one(ds: Dataset, series: Sequence[Dataset], contours: Contours = "traced") -> ObjectPrompt:
    (found,) = placed(ds, series, contours).objects
    return found


def box_mm(ds: Dataset, series: Sequence[Dataset]) -> Any:
    """Return the corners of the one box in LPS mm."""
    (box,) = one(ds, series).boxes
    return slices_of(series).grid.to_lps(box.corners)


@settings(max_examples=40, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 3)] * 3),
    box=st.tuples(st.floats(0, 8), st.floats(0, 6), st.floats(9, 20), st.floats(7, 16)),
    k=st.integers(0, 3),
)
def test_the_same_box_as_sr_gsps_and_rtstruct_lies_within_a_hundredth_of_a_millimetre(
    turn: tuple[float, ...], origin: tuple[float, ...], spacing: tuple[float, ...], box: tuple[float, ...], k: int
) -> None:
    axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    series = ct_series(
        4, spacing_mm=spacing[0], in_plane_spacing_mm=spacing[1:], origin_mm=origin,
        orientation=[round(float(x), 9) for x in (*axes[0], *axes[1])],
    )  # fmt: skip
    image = series[k]
    x0, y0, x1, y1 = box
    corners = rectangle(x0, y0, x1, y1)
    truth = in_patient(image, [(x0, y0), (x1, y1)])
    shares = np.array(corners) / (image.Columns, image.Rows)
    patient = in_patient(image, corners)
    for ds in (
        report(series, [scoord(image, "POLYLINE", corners)]),
        report(series, [scoord3d(image, "POLYGON", patient)]),
        presentation(series, image, "POLYLINE", corners),
        presentation(series, image, "POLYLINE", shares, units="DISPLAY"),
        structure_set(series, {"GTV": [patient[:-1]]}),
    ):
        assert np.abs(box_mm(ds, series) - truth).max() < 0.01


@pytest.mark.parametrize(
    ("rotation", "flip", "seen"),
    [
        (0, "N", lambda u, v: (u, v)),
        (90, "N", lambda u, v: (1 - v, u)),
        (180, "N", lambda u, v: (1 - u, 1 - v)),
        (270, "N", lambda u, v: (v, 1 - u)),
        (0, "Y", lambda u, v: (1 - u, v)),
        (90, "Y", lambda u, v: (v, u)),
    ],
)
def test_display_units_follow_zoom_rotation_and_flip(rotation: int, flip: str, seen: Any) -> None:
    series = ct_series(3)
    # Columns 5 to 14 and rows 3 to 12 are shown, counted from 1: the area reaches from 4 to 14 and from 2 to 12.
    shares = [((x - 4) / 10, (y - 2) / 10) for x, y in rectangle(5, 4, 9, 10)]
    ds = presentation(
        series, series[1], "POLYLINE", [seen(*share) for share in shares], units="DISPLAY", top_left=[5, 3],
        bottom_right=[14, 12], ImageRotation=rotation, ImageHorizontalFlip=flip,
    )  # fmt: skip
    (box,) = one(ds, series).boxes
    assert np.allclose(box.corners, ((1, 3.5, 4.5), (1, 9.5, 8.5)))


def test_a_point_an_axis_a_circle_and_an_ellipse_are_what_they_are() -> None:
    series = ct_series(3)
    image = series[2]
    (point,) = one(report(series, [scoord(image, "POINT", [(7, 5)])]), series).points
    assert np.array_equal(point.at, (2, 4.5, 6.5))
    assert point.positive
    (axis,) = one(report(series, [num(scoord(image, "POLYLINE", [(3, 4), (9, 8)]))]), series).long_axes
    assert np.array_equal(axis.ends, ((2, 3.5, 2.5), (2, 7.5, 8.5)))
    # Round in the patient: 4 columns of 0.8 mm are 4.571 rows of 0.7 mm
    (box,) = one(report(series, [scoord(image, "CIRCLE", [(10, 8), (14, 8)])]), series).boxes
    assert np.allclose(box.corners, ((2, 7.5 - 3.2 / 0.7, 5.5), (2, 7.5 + 3.2 / 0.7, 13.5)))
    turned = np.add([(-5, -3), (5, 3), (-1.2, 2), (1.2, -2)], (10, 8))
    (box,) = one(report(series, [scoord(image, "ELLIPSE", turned)]), series).boxes
    half = np.hypot((3, 5), (2, 1.2))
    assert np.allclose(box.corners, ((2, *np.subtract((7.5, 9.5), half)), (2, *np.add((7.5, 9.5), half))))
    in_mm = in_patient(image, turned)
    (same,) = one(report(series, [scoord3d(image, "ELLIPSE", in_mm)]), series).boxes
    assert np.allclose(same.corners, box.corners, atol=1e-4)


def test_of_two_diameters_the_longer_is_the_axis_and_an_angle_is_nothing() -> None:
    series = ct_series(3)
    short, long = ([(5, 5), (8, 5)], [(6, 2), (7, 12)])
    angle = num(scoord(series[1], "POLYLINE", [(1, 1), (2, 2), (3, 9)]), ("1483009", "SCT", "Angle"))
    ds = report(series, [num(scoord(series[1], "POLYLINE", line)) for line in (short, long)] + [angle])
    (axis,) = one(ds, series).long_axes
    assert axis.ends == ((1, 1.5, 5.5), (1, 11.5, 6.5))


def test_the_largest_slice_of_a_contour_is_the_key_slice() -> None:
    series = ct_series(5)
    sizes = {1: 3, 2: 6, 3: 4}
    contours = [in_patient(series[k], rectangle(5, 5, 5 + n, 5 + n)[:-1]) for k, n in sizes.items()]
    found = one(structure_set(series, {"GTV": contours}), series)
    (box,) = found.boxes
    assert np.allclose(box.corners, ((2, 4.5, 4.5), (2, 10.5, 10.5)), atol=1e-4)
    assert found.label == "GTV"


def test_parts_of_a_contour_on_one_slice_count_together() -> None:
    series = ct_series(3)
    contours = [
        in_patient(series[0], rectangle(5, 5, 9, 9)[:-1]),
        in_patient(series[1], rectangle(1, 1, 4, 4)[:-1]),
        in_patient(series[1], rectangle(8, 8, 12, 11)[:-1]),
    ]
    (box,) = one(structure_set(series, {"GTV": contours}), series).boxes
    assert np.allclose(box.corners, ((1, 0.5, 0.5), (1, 10.5, 11.5)), atol=1e-4)


def test_a_traced_contour_is_its_pixels_and_a_rectangle_is_a_box() -> None:
    series = ct_series(3)
    diamond = [(2, 8), (8, 2), (14, 8), (8, 14), (2, 8)]
    for ds in (
        report(series, [scoord(series[1], "POLYLINE", diamond)]),
        structure_set(series, {"GTV": [in_patient(series[1], diamond[:-1])]}),
    ):
        found = one(ds, series)
        (seed,) = found.masks
        assert not found.boxes
        assert seed.slice == 1
        # 8\\8 in corners is between four pixels: |column - 7.5| + |row - 7.5| < 6 of their centres
        row, column = np.indices(seed.pixels.shape)
        distance = np.abs(column - 7.5) + np.abs(row - 7.5)
        assert seed.pixels[distance < 6].all()
        assert not seed.pixels[distance > 6].any()


@pytest.mark.parametrize("contours", ["traced", "mask"])
def test_a_contour_within_another_is_a_hole(contours: Contours) -> None:
    series = ct_series(3)
    outer, inner = ([(2, 8), (8, 2), (14, 8), (8, 14)], [(5, 8), (8, 5), (11, 8), (8, 11)])
    ds = structure_set(series, {"GTV": [in_patient(series[1], shape) for shape in (outer, inner)]})
    (seed,) = one(ds, series, contours).masks
    assert not seed.pixels[7, 7]
    assert seed.pixels[7, 3]


def test_a_contour_that_was_sent_twice_takes_nothing_away_and_an_island_in_a_hole_counts() -> None:
    series = ct_series(3)
    outer, hole, island = ([(8 - n, 8), (8, 8 - n), (8 + n, 8), (8, 8 + n)] for n in (7, 5, 3))
    ds = structure_set(series, {"GTV": [in_patient(series[1], one) for one in (island, outer, hole, outer, island)]})
    (seed,) = one(ds, series).masks
    assert seed.pixels[7, 7]  # of the island
    assert not seed.pixels[7, 4]  # of the hole
    assert seed.pixels[7, 2]


def test_contours_that_cross_may_mean_their_sum_or_their_difference_and_are_a_box() -> None:
    series = ct_series(3)
    crossing = ([(2, 6), (6, 2), (10, 6), (6, 10)], [(5, 8), (9, 4), (13, 8), (9, 12)])
    ds = structure_set(series, {"GTV": [in_patient(series[1], shape) for shape in crossing]})
    found = one(ds, series)
    assert not found.masks
    (box,) = found.boxes
    assert np.allclose(box.corners, ((1, 1.5, 1.5), (1, 11.5, 12.5)), atol=1e-4)


def test_what_circles_become_is_the_routes_choice() -> None:
    series = ct_series(3)
    for shape, points, inside in (
        ("CIRCLE", [(8, 8), (12, 8)], (7, 10)),
        ("ELLIPSE", [(2, 8), (14, 8), (8, 5), (8, 11)], (7, 12)),
    ):
        ds = report(series, [scoord(series[1], shape, points)])
        assert one(ds, series).boxes
        (seed,) = one(ds, series, "mask").masks
        (box,) = one(ds, series, "box").boxes
        assert seed.pixels[inside]
        rows, columns = (np.flatnonzero(seed.pixels.any(axis=axis)) for axis in (1, 0))
        assert np.all(np.abs(np.subtract([rows[0], columns[0]], box.corners[0][1:])) <= 1)
        assert np.all(np.abs(np.subtract([rows[-1], columns[-1]], box.corners[1][1:])) <= 1)


def test_a_contour_smaller_than_a_pixel_is_its_box() -> None:
    series = ct_series(3)
    ds = report(series, [scoord(series[1], "POLYLINE", [(5.6, 5.6), (5.8, 5.7), (5.7, 5.9), (5.6, 5.6)])])
    found = one(ds, series)
    assert found.boxes
    assert not found.masks


def test_a_box_that_reaches_beyond_the_image_ends_with_it() -> None:
    series = ct_series(3)
    (box,) = one(report(series, [scoord(series[1], "POLYLINE", rectangle(-3, 2, 9, 99))]), series).boxes
    assert box.corners == ((1, 1.5, -0.5), (1, 15.5, 8.5))


def test_a_segmentation_seeds_with_its_largest_slice() -> None:
    series = ct_series(4)
    masks = np.zeros((2, 4, 16, 20), bool)
    masks[0, 1, 3:6, 4:9] = masks[0, 2, 3:9, 4:11] = masks[1, 3, 10:12, 1:3] = True
    tracked = [generate_uid(), generate_uid()]
    first, second = placed(segmentation(series, masks, labels=("Liver", "Lesion"), uids=tracked), series).objects
    assert [mask.slice for mask in (*first.masks, *second.masks)] == [2, 3]
    assert np.array_equal(first.masks[0].pixels, masks[0, 2])
    assert np.array_equal(second.masks[0].pixels, masks[1, 3])
    assert (second.label, second.tracking_identifier, second.tracking_uid) == ("Lesion", "Lesion", tracked[1])
    assert (second.type and second.type.value) == drawn.NODULE[0]


def test_a_segmentation_on_other_pixels_is_taken_where_they_lie() -> None:
    series = ct_series(3)
    other = ct_series(3, in_plane_spacing_mm=(1.4, 1.6), origin_mm=(-9.6, -19.65, 30))
    for image, source in zip(other, series, strict=True):
        image.FrameOfReferenceUID, image.SeriesInstanceUID = source.FrameOfReferenceUID, source.SeriesInstanceUID
    masks = np.zeros((1, 3, 16, 20), bool)
    masks[0, 1, 2:4, 3:5] = True
    ds = segmentation(other, masks)
    ds.ReferencedSeriesSequence = segmentation(series, masks).ReferencedSeriesSequence
    (mask,) = one(ds, series).masks
    expected = np.zeros((16, 20), bool)
    expected[4:8, 6:10] = True
    assert np.array_equal(mask.pixels, expected)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(1, 1, 0), (5, 1, 0), (5, 5, 2)], "across slices"),
        ([(1, 1, 9), (5, 1, 9), (5, 5, 9)], "beyond the first or the last slice"),
        ([(-9, 1, 1), (-5, 1, 1), (-5, 5, 1)], "beside their pixels"),
        ([(1, 1, 1), (1, 1, 1), (1, 1, 1)], "encloses nothing"),
    ],
)
def test_what_does_not_lie_on_one_slice_is_refused(points: Any, said: str) -> None:
    series = ct_series(4)
    grid = slices_of(series).grid
    in_mm = grid.to_lps([(k, y, x) for x, y, k in points])
    with pytest.raises(DrawingRefused, match=said):
        placed(structure_set(series, {"GTV": [in_mm]}), series)


def test_another_frame_of_reference_is_another_place() -> None:
    series, other = ct_series(3), ct_series(3)
    ds = structure_set(series, {"GTV": [in_patient(series[1], rectangle(1, 1, 5, 5))]})
    sketch = read_sketch(ds)
    assert is_on(sketch.objects[0], sketch, slices_of(series))
    assert not is_on(sketch.objects[0], sketch, slices_of(other))


def test_what_was_said_of_an_object_is_kept() -> None:
    series = ct_series(3)
    uid = generate_uid()
    retired = ("M-01100", "SRT", "Lesion")
    ds = report(series, [scoord(series[1], "POINT", [(5, 5)])], identifiers=["L1"], uids=[uid], finding=retired)
    prompt = placed(ds, series)
    (item,) = prompt.objects
    assert (item.tracking_identifier, item.tracking_uid, item.label) == ("L1", uid, "Lesion")
    assert (item.type and (item.type.scheme, item.type.value)) == ("SCT", "52988006")
    assert prompt.drawing is not None
    assert prompt.drawing.sop_instance_uid == ds.SOPInstanceUID


def test_an_edited_drawing_is_known_by_reference_tracking_or_name() -> None:
    series = ct_series(3)
    region, uid = [scoord(series[1], "POINT", [(5, 5)])], generate_uid()
    before = report(series, region, uids=[uid])
    assert read_sketch(report(series, region, uids=[uid])).replaces(read_sketch(before))
    assert not read_sketch(report(series, region)).replaces(read_sketch(before))
    names = drawn.item(
        StudyInstanceUID=before.StudyInstanceUID,
        ReferencedSeriesSequence=[
            drawn.item(
                SeriesInstanceUID=before.SeriesInstanceUID,
                ReferencedSOPSequence=[drawn.item(ReferencedSOPInstanceUID=before.SOPInstanceUID)],
            )
        ],
    )
    assert read_sketch(report(series, region, PredecessorDocumentsSequence=[names])).replaces(read_sketch(before))
    contour = in_patient(series[1], rectangle(1, 1, 5, 5))
    plan = read_sketch(structure_set(series, {"GTV": [contour]}))
    assert read_sketch(structure_set(series, {"GTV": [contour * 1.01]})).replaces(plan)
    assert not read_sketch(structure_set(series, {"CTV": [contour]})).replaces(plan)
    assert not read_sketch(structure_set(series, {"GTV": [contour]}, StructureSetLabel="OTHER")).replaces(plan)


def test_rubbish_is_refused_without_a_traceback() -> None:
    series = ct_series(3)
    good = report(series, [scoord(series[1], "POINT", [(5, 5)])])
    bad = []
    for value in ([], [1.0], [float("nan")] * 2, ["x", "y"]):
        ds = report(series, [scoord(series[1], "POINT", [(5, 5)])])
        region = ds.ContentSequence[0].ContentSequence[0].ContentSequence[-1]
        region["GraphicData"]._value = value
        bad.append(ds)
    empty = segmentation(series, np.ones((1, 3, 16, 20), bool))
    empty.NumberOfFrames = 9
    huge = segmentation(series, np.ones((1, 3, 16, 20), bool))
    huge.Rows, huge.Columns = 65535, 65535
    units = presentation(series, series[0], "POINT", [(1, 1)], units="MATRIX")
    for ds in (*bad, empty, huge, units, presentation(series, series[0], "POLYLINE", [(1, 1), (2, 2), (3, 1)])):
        with pytest.raises(DrawingRefused):
            read_sketch(ds)
    assert read_sketch(good).objects


def test_many_points_on_many_images_are_cut_off() -> None:
    series = ct_series(3)
    region = scoord(series[1], "MULTIPOINT", [(5, 5)] * 2000)
    region.ContentSequence = list(region.ContentSequence) * 2000
    (item,) = read_sketch(report(series, [region])).objects
    assert len(item.shapes) == 10_000
