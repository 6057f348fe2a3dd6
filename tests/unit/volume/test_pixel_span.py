"""Where the uncompressed pixels of a file lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import ct_slice, save
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from volume.pixel_span import PixelSpan, pixel_span


def span_of(ds: Dataset, folder: Path, *, edit: tuple[bytes, bytes] | None = None) -> tuple[PixelSpan | None, bytes]:
    (path,) = save([ds], folder)
    data = path.read_bytes()
    if edit is not None:
        assert edit[0] in data
        data = data.replace(*edit, 1)
        path.write_bytes(data)
    with path.open("rb") as file:
        return pixel_span(file.fileno(), implicit=ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian), data


def with_icon(*, is_undefined: bool) -> Dataset:
    ds = ct_slice()
    icon = Dataset()
    icon.PixelData = b"\x11\x22" * 50
    icon["PixelData"].VR = "OW"
    icon.is_undefined_length_sequence_item = is_undefined
    ds.IconImageSequence = [icon, icon]
    ds["IconImageSequence"].is_undefined_length = is_undefined
    return ds


@pytest.mark.parametrize("is_undefined", [False, True])
@pytest.mark.parametrize("is_implicit", [False, True])
def test_the_pixels_are_found_behind_sequences_that_hold_pixels_themselves(
    is_undefined: bool, is_implicit: bool, tmp_path: Path
) -> None:
    ds = with_icon(is_undefined=is_undefined)
    if is_implicit:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    span, data = span_of(ds, tmp_path)
    assert span is not None
    assert data[span.offset : span.offset + span.length] == ds.PixelData


def test_a_header_of_many_windows_is_walked_through(tmp_path: Path) -> None:
    ds = ct_slice()
    block = ds.private_block(0x0009, "VOXGATE TEST", create=True)
    for element in range(1, 200):
        block.add_new(element, "LO", "x" * 60)
        block.add_new(element + 0x200 & 0xFF, "OB", bytes(1000))
    span, data = span_of(ds, tmp_path)
    assert span is not None
    assert data[span.offset : span.offset + span.length] == ds.PixelData


def test_pixels_that_are_cut_off_are_as_long_as_what_is_there(tmp_path: Path) -> None:
    (path,) = save([ct_slice()], tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with path.open("rb") as file:
        span = pixel_span(file.fileno(), implicit=False)
    assert span is not None
    assert span.length == 16 * 20 * 2 - 40


def test_what_is_not_certain_is_left_to_a_parser(tmp_path: Path) -> None:
    encapsulated = ct_slice()
    encapsulated.PixelData = b"\xfe\xff\x00\xe0" + bytes(4)
    encapsulated["PixelData"].is_undefined_length = True
    encapsulated.file_meta.TransferSyntaxUID = RLELossless
    assert span_of(encapsulated, tmp_path / "a")[0] is None
    assert span_of(ct_slice(), tmp_path / "b", edit=(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00??"))[0] is None
    assert span_of(ct_slice(), tmp_path / "c", edit=(b"DICM\x02\x00\x00\x00UL", b"DICM\x02\x00\x01\x00UL"))[0] is None
    unknown = with_icon(is_undefined=True)
    assert span_of(unknown, tmp_path / "d", edit=(b"\x88\x00\x00\x02SQ", b"\x88\x00\x00\x02UN"))[0] is None
    without = ct_slice()
    del without.PixelData
    assert span_of(without, tmp_path / "e")[0] is None
