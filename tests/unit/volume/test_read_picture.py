from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from factories import ct_slice, headers_of, save
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import RLELossless

from domain.errors import AssemblyError, StorageError
from domain.instance import Header
from volume.display import read_picture

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)


def shown(ds: Dataset, folder: Path) -> npt.NDArray[np.uint8]:
    (path,) = save([ds], folder)
    (header,) = headers_of([ds])
    return read_picture(header, path)


def colour(values: npt.NDArray[np.uint8], photometric: str, *, planar: int = 0) -> Dataset:
    ds = ct_slice()
    ds.Rows, ds.Columns, ds.SamplesPerPixel = values.shape
    ds.PhotometricInterpretation, ds.PlanarConfiguration = photometric, planar
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = (values.transpose(2, 0, 1) if planar else values).tobytes()
    ds["PixelData"].VR = "OB"
    return ds


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_the_same_for_both_planar_configurations(planar: int, tmp_path: Path) -> None:
    np.testing.assert_array_equal(shown(colour(RGB, "RGB", planar=planar), tmp_path), RGB)


@pytest.mark.parametrize("planar", [0, 1])
def test_ybr_becomes_rgb(planar: int, tmp_path: Path) -> None:
    ybr = convert_color_space(RGB, "RGB", "YBR_FULL")
    found = shown(colour(ybr, "YBR_FULL", planar=planar), tmp_path)
    np.testing.assert_allclose(found.astype(int), RGB, atol=2)


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    ds = colour(np.array([[[0], [1]], [[2], [3]]], np.uint8), "PALETTE COLOR")
    del ds.PlanarConfiguration
    flat = RGB.reshape(4, 3).astype("<u2") * 257
    for index, name in enumerate(("Red", "Green", "Blue")):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", flat[:, index].tobytes())
    np.testing.assert_array_equal(shown(ds, tmp_path), RGB)


def test_monochrome1_is_shown_inverted(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.int16).reshape(16, 16)
    ds = ct_slice(voxels=ramp)
    upright = shown(ds, tmp_path / "2")
    ds.PhotometricInterpretation = "MONOCHROME1"
    inverted = shown(ds, tmp_path / "1")
    assert upright[0, 0, 0] < 5 < 250 < upright[15, 15, 0]
    np.testing.assert_allclose(inverted.astype(int), 255 - upright.astype(int), atol=1)  # halves are rounded to even


def test_inverse_values_that_are_shown_inverted_give_the_same_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 1000, (16, 16)).astype(np.int16)
    upright = shown(ct_slice(voxels=noise), tmp_path / "2")
    ds = ct_slice(voxels=999 - noise)
    ds.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(shown(ds, tmp_path / "1"), upright)


def test_padding_is_black_and_does_not_count(tmp_path: Path) -> None:
    ds = ct_slice(voxels=np.array([[-2000, 0], [100, 200]], np.int16))
    ds.PixelPaddingValue = -2000
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        ds.PhotometricInterpretation = photometric
        found = shown(ds, tmp_path / photometric)[:, :, 0]
        assert found[0, 0] == 0
        assert 120 <= found[1, 0] <= 135


def test_a_voi_table_goes_before_a_window(tmp_path: Path) -> None:
    ds = ct_slice(voxels=np.array([[0, 1], [2, 50]], np.int16))
    ds.WindowCenter, ds.WindowWidth = "0", "1000"
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [3, 0, 16], np.array([1000, 1100, 2000], "<u2").tobytes()
    table["LUTData"].VR = "OW"
    ds.VOILUTSequence = [table]
    np.testing.assert_array_equal(shown(ds, tmp_path)[:, :, 0], [[0, 26], [255, 255]])


def test_the_window_of_the_header_is_applied(tmp_path: Path) -> None:
    ds = ct_slice(voxels=np.array([[-1000, -100], [100, 3000]], np.int16))
    ds.WindowCenter, ds.WindowWidth = "0", "100"
    found = shown(ds, tmp_path)[:, :, 0]
    np.testing.assert_array_equal(found, [[0, 0], [255, 255]])


def test_only_the_frame_that_is_asked_for(tmp_path: Path) -> None:
    frames = np.stack([np.zeros((2, 2), np.uint8), np.array([[0, 255], [255, 0]], np.uint8)])
    ds = colour(frames[0][:, :, None], "MONOCHROME2")
    ds.NumberOfFrames, ds.PixelData = 2, frames.tobytes()
    ds.RescaleIntercept = "0"
    (path,) = save([ds], tmp_path)
    (header,) = headers_of([ds])
    assert not read_picture(header, path, 1).any()
    np.testing.assert_array_equal(read_picture(header, path, 2)[:, :, 0], frames[1])


def test_an_even_image_is_black_and_no_division_by_zero(tmp_path: Path) -> None:
    assert not shown(ct_slice(), tmp_path).any()


def test_damage_names_the_instance_and_its_transfer_syntax(tmp_path: Path) -> None:
    ds = ct_slice(number=7)
    ds.compress(RLELossless)
    ds.PixelData = ds.PixelData[:80]
    (path,) = save([ds], tmp_path)
    (header,) = headers_of([ds])
    with pytest.raises(AssemblyError, match=r"InstanceNumber 7 .*RLE"):
        read_picture(header, path)


def test_a_missing_file_is_the_stores_fault(tmp_path: Path) -> None:
    header: Header = headers_of([ct_slice()])[0]
    with pytest.raises(StorageError):
        read_picture(header, tmp_path / "gone.dcm")
