"""One received series, split into stacks."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest
from factories import copied, ct_series, ct_slice, headers_of, mr_series
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedCTImageStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    XRayAngiographicImageStorage,
    generate_uid,
)

from domain.instance import Header
from domain.series import RefusalCode, Stack, StackKind
from volume.geometry import geometry
from volume.grouping import group


def causes(stacks: tuple[Stack, ...]) -> dict[str, RefusalCode | None]:
    return {stack.name: stack.refusal.code if stack.refusal else None for stack in stacks}


def sizes(stacks: tuple[Stack, ...]) -> dict[str, int]:
    return {stack.name: len(stack.headers) for stack in stacks}


def test_a_plain_series_is_one_nameless_stack_sorted_by_position() -> None:
    series = ct_series(7)
    random.Random(3).shuffle(series)
    (stack,) = group(headers_of(series))
    assert stack.name == ""
    assert stack.refusal is None
    assert [h.instance_number for h in stack.headers] == [1, 2, 3, 4, 5, 6, 7]


def test_an_empty_series_has_no_stacks() -> None:
    assert group(()) == ()


def test_any_order_of_arrival_gives_the_same_stacks() -> None:
    headers = headers_of([*two_phases(), localizer()])
    expected = group(headers)
    for seed in range(5):
        random.Random(seed).shuffle(headers)
        assert group(headers) == expected


def localizer() -> Dataset:
    scout = ct_slice(orientation=(0, 1, 0, 0, 0, -1), number=0)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return scout


def two_phases() -> list[Dataset]:
    first = ct_series(6)
    second = copied(first, first_number=7)
    for ds in first:
        ds.AcquisitionNumber = 1
    for ds in second:
        ds.AcquisitionNumber = 2
    return first + second


def test_a_localizer_beside_slices_is_refused_and_the_slices_are_not() -> None:
    assert causes(group(headers_of([localizer(), *ct_series(5)]))) == {
        "axial": None,
        "localizer": RefusalCode.LOCALIZER,
    }


def test_a_localizer_that_does_not_say_so_is_set_apart_by_its_orientation() -> None:
    scout = ct_slice(orientation=(0, 1, 0, 0, 0, -1), number=0)
    stacks = group(headers_of([scout, *ct_series(5)]))
    assert causes(stacks) == {"sagittal": RefusalCode.SINGLE_SLICE, "axial": None}


def test_two_phases_at_the_same_positions_become_two_stacks() -> None:
    stacks = group(headers_of(two_phases()))
    assert causes(stacks) == {"axial, acquisition 1": None, "axial, acquisition 2": None}
    assert [[h.instance_number for h in stack.headers] for stack in stacks] == [
        [1, 2, 3, 4, 5, 6],
        [7, 8, 9, 10, 11, 12],
    ]


def test_phases_of_different_extent_become_two_stacks() -> None:
    series = two_phases()
    del series[2:4]
    del series[0]  # the first phase keeps 2, 5 and 6: it lacks slices, the second one is whole
    stacks = group(headers_of(series))
    assert causes(stacks) == {
        "axial, acquisition 1": RefusalCode.MISSING_SLICES,
        "axial, acquisition 2": None,
    }


@pytest.mark.parametrize(
    ("keyword", "values", "names"),
    [
        ("ConvolutionKernel", ("B30f", "B70f"), ("axial, kernel B30f", "axial, kernel B70f")),
        ("EchoTime", ("5.19", "7.65"), ("axial, echo time 5.19 ms", "axial, echo time 7.65 ms")),
        ("TemporalPositionIdentifier", (1, 2), ("axial, temporal position 1", "axial, temporal position 2")),
        ("DiffusionBValue", (0.0, 800.0), ("axial, b-value 0", "axial, b-value 800")),
        ("InversionTime", ("700", "2500"), ("axial, inversion time 700 ms", "axial, inversion time 2500 ms")),
        ("TriggerTime", ("0", "40"), ("axial, trigger time 0 ms", "axial, trigger time 40 ms")),
        ("KVP", ("80", "140"), ("axial, tube voltage 80 kV", "axial, tube voltage 140 kV")),
        ("SliceThickness", ("1", "5"), ("axial, slice thickness 1 mm", "axial, slice thickness 5 mm")),
        ("AcquisitionTime", ("101500", "101600"), ("axial, acquisition time 1", "axial, acquisition time 2")),
        ("PixelSpacing", (["0.5", "0.5"], ["0.7", "0.7"]), ("axial, field of view 1", "axial, field of view 2")),
        ("FrameOfReferenceUID", ("1.2.3", "1.2.4"), ("axial, frame of reference 1", "axial, frame of reference 2")),
        ("FlipAngle", ("5", "20"), ("axial, flip angle 5 degrees", "axial, flip angle 20 degrees")),
        (
            "ContrastBolusAgent",
            ("", "CANARY"),
            ("axial, with contrast agent", "axial, without contrast agent"),
        ),
        (
            "ImageType",
            (["DERIVED", "PRIMARY", "TRACEW"], ["DERIVED", "PRIMARY", "FA"]),
            ("axial, image type FA", "axial, image type TRACEW"),
        ),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "M", "ND"], ["ORIGINAL", "PRIMARY", "P", "ND"]),
            ("axial, magnitude", "axial, phase"),
        ),
    ],
)
def test_what_separates_whole_stacks_names_them(
    keyword: str, values: tuple[object, object], names: tuple[str, str]
) -> None:
    first = ct_series(5)
    second = copied(first, first_number=6)
    for ds in first:
        setattr(ds, keyword, values[0])
    for ds in second:
        setattr(ds, keyword, values[1])
    assert sizes(group(headers_of(first + second))) == dict.fromkeys(names, 5)
    assert set(causes(group(headers_of(first + second))).values()) == {None}


def test_two_attributes_together_separate_four_stacks() -> None:
    series: list[Dataset] = []
    first = mr_series(5)
    for number, (echo, part) in enumerate(product(("5", "10"), ("M", "P"))):
        members = copied(first, first_number=1 + 5 * number)
        for ds in members:
            ds.EchoTime, ds.ImageType = echo, ["ORIGINAL", "PRIMARY", part]
        series += members
    assert causes(group(headers_of(series))) == {
        "axial, magnitude, echo time 5 ms": None,
        "axial, magnitude, echo time 10 ms": None,
        "axial, phase, echo time 5 ms": None,
        "axial, phase, echo time 10 ms": None,
    }


def test_interleaved_kernels_at_different_positions_are_not_one_volume() -> None:
    series = ct_series(10)
    for ds in series[::2]:
        ds.ConvolutionKernel = "B70f"
    stacks = group(headers_of(series))
    assert causes(stacks) == {"axial, kernel B30f": None, "axial, kernel B70f": None}
    assert [geometry(stack).grid.spacing_mm[0] for stack in stacks] == pytest.approx([5.0, 5.0])


def test_a_kernel_that_changes_on_the_way_is_refused_as_ambiguous() -> None:
    series = ct_series(10)
    for ds in series[6:]:
        ds.ConvolutionKernel = "B70f"
    (stack,) = group(headers_of(series))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.AMBIGUOUS_STACK
    assert stack.refusal.instance_numbers == (7, 8, 9, 10)
    assert "ConvolutionKernel" in stack.refusal.reason


def test_a_sequential_scan_stays_whole_though_each_rotation_is_an_acquisition() -> None:
    series = ct_series(12)
    for k, ds in enumerate(series):
        ds.AcquisitionNumber, ds.AcquisitionTime = k // 4, f"10{k:02d}00"
    (stack,) = group(headers_of(series))
    assert stack.refusal is None
    assert len(stack.headers) == 12


def test_rotations_that_overlap_are_refused_and_not_cut_into_pieces() -> None:
    series = ct_series(12)
    for k, ds in enumerate(series):
        ds.AcquisitionNumber = k // 4
    overlap = copied([series[4]], first_number=99)
    overlap[0].AcquisitionNumber = 0
    (stack,) = group(headers_of(series + overlap))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.DUPLICATE_POSITION
    assert stack.refusal.instance_numbers == (5, 99)


def test_images_that_nothing_tells_apart_are_refused_as_ambiguous() -> None:
    series = ct_series(4)
    (stack,) = group(headers_of(series + copied(series, first_number=5)))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.AMBIGUOUS_STACK
    assert stack.refusal.instance_numbers == tuple(range(1, 9))


def test_a_slice_that_was_repeated_is_refused_and_both_are_named() -> None:
    series = ct_series(8)
    (stack,) = group(headers_of(series + copied([series[3]], first_number=20)))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.DUPLICATE_POSITION
    assert stack.refusal.instance_numbers == (4, 20)


def test_two_frames_of_reference_one_after_the_other_are_refused() -> None:
    series = ct_series(10)
    other = generate_uid()
    for ds in series[5:]:
        ds.FrameOfReferenceUID = other
    (stack,) = group(headers_of(series))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.MIXED_FRAME_OF_REFERENCE


def test_orientations_become_stacks_of_their_own() -> None:
    axial, coronal = ct_series(5), ct_series(4, orientation=(1, 0, 0, 0, 0, -1))
    tilted = ct_series(3, orientation=(0.8, 0.6, 0, 0, 0, -1))
    assert causes(group(headers_of(axial + coronal + tilted))) == {
        "axial": None,
        "coronal": None,
        "oblique": None,
    }


def test_stacks_that_would_share_a_name_are_numbered() -> None:
    series = ct_series(4) + ct_series(4, orientation=(0.999, 0.0447, 0, -0.0447, 0.999, 0))
    assert list(causes(group(headers_of(series)))) == ["axial", "axial (2)"]


def test_a_fan_of_single_slices_is_one_refused_stack() -> None:
    fan = [
        ct_slice(orientation=orientation, number=n)
        for n, orientation in enumerate([(1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)], start=1)
    ]
    (stack,) = group(headers_of(fan))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.MIXED_ORIENTATION
    assert stack.refusal.instance_numbers == (1, 2, 3)


def test_images_without_orientation_do_not_spoil_the_others() -> None:
    screenshot = ct_slice(number=50)
    del screenshot.ImageOrientationPatient, screenshot.ImagePositionPatient
    assert causes(group(headers_of([*ct_series(4), screenshot]))) == {
        "axial": None,
        "without orientation": RefusalCode.NO_ORIENTATION,
    }


def test_a_slice_without_position_is_refused_with_its_stack() -> None:
    series = ct_series(4)
    del series[1].ImagePositionPatient
    (stack,) = group(headers_of(series))
    assert stack.refusal is not None
    assert (stack.refusal.code, stack.refusal.instance_numbers) == (RefusalCode.NO_POSITION, (2,))


def test_directions_that_coincide_are_refused_without_a_warning() -> None:
    series = ct_series(3)
    for ds in series:
        ds.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    (stack,) = group(headers_of(series))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.ORIENTATION_NOT_ORTHONORMAL


def of_class(uid: str, **attributes: object) -> Header:
    ds = ct_slice(number=9)
    ds.SOPClassUID = uid
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    if value := attributes.get("PixelData", ds.PixelData):
        ds.PixelData = value
    else:
        del ds.PixelData
    return headers_of([ds])[0]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (
            of_class(SecondaryCaptureImageStorage, ImageType=["DERIVED", "SECONDARY", "VRT"]),
            RefusalCode.DERIVED_IMAGE,
        ),
        (of_class(SecondaryCaptureImageStorage, ImageType=["ORIGINAL", "LOCALIZER"]), RefusalCode.LOCALIZER),
        (of_class(BreastTomosynthesisImageStorage, NumberOfFrames=10), RefusalCode.UNSUPPORTED_SOP_CLASS),
        (of_class(VLWholeSlideMicroscopyImageStorage), RefusalCode.UNSUPPORTED_SOP_CLASS),
        (of_class(DigitalXRayImageStorageForProcessing), RefusalCode.UNSUPPORTED_SOP_CLASS),
        (of_class(EnhancedCTImageStorage, NumberOfFrames=10), RefusalCode.NO_FUNCTIONAL_GROUPS),
        (of_class("1.2.840.113619.4.26"), RefusalCode.UNSUPPORTED_SOP_CLASS),
        (
            of_class(MRImageStorage, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
            RefusalCode.SIEMENS_MOSAIC,
        ),
        (of_class(BasicTextSRStorage, PixelData=None), RefusalCode.NOT_AN_IMAGE),
        (replace(of_class(BasicTextSRStorage, PixelData=None), is_own_result=True), RefusalCode.OWN_RESULT),
        (replace(of_class(SecondaryCaptureImageStorage), is_own_result=True), RefusalCode.OWN_RESULT),
    ],
)
def test_what_is_no_slice_is_refused_beside_good_slices(header: Header, code: RefusalCode) -> None:
    stacks = group([*headers_of(ct_series(4)), header])
    assert causes(stacks) == {"axial": None, code.replace("-", " "): code}
    assert stacks[1].refusal is not None
    assert stacks[1].refusal.instance_numbers == (9,)


def test_mosaics_at_different_places_are_not_taken_for_slices() -> None:
    series = mr_series(8)
    for ds in series:
        ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    (stack,) = group(headers_of(series))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.SIEMENS_MOSAIC
    assert "without mosaic" in stack.refusal.reason


FRAMES = {"NumberOfFrames": 3, "PixelData": b"\0\0" * 3 * 16 * 20}


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (of_class(SecondaryCaptureImageStorage), StackKind.IMAGE),
        (of_class(MultiFrameTrueColorSecondaryCaptureImageStorage), StackKind.IMAGE),
        (of_class(MultiFrameTrueColorSecondaryCaptureImageStorage, **FRAMES), StackKind.CINE),
        (of_class(ComputedRadiographyImageStorage), StackKind.IMAGE),
        (of_class(DigitalMammographyXRayImageStorageForPresentation), StackKind.IMAGE),
        (of_class(VLPhotographicImageStorage), StackKind.IMAGE),
        (of_class(UltrasoundImageStorage), StackKind.IMAGE),
        (of_class(UltrasoundMultiFrameImageStorage, NumberOfFrames=1), StackKind.IMAGE),
        (of_class(UltrasoundMultiFrameImageStorage, **FRAMES), StackKind.CINE),
        (of_class(XRayAngiographicImageStorage, **FRAMES), StackKind.CINE),
        (of_class("1.2.840.10008.5.1.4.1.1.3", **FRAMES), StackKind.CINE),
    ],
)
def test_what_is_no_slice_but_an_image_is_a_stack_of_its_own(header: Header, kind: StackKind) -> None:
    slices, image = group([header, *headers_of(ct_series(4))])
    assert (slices.name, slices.kind, len(slices.headers)) == ("axial", StackKind.VOLUME, 4)
    assert (image.name, image.kind, image.headers, image.refusal) == (f"{kind} 9", kind, (header,), None)


def test_images_of_one_series_are_named_by_number_and_view() -> None:
    views = [of_class(ComputedRadiographyImageStorage, ViewPosition=view) for view in ("LL", "PA", "Ms. Miller")]
    numbered = [replace(header, instance_number=3 - n, sop_instance_uid=f"1.{n}") for n, header in enumerate(views)]
    assert [stack.name for stack in group(numbered)] == ["image 1", "image 2, PA", "image 3, LL"]
    assert [stack.name for stack in group(numbered[:1])] == [""]


def test_an_image_whose_pixels_cannot_be_used_is_refused_alone() -> None:
    good = of_class(ComputedRadiographyImageStorage)
    damaged = replace(of_class(ComputedRadiographyImageStorage, PixelData=None), instance_number=10)
    both = replace(good, instance_number=11, sop_instance_uid="1.5", has_modality_lut_sequence=True)
    assert causes(group([good, damaged, both])) == {
        "image 9": None,
        "image 10": RefusalCode.PIXELS_UNREADABLE,
        "image 11": RefusalCode.MODALITY_LUT_CONFLICT,
    }


@pytest.mark.parametrize(
    "image_type",
    [
        ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"],
        ["DERIVED", "SECONDARY", "PROJECTION IMAGE"],
        ["DERIVED", "SECONDARY", "SCREEN SAVE"],
        ["DERIVED", "SECONDARY", "MPR", "VRT"],
    ],
)
def test_projections_and_renderings_are_refused(image_type: list[str]) -> None:
    series = ct_series(4)
    for ds in series:
        ds.ImageType = image_type
    (stack,) = group(headers_of(series))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.DERIVED_IMAGE


def test_parallel_reformats_are_volumes() -> None:
    series = ct_series(4)
    for ds in series:
        ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MPR"]
    (stack,) = group(headers_of(series))
    assert stack.refusal is None


def test_a_multi_frame_instance_of_a_single_frame_class_is_refused() -> None:
    ds = ct_slice()
    ds.NumberOfFrames = 3
    (stack,) = group(headers_of([ds]))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.UNSUPPORTED_SOP_CLASS
    assert "NumberOfFrames" in stack.refusal.reason


def test_names_and_reasons_quote_no_text_of_the_patient() -> None:
    series = two_phases()
    for ds in series:
        ds.ContrastBolusAgent = "CANARY" if ds.AcquisitionNumber == 2 else ""
    text = repr(group(headers_of([*series, localizer()])))
    assert "CANARY" not in text
    assert "1.2.826" not in text


def test_a_slice_can_be_missing_from_ten_thousand() -> None:
    header = headers_of(ct_series(1))[0]
    headers = [
        replace(header, sop_instance_uid=f"2.25.{k}", instance_number=k, image_position_mm=(0.0, 0.0, 0.5 * k))
        for k in range(10_000)
        if k != 7777
    ]
    (stack,) = group(headers)
    assert stack.refusal is not None
    assert stack.refusal.instance_numbers == (7776, 7778)
