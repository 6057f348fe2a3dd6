"""Frames of encapsulated PixelData are found in one pass, and are those that pydicom finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from factories import headers_of, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import cine
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, fragment_frame, generate_frames, itemize_fragment
from pydicom.uid import JPEGLSLossless

from volume.encapsulated import Codestreams

END = b"\xff\xd9"


def frames_of(count: int) -> list[bytes]:
    """Return frames of different even lengths that end as JPEG does, and hold the head of an item."""
    noise = np.random.default_rng(count)
    head = b"\xfe\xff\x00\xe0\x08\x00\x00\x00"
    return [head + noise.integers(0, 255, 20 + 2 * k, np.uint8).tobytes() + END for k in range(count)]


def instance(value: bytes, count: int) -> Dataset:
    ds = cine(count)
    ds.PixelData = value
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    return ds


def streams_of(ds: Dataset, folder: Path) -> tuple[Codestreams, list[Path]]:
    """Return the frames, and the files that had to be parsed."""
    parsed = []

    def parse(path: Path) -> Dataset:
        parsed.append(path)
        return pydicom.dcmread(path)

    (path,) = save([ds], folder)
    (header,) = headers_of([ds])
    return Codestreams(header, path, parse), parsed


def in_pieces(frames: Sequence[bytes], pieces: int) -> bytes:
    fragments = [fragment for frame in frames for fragment in fragment_frame(frame, pieces)]
    return itemize_fragment(b"") + b"".join(map(itemize_fragment, fragments))


@pytest.mark.parametrize(
    "encode",
    [
        encapsulate,
        lambda frames: encapsulate(frames, has_bot=False),
        lambda frames: encapsulate(frames, fragments_per_frame=3),
        lambda frames: in_pieces(frames, 1),
        lambda frames: in_pieces(frames, 3),
    ],
    ids=["table", "no table", "table and fragments", "one fragment", "fragments"],
)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_are_found_without_parsing_the_file(encode: object, count: int, tmp_path: Path) -> None:
    frames = frames_of(count)
    streams, parsed = streams_of(instance(encode(frames), count), tmp_path)  # type: ignore[operator]
    assert [streams.read(k) for k in reversed(range(count))] == frames[::-1]
    assert not parsed


def test_frames_are_found_by_an_extended_offset_table(tmp_path: Path) -> None:
    frames = frames_of(6)
    value, offsets, lengths = encapsulate_extended(frames)
    ds = instance(value, 6)
    ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = offsets, lengths
    streams, parsed = streams_of(ds, tmp_path)
    assert [streams.read(k) for k in range(6)] == frames
    assert not parsed


def test_a_table_that_contradicts_the_fragments_is_left_to_pydicom(tmp_path: Path) -> None:
    frames = frames_of(4)
    value = bytearray(encapsulate(frames))
    value[12] += 2  # the second offset
    streams, parsed = streams_of(instance(bytes(value), 4), tmp_path)
    expected = list(generate_frames(bytes(value), number_of_frames=4))
    assert [streams.read(k) for k in range(len(expected))] == expected
    assert parsed


def test_a_frame_too_many_is_asked_for_in_vain(tmp_path: Path) -> None:
    streams, _ = streams_of(instance(encapsulate(frames_of(3)), 3), tmp_path)
    with pytest.raises(IndexError):
        streams.read(3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_finds_the_frames_of_pydicom_or_none(data: st.DataObject, tmp_path: Path) -> None:
    count = data.draw(st.integers(2, 4))
    value = bytearray(data.draw(st.sampled_from([encapsulate(frames_of(count)), in_pieces(frames_of(count), 2)])))
    for at in data.draw(st.lists(st.integers(0, len(value) - 1), max_size=3)):
        value[at] = data.draw(st.sampled_from([0, 1, 8, 0xE0, 0xFF]))
    try:
        expected: list[bytes] | None = list(generate_frames(bytes(value), number_of_frames=count))
    except Exception:
        expected = None
    try:
        streams, parsed = streams_of(instance(bytes(value), count), tmp_path)
    except Exception:
        return
    if expected is not None and not parsed:
        assert [streams.read(k) for k in range(count)] == expected
