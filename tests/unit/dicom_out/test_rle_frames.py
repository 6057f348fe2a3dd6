"""Frames in RLE Lossless before decoders of others."""

from __future__ import annotations

import struct

import hypothesis.extra.numpy as arrays
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import RLELossless

from dicom_out.rle import rle_frame

Plane = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
DTYPES = st.sampled_from([np.uint8, np.uint16])
SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 127, 128, 129, 257, 300]))


def decoded(frame: bytes, like: Plane) -> Plane:
    """Return a frame as pydicom's own decoder reads it, which must be as pylibjpeg's reads it."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.Rows, ds.Columns = like.shape
    ds.BitsAllocated = ds.BitsStored = 8 * like.dtype.itemsize
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    found, other = (pixel_array(ds, decoding_plugin=name) for name in ("pydicom", "pylibjpeg"))
    np.testing.assert_array_equal(found, other)
    return found.reshape(like.shape)


@settings(deadline=None, max_examples=60)
@given(DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES, elements=st.integers(0, 3), fill=st.integers(0, 3))))
def test_every_plane_comes_back(plane: Plane) -> None:
    np.testing.assert_array_equal(decoded(rle_frame(plane), plane), plane)


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 255, 256, 257, 511])
def test_runs_of_every_length_come_back(length: int) -> None:
    rows = [np.repeat(7, 600), np.arange(600) % 251, np.arange(600) // length % 2]
    plane = np.stack([*rows, np.where(np.arange(600) < length, rows[0], rows[1])]).astype(np.uint8)
    np.testing.assert_array_equal(decoded(rle_frame(plane), plane), plane)


def test_no_run_goes_beyond_its_row() -> None:
    frame = rle_frame(np.zeros((3, 5), np.uint8))
    assert struct.unpack("<16L", frame[:64]) == (1, 64, *[0] * 14)
    assert frame[64:] == bytes([257 - 5, 0] * 3)


def test_what_does_not_repeat_grows_by_less_than_a_hundredth() -> None:
    plane = np.arange(128 * 128, dtype=np.uint16).reshape(128, 128)
    _, high, low, *_ = struct.unpack("<16L", rle_frame(plane)[:64])
    frame = rle_frame(plane)
    assert len(frame) - low <= 1.01 * plane.size
    assert low - high < 0.02 * plane.size
