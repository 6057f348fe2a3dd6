from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import headers_of, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import cine, image_of, photograph, radiograph, with_pixels
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from domain.errors import AssemblyError, StorageError
from domain.series import RefusalCode
from domain.voi import Voi, VoiWindow
from volume import screen
from volume.codestream import size_of
from volume.image_format import MOST_BYTES, check_image_format, raster_of
from volume.images import read_image

RGB = np.random.default_rng(3).integers(0, 256, (2, 10, 12, 3)).astype(np.uint8)


def cause(error: pytest.ExceptionInfo[AssemblyError]) -> str:
    return error.value.code


def test_a_radiograph_with_everything_that_its_header_says(tmp_path: Path) -> None:
    ds = radiograph(seed=4)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = ["2000", "1"], ["800", "2"], "SIGMOID"
    ds.WindowCenterWidthExplanation = "bones"
    image = image_of(ds, tmp_path)
    np.testing.assert_array_equal(image.pixels[0], np.frombuffer(ds.PixelData, "<u2").reshape(48, 32))
    assert image.raster.shape == (1, 48, 32)
    assert (image.raster.spacing_mm, image.raster.spacing_origin) == ((0.2, 0.1), "ImagerPixelSpacing")
    first, second = VoiWindow(centre=2000, width=800, explanation="bones"), VoiWindow(centre=1, width=2)
    assert image.voi == Voi(windows=(first, second), function="SIGMOID")
    assert (image.modality, image.view_position, image.laterality) == ("DX", "PA", "U")
    assert (image.patient_orientation, image.frame_times_ms, image.regions) == (("L", "F"), (), ())
    assert image.pixels.dtype == np.int16
    assert not image.pixels.flags.writeable


def test_the_view_is_read_from_its_code_where_its_term_is_absent(tmp_path: Path) -> None:
    ds, code = radiograph(), Dataset()
    ds.ViewPosition = "Ms. Miller"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399173006", "SCT", "left lateral"
    ds.ViewCodeSequence = [code]
    assert image_of(ds, tmp_path / "coded").view_position == "LL"
    code.CodeValue = "1"
    assert image_of(ds, tmp_path / "unknown").view_position == ""


def test_monochrome1_keeps_its_values(tmp_path: Path) -> None:
    ds = radiograph()
    stored = image_of(ds, tmp_path / "2").pixels
    ds.PhotometricInterpretation = "MONOCHROME1"
    image = image_of(ds, tmp_path / "1")
    np.testing.assert_array_equal(image.pixels, stored)
    assert image.photometric_interpretation == "MONOCHROME1"


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [
        (1, 0, "int16"),
        (2, -10, "int16"),
        (10, 0, "uint16"),
        (20, -1, "int32"),
        (0.5, 0, "float32"),
        (1, 0.5, "float32"),
    ],
)
def test_rescaled_values_are_exact_in_the_smallest_type(
    slope: float, intercept: float, dtype: str, tmp_path: Path
) -> None:
    ds = radiograph()
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = str(slope), str(intercept), "US"
    image = image_of(ds, tmp_path)
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(1, 48, 32)
    np.testing.assert_array_equal(image.pixels, stored * float(slope) + float(intercept))
    assert image.pixels.dtype == dtype


def test_a_modality_lut_sequence_is_applied_and_not_together_with_a_rescale(tmp_path: Path) -> None:
    ds, table = with_pixels(radiograph(), np.array([[0, 1], [2, 9]], np.uint8)), Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [3, 0, 16], "OD"
    table.LUTData = np.array([100, 300, 60000], "<u2").tobytes()
    table["LUTData"].VR = "OW"
    ds.ModalityLUTSequence = [table]
    np.testing.assert_array_equal(image_of(ds, tmp_path / "lut").pixels[0], [[100, 300], [60000, 60000]])
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    with pytest.raises(AssemblyError) as error:
        image_of(ds, tmp_path / "both")
    assert cause(error) == RefusalCode.MODALITY_LUT_CONFLICT


@given(bits=st.integers(2, 12), signed=st.booleans(), high=st.integers(0, 4), seed=st.integers(0, 99))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_unused_bits_are_dropped_and_the_sign_is_extended(
    bits: int, signed: bool, high: int, seed: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    low = -(1 << (bits - 1)) if signed else 0
    values = random.integers(low, low + (1 << bits), (4, 6))
    rubbish = random.integers(0, 1 << 16, (4, 6))
    mask = ((1 << bits) - 1) << high
    words = ((values << high) & mask) | (rubbish & ~mask & 0xFFFF)
    ds = with_pixels(radiograph(), words.astype(np.uint16))
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1 + high, int(signed)
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels[0], values)


@pytest.mark.parametrize(("photometric", "darkest"), [("MONOCHROME2", 5), ("MONOCHROME1", 80)])
def test_padding_gets_the_value_that_is_shown_darkest(photometric: str, darkest: int, tmp_path: Path) -> None:
    ds = with_pixels(radiograph(), np.array([[[0, 5], [9, 80]], [[0, 0], [7, 10]]], np.uint16))
    ds.PhotometricInterpretation, ds.PixelPaddingValue = photometric, 0
    image = image_of(ds, tmp_path)
    np.testing.assert_array_equal(image.pixels, [[[darkest, 5], [9, 80]], [[darkest, darkest], [7, 10]]])
    assert image.padding_value == darkest


def colour(pixels: np.ndarray, photometric: str, planar: int) -> Dataset:
    ds = with_pixels(photograph(), pixels)
    ds.PhotometricInterpretation, ds.PlanarConfiguration = photometric, planar
    if planar:
        ds.PixelData = np.moveaxis(pixels, -1, 1).tobytes()
    return ds


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_every_frame_of_a_colour_instance_becomes_rgb(photometric: str, planar: int, tmp_path: Path) -> None:
    stored = convert_color_space(RGB.copy(), "RGB", photometric, per_frame=True) if photometric != "RGB" else RGB
    image = image_of(colour(np.asarray(stored), photometric, planar), tmp_path)
    np.testing.assert_allclose(image.pixels.astype(int), RGB, atol=0 if photometric == "RGB" else 2)
    assert (image.raster.shape, image.photometric_interpretation) == ((2, 10, 12), "RGB")
    assert image.is_colour


def test_subsampled_colours_become_rgb(tmp_path: Path) -> None:
    pixels = np.repeat(RGB[:, :, ::2], 2, axis=2)  # neighbours share their colour, as 4:2:2 needs
    ybr = np.asarray(convert_color_space(pixels.copy(), "RGB", "YBR_FULL", per_frame=True)).reshape(-1, 2, 3)
    ds = with_pixels(photograph(), pixels)
    ds.PhotometricInterpretation = "YBR_FULL_422"
    ds.PixelData = np.stack([ybr[:, 0, 0], ybr[:, 1, 0], ybr[:, 0, 1], ybr[:, 0, 2]], axis=1).tobytes()
    np.testing.assert_allclose(image_of(ds, tmp_path).pixels.astype(int), pixels, atol=2)


def palette(ds: Dataset, colours: np.ndarray, *, first: int, entry_bits: int, factor: int) -> Dataset:
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for index, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [len(colours), first, entry_bits])
        entries = colours[:, index].astype("<u2" if entry_bits == 16 else "u1") * factor
        setattr(ds, f"{name}PaletteColorLookupTableData", entries.tobytes())
    return ds


@pytest.mark.parametrize(("entry_bits", "factor"), [(16, 257), (16, 1), (8, 1)])
def test_a_palette_gives_each_frame_the_same_colours(entry_bits: int, factor: int, tmp_path: Path) -> None:
    """Also with entries of 16 bits that hold 8, and in a frame that uses the dark ones alone."""
    colours = np.array([[1, 2, 3], [40, 50, 60], [255, 128, 0], [7, 8, 9]], np.uint8)
    frames = np.array([[[10, 11], [12, 13]], [[10, 10], [10, 200]]], np.uint8)
    ds = palette(with_pixels(photograph(), frames), colours, first=10, entry_bits=entry_bits, factor=factor)
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels, colours[[[[0, 1], [2, 3]], [[0, 0], [0, 3]]]])


@pytest.mark.parametrize("entry_bits", [8, 16])
def test_a_palette_in_big_endian_words_gives_the_same_colours(entry_bits: int, tmp_path: Path) -> None:
    colours = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
    frames = np.array([[[0, 1], [2, 3]]], np.uint8)
    ds = palette(with_pixels(photograph(), frames), colours, first=0, entry_bits=entry_bits, factor=1)
    for name in ("Red", "Green", "Blue"):
        table = ds[f"{name}PaletteColorLookupTableData"]
        words = np.frombuffer(table.value, "<u2")
        table.value = (words << 8 | 7 if entry_bits == 16 else words).astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels, colours[frames])
    (path,) = save([ds], tmp_path)
    np.testing.assert_array_equal(screen.read_frame(path).values, colours[frames[0]])


def test_a_palette_of_bytes_may_have_more_than_256_entries(tmp_path: Path) -> None:
    colours = (np.arange(900).reshape(300, 3) % 251).astype(np.uint8)
    ds = palette(with_pixels(photograph(), np.zeros((1, 2, 2), np.uint8)), colours, first=0, entry_bits=8, factor=1)
    words = np.array([[0, 255], [256, 299]], "<u2")
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 16, 16, 15, words.tobytes()
    ds["PixelData"].VR = "OW"
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels[0], colours[words])


def test_a_palette_of_negative_values_may_say_its_first_one_without_sign(tmp_path: Path) -> None:
    colours = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
    frames = np.array([[[0, 1], [2, 3]]], np.uint8)
    ds = palette(with_pixels(photograph(), frames), colours, first=65534, entry_bits=8, factor=1)
    ds.PixelRepresentation, ds.PixelData = 1, (frames.astype(np.int8) - 2).tobytes()
    for name in ("Red", "Green", "Blue"):
        ds[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels, colours[frames])


def test_a_palette_of_an_odd_number_of_bytes_is_one(tmp_path: Path) -> None:
    colours = np.arange(9, dtype=np.uint8).reshape(3, 3) * 20
    frames = np.array([[[0, 1], [2, 3]]], np.uint8)
    ds = palette(with_pixels(photograph(), frames), colours, first=0, entry_bits=8, factor=1)
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels, colours[frames.clip(0, 2)])


def test_colours_of_16_bits_keep_their_highest_eight(tmp_path: Path) -> None:
    ds = with_pixels(photograph(), RGB[0])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = (RGB[0].astype("<u2") << 4 | 9).tobytes()
    ds["PixelData"].VR = "OW"
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels[0], RGB[0])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("make", [radiograph, photograph, cine])
def test_compressed_pixels_are_the_same(syntax: str, make: type, tmp_path: Path) -> None:
    ds = make()
    plain = image_of(ds, tmp_path / "plain")
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(image_of(ds, tmp_path / "compressed").pixels, plain.pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("make", [radiograph, photograph, cine])
def test_every_uncompressed_form_has_the_same_pixels(syntax: str, make: type, tmp_path: Path) -> None:
    ds = make()
    plain = image_of(ds, tmp_path / "plain")
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    path = tmp_path / "other.dcm"
    ds.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    (header,) = headers_of([ds])
    np.testing.assert_array_equal(read_image(header, path).pixels, plain.pixels)


def test_a_cine_has_times_and_its_regions_as_they_stand(tmp_path: Path) -> None:
    image = image_of(cine(3), tmp_path)
    assert image.frame_times_ms == (0.0, 40.0, 80.0)
    assert (image.raster.shape, image.raster.spacing_mm) == ((3, 36, 40), None)
    (region,) = image.regions
    assert (region.x0, region.y1, region.spatial_format, region.units_x) == (2, 19, 1, 3)
    assert (region.delta_x, region.delta_y) == (0.05, 0.04)


def test_times_come_from_a_vector_or_a_rate_where_there_is_no_step(tmp_path: Path) -> None:
    ds = cine(3)
    ds.FrameTimeVector = ["5", "10", "20"]
    assert image_of(ds, tmp_path / "vector").frame_times_ms == (0.0, 10.0, 30.0)
    del ds.FrameTimeVector, ds.FrameTime
    ds.CineRate = "25"
    assert image_of(ds, tmp_path / "rate").frame_times_ms == (0.0, 40.0, 80.0)
    ds.CineRate = "0"
    assert image_of(ds, tmp_path / "none").frame_times_ms == ()


def test_only_the_frame_that_is_asked_for_is_read(tmp_path: Path) -> None:
    ds = cine(4)
    whole = image_of(ds, tmp_path)
    (header,) = headers_of([ds])
    (path,) = tmp_path.iterdir()
    third = read_image(header, path, frame=3)
    np.testing.assert_array_equal(third.pixels, whole.pixels[2:3])


SPACINGS: dict[str, tuple[dict[str, object], tuple[tuple[float, float] | None, str]]] = {
    "none": ({}, (None, "")),
    "zero is none": ({"PixelSpacing": [0, 0]}, (None, "")),
    "at the detector": ({"ImagerPixelSpacing": [0.2, 0.1]}, ((0.2, 0.1), "ImagerPixelSpacing")),
    "zero beside one at the detector": (
        {"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]},
        ((0.2, 0.1), "ImagerPixelSpacing"),
    ),
    "both the same: not calibrated": (
        {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.2, 0.1]},
        ((0.2, 0.1), "ImagerPixelSpacing"),
    ),
    "calibrated": (
        {"PixelSpacing": [0.18, 0.09], "ImagerPixelSpacing": [0.2, 0.1]},
        ((0.18, 0.09), "PixelSpacing"),
    ),
    "calibrated, it says": (
        {"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"},
        ((0.2, 0.1), "PixelSpacing"),
    ),
    "scanned film": (
        {"NominalScannedPixelSpacing": [0.3, 0.3], "SOPClassUID": SecondaryCaptureImageStorage},
        ((0.3, 0.3), "NominalScannedPixelSpacing"),
    ),
    "only one number": ({"PixelSpacing": 0.3}, (None, "")),
}


@pytest.mark.parametrize("said", SPACINGS)
def test_where_the_spacing_comes_from(said: str) -> None:
    attributes, expected = SPACINGS[said]
    ds = radiograph()
    ds.SOPClassUID = ComputedRadiographyImageStorage
    del ds.ImagerPixelSpacing
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    raster = raster_of(headers_of([ds])[0])
    assert (raster.spacing_mm, raster.spacing_origin) == expected


def test_ultrasound_has_no_spacing_but_its_regions() -> None:
    ds = cine()
    ds.PixelSpacing = [0.1, 0.1]
    assert raster_of(headers_of([ds])[0]).spacing_mm is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"has_pixel_data": False}, RefusalCode.PIXELS_UNREADABLE),
        ({"rows": 0}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"photometric_interpretation": "RGB"}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"photometric_interpretation": "HSV", "samples_per_pixel": 3}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"pixel_presentation": "COLOR"}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"bits_allocated": 1, "bits_stored": 1, "high_bit": 0}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"bits_allocated": 32}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"high_bit": 15, "bits_stored": 17}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"rescale_slope": 0.0, "rescale_intercept": 1.0}, RefusalCode.UNSUPPORTED_PIXELS),
        ({"rescale_slope": 1.0, "has_modality_lut_sequence": True}, RefusalCode.MODALITY_LUT_CONFLICT),
        ({"rows": 65535, "columns": 65535, "number_of_frames": 1000}, RefusalCode.TOO_LARGE),
    ],
)
def test_what_cannot_become_an_image_is_refused_before_anything_is_decoded(
    changes: dict[str, object], code: RefusalCode
) -> None:
    (header,) = headers_of([radiograph()])
    with pytest.raises(AssemblyError) as error:
        check_image_format(replace(header, **changes))  # type: ignore[arg-type]
    assert cause(error) == code
    assert "InstanceNumber 1" in str(error.value)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_that_claims_another_size_is_not_decoded(syntax: str, tmp_path: Path) -> None:
    ds = radiograph()
    ds.compress(syntax, generate_instance_uid=False)
    (path,) = save([ds], tmp_path)
    (header,) = headers_of([ds])
    with pytest.raises(AssemblyError, match="another size") as error:
        read_image(replace(header, rows=32, columns=48), path)
    assert cause(error) == RefusalCode.PIXELS_UNREADABLE


def test_a_frame_of_jpeg_ls_that_is_cut_off_is_refused_as_such(tmp_path: Path) -> None:
    ds = radiograph()
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    ds.PixelData = encapsulate([get_frame(ds.PixelData, 0, number_of_frames=1)[:-40]])
    (path,) = save([ds], tmp_path)
    with pytest.raises(AssemblyError, match="cut off") as error:
        read_image(headers_of([ds])[0], path)
    assert cause(error) == RefusalCode.PIXELS_UNREADABLE


def test_a_deflated_bomb_is_refused_by_its_inflated_size(tmp_path: Path) -> None:
    ds = radiograph()
    ds.add_new(0x00091010, "OB", b"\0" * (8 << 20))
    ds.add_new(0x00090010, "LO", "TEST")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (path,) = save([ds], tmp_path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(AssemblyError) as error:
        read_image(headers_of([ds])[0], path, most_bytes=1 << 20)
    assert cause(error) == RefusalCode.TOO_LARGE


def test_fewer_frames_than_announced_and_damage_name_the_instance(tmp_path: Path) -> None:
    ds = cine(4, number=7)
    ds.compress(RLELossless, generate_instance_uid=False)
    (path,) = save([ds], tmp_path)
    (header,) = headers_of([ds])
    for damaged in (replace(header, number_of_frames=6), replace(header, rows=35)):
        with pytest.raises(AssemblyError, match="InstanceNumber 7") as error:
            read_image(damaged, path)
        assert cause(error) == RefusalCode.PIXELS_UNREADABLE


def test_a_missing_file_is_the_stores_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_image(headers_of([radiograph()])[0], tmp_path / "gone.dcm")


@given(st.binary(max_size=60))
def test_the_size_of_rubbish_is_read_without_a_fault(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \xff\x4f\xff\x51"):
        size = size_of(start + data)
        assert size is None or len(size) == 2


def test_the_limit_leaves_room_below_a_gigabyte() -> None:
    assert MOST_BYTES < 1 << 30


def test_a_voi_lut_begins_below_zero_where_the_rescaled_values_do(tmp_path: Path) -> None:
    ds, table = with_pixels(radiograph(), np.array([[0, 1], [2, 3]], np.uint16)), Dataset()
    ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
    table.add_new("LUTDescriptor", "US", [3, (1 << 16) - 1024, 16])
    table.add_new("LUTData", "US", [0, 100, 200])
    ds.VOILUTSequence = [table]
    (lut,) = image_of(ds, tmp_path / "lut").voi.luts
    assert lut.first == -1024
