"""The scanner that finds pixels agrees with pydicom on damaged headers, or leaves them to it."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from factories import ct_slice
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from volume.pixel_span import PixelSpan, pixel_span, read_recorded, recorded_span, sole_frame

EXAMPLES = int(os.environ.get("VOXGATE_FUZZ", "0")) or 250
PIXELS = 16 * 20 * 2


def intricate(*, is_implicit: bool, is_undefined: bool) -> bytes:
    """Return a file with sequences, an icon, private blocks and pixels that tell where they lie."""
    ds = ct_slice(voxels=np.arange(320, dtype=np.int16).reshape(16, 20))
    icon = Dataset()
    icon.PixelData = b"\x11\x22" * 50
    icon["PixelData"].VR = "OW"
    icon.is_undefined_length_sequence_item = is_undefined
    ds.IconImageSequence = [icon, icon]
    ds["IconImageSequence"].is_undefined_length = is_undefined
    block = ds.private_block(0x0009, "VOXGATE TEST", create=True)
    block.add_new(1, "OB", bytes(range(256)))
    block.add_new(2, "UN", b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd")
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


FILES = [intricate(is_implicit=i, is_undefined=u) for i in (False, True) for u in (False, True)]
CHUNKS = (
    b"\xe0\x7f\x10\x00OW\x00\x00",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0",
    b"\xff\xff\xff\xff",
    b"SQ",
    b"UN",
    b"\0\0",
)

mutations = st.lists(
    st.tuples(
        st.integers(132, len(FILES[0]) - PIXELS),
        st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(CHUNKS)),
    ),
    max_size=3,
)


def spans_of(data: bytes, folder: Path, *, implicit: bool, offset: int | None = None) -> PixelSpan | None:
    path = folder / "fuzzed.dcm"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return pixel_span(fd, implicit=implicit) if offset is None else recorded_span(fd, offset, implicit=implicit)
    finally:
        os.close(fd)


def said_by_pydicom(data: bytes) -> tuple[str, bytes | None]:
    """Return transfer syntax and pixels; ``None`` where pydicom finds none or cannot read the file."""
    try:
        ds = dcmread(BytesIO(data))
        element = ds.get_item(0x7FE00010)
        syntax = str(ds.file_meta.TransferSyntaxUID)
    except Exception:  # whatever a damaged file leads to
        return "", None
    return syntax, getattr(element, "value", None)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.sampled_from(FILES), edits=mutations, insert=st.booleans())
@example(data=FILES[0], edits=[], insert=False)
def test_where_the_scanner_finds_pixels_pydicom_finds_the_same(
    data: bytes, edits: list[tuple[int, bytes]], insert: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for at, piece in edits:
        data = data[:at] + piece + data[at + (0 if insert else len(piece)) :]
    syntax, pixels = said_by_pydicom(data)
    if pixels is None or syntax not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        return
    span = spans_of(data, tmp_path_factory.getbasetemp(), implicit=syntax == ImplicitVRLittleEndian)
    assert span is None or data[span.offset : span.offset + span.length] == pixels


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.sampled_from(FILES), offset=st.integers(-20, 4096))
def test_a_recorded_offset_holds_only_where_the_head_of_pixel_data_stands(
    data: bytes, offset: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    implicit = ImplicitVRLittleEndian.encode() + b"\0" in data
    span = spans_of(data, tmp_path_factory.getbasetemp(), implicit=implicit, offset=offset)
    if span is not None:
        assert offset in (len(data) - PIXELS, data.find(b"\x11\x22" * 50), data.rfind(b"\x11\x22" * 50))
    right = spans_of(data, tmp_path_factory.getbasetemp(), implicit=implicit, offset=len(data) - PIXELS)
    assert right == PixelSpan(len(data) - PIXELS, PIXELS)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    data=st.sampled_from(FILES),
    off=st.integers(-20, 4096),
    size=st.integers(1, PIXELS + 9),
    cut=st.integers(0, PIXELS),
)
@example(data=FILES[0], off=0, size=PIXELS, cut=0)
@example(data=FILES[0], off=0, size=PIXELS + 1, cut=0)
@example(data=FILES[0], off=0, size=PIXELS, cut=1)
def test_pixels_are_read_at_a_recorded_offset_only_where_all_of_them_stand(
    data: bytes, off: int, size: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    implicit = ImplicitVRLittleEndian.encode() + b"\0" in data
    path = tmp_path_factory.getbasetemp() / "fuzzed.dcm"
    path.write_bytes(data[: len(data) - cut])
    offset = len(data) - PIXELS - off
    buffer = bytearray(size)
    with path.open("rb") as file:
        is_read = read_recorded(file.fileno(), offset, memoryview(buffer), implicit=implicit)
        span = recorded_span(file.fileno(), offset, implicit=implicit)
    assert is_read == (span is not None and span.length >= size)
    if is_read:
        assert buffer == data[offset : offset + size]


def encapsulated(*, fragments: int, has_offsets: bool) -> tuple[bytes, bytes]:
    """Return a file with one frame in so many fragments, and the frame."""
    frame = bytes(range(250)) * 4
    ds = ct_slice()
    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    ds.PixelData = encapsulate([frame], fragments_per_frame=fragments, has_bot=has_offsets)
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    ds.DataSetTrailingPadding = bytes(10)
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue(), frame


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("has_offsets", [False, True])
def test_the_fragments_of_the_only_frame_are_joined(fragments: int, has_offsets: bool, tmp_path: Path) -> None:
    data, frame = encapsulated(fragments=fragments, has_offsets=has_offsets)
    path = tmp_path / "frame.dcm"
    path.write_bytes(data)
    offset = data.index(b"\xe0\x7f\x10\x00OB") + 12
    with path.open("rb") as file:
        assert sole_frame(file.fileno(), None) == sole_frame(file.fileno(), offset) == frame
        assert sole_frame(file.fileno(), offset + 2) == frame  # a wrong hint is noticed
    path.write_bytes(data[:-40])  # without the delimiter
    with path.open("rb") as file:
        assert sole_frame(file.fileno(), offset) is None
