"""Stacks and their files, decoded into volumes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from factories import ct_series, headers_of, moved, mr_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian
from transfer_syntaxes import as_big_endian, as_deflated, as_implicit, as_rle, stored

from domain.errors import AssemblyError
from domain.series import RefusalCode
from domain.volume import Volume
from volume.assembly import assemble
from volume.grouping import group


def noise(slices: int = 4, low: int = -1000, high: int = 2000) -> npt.NDArray[np.int16]:
    return np.random.default_rng(7).integers(low, high, (slices, 16, 20)).astype(np.int16)


def assembled(series: Sequence[Dataset], folder: Path) -> Volume:
    (stack,) = group(headers_of(series))
    return assemble(stack, stored(series, folder))


def with_words(series: list[Dataset], words: npt.NDArray[np.integer[Any]], **attributes: object) -> list[Dataset]:
    """Put raw words and image pixel attributes into a series."""
    for ds, slice_words in zip(series, words, strict=True):
        ds.PixelData = np.ascontiguousarray(slice_words).tobytes()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return series


def test_voxels_are_hounsfield_units_in_slice_order(tmp_path: Path) -> None:
    voxels = noise()
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.RescaleIntercept = "-24"
    random.Random(2).shuffle(series)
    volume = assembled(series, tmp_path)
    np.testing.assert_array_equal(volume.voxels, voxels - 24)
    assert volume.voxels.dtype == np.int16
    assert (volume.unit, volume.padding_value) == ("HU", None)
    by_height = sorted(series, key=lambda ds: ds.ImagePositionPatient[2])
    assert volume.sop_instance_uids == tuple(str(ds.SOPInstanceUID) for ds in by_height)


@given(order=st.permutations(range(6)))
@settings(max_examples=15, deadline=None)
def test_any_permutation_of_the_instances_gives_the_same_volume(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    series = permuted_series()
    first = assembled(series, tmp_path_factory.mktemp("ordered"))
    again = assembled([series[k] for k in order], tmp_path_factory.mktemp("permuted"))
    np.testing.assert_array_equal(first.voxels, again.voxels)
    np.testing.assert_array_equal(first.grid.affine, again.grid.affine)
    assert first.sop_instance_uids == again.sop_instance_uids


def permuted_series() -> list[Dataset]:
    jitter = np.outer([0, 0.02, -0.01, 0.03, 0, -0.02], (0, 0, 1))
    return moved(ct_series(voxels=noise(6)), jitter)


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(tmp_path: Path) -> None:
    voxels = noise(3, 0, 500)
    series = ct_series(voxels=voxels)
    slopes, intercepts = [0.5, 1.25, 2.0], [-10.0, 0.0, 7.5]
    for ds, slope, intercept in zip(series, slopes, intercepts, strict=True):
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
    volume = assembled(series, tmp_path)
    expected = voxels * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_allclose(volume.voxels, expected)
    assert volume.voxels.dtype == np.float32


def test_whole_slopes_stay_whole_numbers(tmp_path: Path) -> None:
    voxels = noise(3, -500, 500)
    series = ct_series(voxels=voxels)
    series[1].RescaleSlope, series[1].RescaleIntercept = "-3", "5"
    volume = assembled(series, tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels[1], -3 * voxels[1] + 5)
    np.testing.assert_array_equal(volume.voxels[2], voxels[2])


def test_values_that_do_not_fit_16_bits_become_float(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 30_000, (3, 16, 20)).astype(np.uint16)
    words[1, 5, 5] = 65_000
    series = with_words(ct_series(3), words, PixelRepresentation=0)
    volume = assembled(series, tmp_path)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, words)


def test_unsigned_16_bit_values_that_fit_after_rescale_stay_whole_numbers(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 65_535, (3, 16, 20)).astype(np.uint16)
    series = with_words(ct_series(3), words, PixelRepresentation=0, RescaleIntercept="-32768")
    volume = assembled(series, tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, words.astype(int) - 32768)


def test_bits_outside_bits_stored_are_ignored(tmp_path: Path) -> None:
    clean = np.random.default_rng(1).integers(0, 4096, (3, 16, 20)).astype(np.uint16)
    rubbish = np.random.default_rng(2).integers(0, 16, clean.shape).astype(np.uint16) << 12
    series = with_words(
        ct_series(3), clean | rubbish, BitsStored=12, HighBit=11, PixelRepresentation=0, RescaleIntercept="-1024"
    )
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, clean.astype(int) - 1024)


def test_signed_values_of_12_bits_are_sign_extended(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(-2048, 2048, (3, 16, 20))
    series = with_words(ct_series(3), (values & 0xFFF).astype(np.uint16), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, values)


def test_a_high_bit_above_bits_stored_is_shifted_down(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 4096, (3, 16, 20))
    words = (values << 4 | 0b1010).astype(np.uint16)
    series = with_words(ct_series(3), words, BitsStored=12, HighBit=15, PixelRepresentation=0)
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, values)


def test_eight_bit_pixels(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (3, 16, 20)).astype(np.uint8)
    series = with_words(ct_series(3), values, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, values)


def test_signed_and_unsigned_slices_in_one_series_are_each_decoded_by_their_own_header(tmp_path: Path) -> None:
    voxels = noise(4)
    series = ct_series(voxels=voxels)
    for ds, own in zip(series[::2], voxels[::2], strict=True):
        ds.PixelData = (own.astype(int) + 1024).astype(np.uint16).tobytes()
        ds.PixelRepresentation, ds.RescaleIntercept = 0, "-1024"
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, voxels)


def test_monochrome1_keeps_its_values(tmp_path: Path) -> None:
    voxels = noise()
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, voxels)


def test_an_unsigned_padding_value_beside_signed_pixels_is_air(tmp_path: Path) -> None:
    voxels = noise(3, 0, 3000)
    voxels[:, :2] = -2000
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.RescaleIntercept = "-1024"
        ds["PixelPaddingValue"] = DataElement("PixelPaddingValue", "US", 63536)
    volume = assembled(series, tmp_path)
    assert volume.padding_value == -1024
    assert (volume.voxels[:, :2] == -1024).all()
    np.testing.assert_array_equal(volume.voxels[:, 2:], voxels[:, 2:] - 1024)


def test_padding_that_would_overflow_does_not_cost_the_whole_numbers(tmp_path: Path) -> None:
    voxels = noise(3, 0, 3000)
    voxels[0] = -32768
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.RescaleIntercept = "-1024"
        ds["PixelPaddingValue"] = DataElement("PixelPaddingValue", "SS", -32768)
    volume = assembled(series, tmp_path)
    assert volume.voxels.dtype == np.int16
    assert (volume.voxels[0] == -1024).all()
    np.testing.assert_array_equal(volume.voxels[1:], voxels[1:] - 1024)


def test_a_range_of_padding_values_is_air(tmp_path: Path) -> None:
    voxels = noise(3, 0, 1000)
    voxels[1, 0, :3] = -1200, -1500, -1600
    series = ct_series(voxels=voxels)
    for ds in series:
        ds["PixelPaddingValue"] = DataElement("PixelPaddingValue", "SS", -1200)
        ds["PixelPaddingRangeLimit"] = DataElement("PixelPaddingRangeLimit", "SS", -1500)
    volume = assembled(series, tmp_path)
    assert volume.voxels[1, 0, :3].tolist() == [-1024, -1024, -1600]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_padding_value_in_the_unused_bits_does_not_hide_tissue(is_compressed: bool, tmp_path: Path) -> None:
    tissue = 63536 & 0xFFF  # the padding value's lower 12 bits: 1048 HU, bone
    words = np.full((3, 16, 20), tissue, np.uint16)
    words[:, 0] = 63536
    series = with_words(
        ct_series(3), words, BitsStored=12, HighBit=11, PixelRepresentation=0, RescaleIntercept="-1024"
    )
    for ds in series:
        ds["PixelPaddingValue"] = DataElement("PixelPaddingValue", "US", 63536)
        if is_compressed:
            as_rle(ds)
    volume = assembled(series, tmp_path)
    assert (volume.voxels[:, 0] == -1024).all()
    assert (volume.voxels[:, 1:] == tissue - 1024).all()


def test_an_unsigned_padding_range_is_found(tmp_path: Path) -> None:
    words = np.full((3, 16, 20), 500, np.uint16)
    words[:, 3] = 65535
    series = with_words(mr_series(3), words, PixelRepresentation=0)
    for ds in series:
        ds["PixelPaddingValue"] = DataElement("PixelPaddingValue", "SS", -1)
    volume = assembled(series, tmp_path)
    assert volume.padding_value == 0
    assert (volume.voxels[:, 3] == 0).all()
    assert (volume.voxels[:, 4] == 500).all()
    assert volume.voxels.dtype == np.int16


def test_magnetic_resonance_without_rescale_keeps_stored_values_and_has_no_unit(tmp_path: Path) -> None:
    volume = assembled(mr_series(4), tmp_path)
    assert volume.unit == ""
    assert volume.voxels[:, 0, 0].tolist() == [0, 1, 2, 3]


def test_a_ct_without_rescale_attributes_is_not_said_to_be_in_hounsfield_units(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    assert assembled(series, tmp_path).unit == ""


def test_another_rescale_type_is_the_unit(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        ds.RescaleType = "EDW"
    assert assembled(series, tmp_path).unit == "EDW"


def test_a_modality_lut_sequence_is_applied(tmp_path: Path) -> None:
    voxels = noise(3, 0, 8)
    series = ct_series(voxels=voxels)
    table = [0, 10, 20, 30, 40, 50, 60, 7000]
    for ds in series:
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
        item = Dataset()
        item["LUTDescriptor"] = DataElement("LUTDescriptor", "US", [8, 0, 16])
        item["LUTData"] = DataElement("LUTData", "US", table)
        item.ModalityLUTType = "US"
        ds.ModalityLUTSequence = [item]
    volume = assembled(series, tmp_path)
    np.testing.assert_array_equal(volume.voxels, np.array(table)[voxels])
    assert volume.unit == ""


def test_a_damaged_modality_lut_is_refused(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
        ds.ModalityLUTSequence = [Dataset()]
    with pytest.raises(AssemblyError, match="ModalityLUTSequence") as caught:
        assembled(series, tmp_path)
    assert caught.value.code == RefusalCode.PIXELS_UNREADABLE


def with_undefined_length_sequence(ds: Dataset) -> None:
    inner = Dataset()
    inner.PixelData = b"\x01\x02" * 8  # an icon's pixels are not the image's
    inner["PixelData"].VR = "OW"
    nested = Dataset()
    nested.IconImageSequence = [inner]
    nested["IconImageSequence"].is_undefined_length = True
    ds.ReferencedImageSequence = [nested, nested]
    ds["ReferencedImageSequence"].is_undefined_length = True
    for item in ds.ReferencedImageSequence:
        item.is_undefined_length_sequence_item = True


def with_undefined_length_sequence_implicit(ds: Dataset) -> None:
    with_undefined_length_sequence(ds)
    as_implicit(ds)


def with_a_long_private_value(ds: Dataset) -> None:
    block = ds.private_block(0x0009, "VOXGATE TEST", create=True)
    block.add_new(0x01, "OB", bytes(100_000))


@pytest.mark.parametrize(
    "encode",
    [
        as_implicit,
        as_deflated,
        as_big_endian,
        as_rle,
        with_undefined_length_sequence,
        with_a_long_private_value,
        with_undefined_length_sequence_implicit,
    ],
)
def test_every_encoding_gives_the_same_voxels(encode: Callable[[Dataset], object], tmp_path: Path) -> None:
    voxels = noise()
    series = ct_series(voxels=voxels)
    for ds in series:
        encode(ds)
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, voxels)


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_bytes_in_big_endian_are_turned_round_where_they_are_words(vr: str, tmp_path: Path) -> None:
    voxels = (noise()[:, :5, :7] % 256).astype(np.int16)
    series = ct_series(voxels=voxels)
    for ds, plane in zip(series, voxels, strict=True):
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data = np.frombuffer(plane.astype(np.uint8).tobytes() + b"\0", "<u2")
        ds.PixelData = data.astype(">u2" if vr == "OW" else "<u2").tobytes()
        ds["PixelData"].VR = vr
    np.testing.assert_array_equal(assembled(series, tmp_path).voxels, voxels)


def test_a_file_meta_without_group_length_is_parsed_instead(tmp_path: Path) -> None:
    voxels = noise()
    series = ct_series(voxels=voxels)
    paths = stored(series, tmp_path)
    for path in paths.values():
        data = path.read_bytes()
        path.write_bytes(data[:132] + data[144:])
    (stack,) = group(headers_of(series))
    np.testing.assert_array_equal(assemble(stack, paths).voxels, voxels)
