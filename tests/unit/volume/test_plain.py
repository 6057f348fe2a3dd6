"""Slices that need no closer look are read as those that get one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from factories import ct_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from transfer_syntaxes import as_big_endian, as_implicit, as_rle, stored

from domain.instance import Header
from volume.assembly import assemble
from volume.digest import read_header
from volume.grouping import group
from volume.plain import read_plain

SHAPE = (3, 16, 20)


def series_of(words: npt.NDArray[np.uint16], **attributes: object) -> list[Dataset]:
    series = ct_series(voxels=words.view(np.int16))
    for ds in series:
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return series


def remaining(headers: list[Header], paths: dict[str, Path]) -> tuple[list[int], npt.NDArray[np.int16]]:
    voxels = np.empty(SHAPE, np.int16)
    return read_plain(headers, [paths[header.sop_instance_uid] for header in headers], voxels), voxels


def ramp(low: int = 0, high: int = 4095) -> npt.NDArray[np.uint16]:
    return np.linspace(low, high, 3 * 16 * 20).reshape(SHAPE).astype(np.int32).astype(np.uint16)


CT_12_BITS = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, "RescaleIntercept": "-1024"}


@pytest.mark.parametrize("encode", [lambda ds: None, as_implicit])
def test_a_usual_ct_is_read_and_rescaled_in_place(encode: Callable[[Dataset], object], tmp_path: Path) -> None:
    series = series_of(ramp(), **CT_12_BITS)
    for ds in series:
        encode(ds)
    paths = stored(series, tmp_path)
    others, voxels = remaining([read_header(path) for path in paths.values()], paths)
    assert others == []
    np.testing.assert_array_equal(voxels, ramp().view(np.int16) - 1024)


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelPaddingValue": 0},
        {"RescaleSlope": "2"},
        {"RescaleIntercept": "0.5"},
        {"RescaleIntercept": "70000"},
        {"BitsStored": 11, "HighBit": 11},
    ],
)
def test_what_takes_more_than_an_addition_is_left(changes: dict[str, Any], tmp_path: Path) -> None:
    paths = stored(series_of(ramp(), **CT_12_BITS | changes), tmp_path)
    assert remaining([read_header(path) for path in paths.values()], paths)[0] == [0, 1, 2]


@pytest.mark.parametrize("encode", [as_big_endian, as_rle])
def test_other_encodings_are_left(encode: Callable[[Dataset], object], tmp_path: Path) -> None:
    series = series_of(ramp(), **CT_12_BITS)
    for ds in series:
        encode(ds)
    paths = stored(series, tmp_path)
    assert remaining([read_header(path) for path in paths.values()], paths)[0] == [0, 1, 2]


def gone(header: Header, path: Path) -> Header:
    path.unlink()
    return header


def cut(header: Header, path: Path) -> Header:
    path.write_bytes(path.read_bytes()[:-1])
    return header


def unknown(header: Header, path: Path) -> Header:
    return replace(header, pixel_data_offset=None)


def wrong(header: Header, path: Path) -> Header:
    return replace(header, pixel_data_offset=(header.pixel_data_offset or 0) - 2)


def framed(header: Header, path: Path) -> Header:
    return replace(header, frame_number=1)  # one frame of its instance, or one tile of a mosaic


def above(header: Header, path: Path) -> Header:
    path.write_bytes(path.read_bytes()[:-2] + b"\x00\x10")
    return header


@pytest.mark.parametrize("spoil", [gone, cut, unknown, wrong, framed, above])
def test_a_slice_that_is_not_as_it_should_be_is_left_alone(
    spoil: Callable[[Header, Path], Header], tmp_path: Path
) -> None:
    paths = stored(series_of(ramp(), **CT_12_BITS), tmp_path)
    headers = [read_header(path) for path in paths.values()]
    headers[1] = spoil(headers[1], paths[headers[1].sop_instance_uid])
    others, voxels = remaining(headers, paths)
    assert others == [1]
    np.testing.assert_array_equal(voxels[[0, 2]], ramp().view(np.int16)[[0, 2]] - 1024)


@given(
    bits=st.integers(9, 16),
    is_signed=st.booleans(),
    spare=st.booleans(),
    intercept=st.sampled_from([0, 1, -1024, 1024, 32767, -32768, -40000, 40000]),
    ends=st.tuples(st.integers(-(1 << 15), (1 << 16) - 1), st.integers(-(1 << 15), (1 << 16) - 1)),
)
@settings(max_examples=80, deadline=None)
def test_the_volume_is_that_of_slices_looked_at_closely(
    bits: int,
    is_signed: bool,
    spare: bool,
    intercept: int,
    ends: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    series = series_of(
        ramp(*ends),
        BitsStored=bits,
        HighBit=min(bits, 15) if spare else bits - 1,
        PixelRepresentation=int(is_signed),
        RescaleIntercept=str(intercept),
    )
    paths = stored(series, tmp_path_factory.getbasetemp() / "plain")
    headers = [read_header(path) for path in paths.values()]
    (known,), (unknown,) = group(headers), group([replace(header, pixel_data_offset=None) for header in headers])
    found, expected = assemble(known, paths), assemble(unknown, paths)
    assert found.voxels.dtype == expected.voxels.dtype
    np.testing.assert_array_equal(found.voxels, expected.voxels)
