"""Decoding without Python's lock gives what pydicom gives, or leaves it to pydicom."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from factories import ct_series, headers_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import compress
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless
from transfer_syntaxes import stored

from domain.errors import AssemblyError, StorageError
from domain.series import RefusalCode
from domain.volume import Volume
from volume.assembly import assemble
from volume.codecs import Wanted, decoders
from volume.codestream import is_cut_off
from volume.grouping import group
from volume.pixels import gains_by_threads

SYNTAXES = pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=["JPEG-LS", "JPEG 2000"])


def noise(slices: int = 9, bits: int = 12, *, is_signed: bool = True) -> npt.NDArray[np.int16]:
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if is_signed else (0, 1 << bits)
    return np.random.default_rng(5).integers(low, high, (slices, 64, 80)).astype(np.uint16).view(np.int16)


def compressed(
    voxels: npt.NDArray[np.int16], syntax: str, bits: int = 12, *, is_signed: bool = True
) -> list[Dataset]:
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(is_signed)
        compress(ds, syntax, generate_instance_uid=False)
    return series


def volume_of(series: list[Dataset], folder: Path, spoil: Callable[[Path], object] | None = None) -> Volume:
    paths = stored(series, folder)
    if spoil is not None:
        spoil(paths[str(series[4].SOPInstanceUID)])
    (stack,) = group(headers_of(series))
    assert all(map(gains_by_threads, stack.headers))
    return assemble(stack, paths)


@SYNTAXES
@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("bits", [9, 12, 15, 16])
def test_lossless_compression_gives_every_stored_value_back(
    syntax: str, bits: int, is_signed: bool, tmp_path: Path
) -> None:
    voxels = noise(3, bits, is_signed=is_signed)
    got = volume_of(compressed(voxels, syntax, bits, is_signed=is_signed), tmp_path).voxels
    np.testing.assert_array_equal(got, voxels if is_signed else voxels.view(np.uint16))


@SYNTAXES
@pytest.mark.parametrize("processors", [1, 2, 5])
def test_many_threads_give_the_volume_of_one(
    syntax: str, processors: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)))
    voxels = noise(40)
    np.testing.assert_array_equal(volume_of(compressed(voxels, syntax), tmp_path).voxels, voxels)


@SYNTAXES
def test_values_that_turn_out_not_to_fit_are_still_those_of_their_slices(syntax: str, tmp_path: Path) -> None:
    voxels = noise(20)
    series = compressed(voxels, syntax)
    for ds in series[7:]:
        ds.RescaleIntercept = "32000"
    volume = volume_of(series, tmp_path)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels[:7], voxels[:7])
    np.testing.assert_array_equal(volume.voxels[7:], voxels[7:] + np.float32(32000))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def another_size(path: Path) -> None:
    data = path.read_bytes()
    for wrong, right in (
        (b"\xff\xf7\x00\x0b\x0c\x00\x40", b"\xff\xf7\x00\x0b\x0c\x00\x48"),
        (b"\x00\x00\x00\x50\x00\x00\x00\x40", b"\x00\x00\x00\x50\x00\x00\x00\x48"),
    ):
        data = data.replace(wrong, right)
    path.write_bytes(data)


@SYNTAXES
@pytest.mark.parametrize("spoil", [cut, another_size])
def test_a_damaged_slice_is_refused_and_named(syntax: str, spoil: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(AssemblyError) as caught:
        volume_of(compressed(noise(), syntax), tmp_path, spoil)
    assert (caught.value.code, caught.value.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (5,))


@SYNTAXES
def test_a_file_that_is_gone_is_a_fault_of_the_store(syntax: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        volume_of(compressed(noise(), syntax), tmp_path, Path.unlink)


@SYNTAXES
def test_what_the_header_does_not_say_is_left_to_pydicom(syntax: str) -> None:
    data, out = one_frame(syntax), np.empty((64, 80), np.int16)
    decode = decoders()[syntax]
    assert decode(data, out, Wanted(64, 80, 12, is_signed=True))
    assert not decode(data, np.empty((80, 64), np.int16), Wanted(80, 64, 12, is_signed=True))
    assert not decode(data, out, Wanted(64, 80, 13, is_signed=True))
    assert not decode(b"", out, Wanted(64, 80, 12, is_signed=True))
    assert not decode(data[:40], out, Wanted(64, 80, 12, is_signed=True))


@cache
def one_frame(syntax: str) -> bytes:
    (ds,) = compressed(noise(1), syntax)
    return bytes(get_frame(ds.PixelData, 0, number_of_frames=1))


@given(length=st.integers(64, 1 << 20), padding=st.sampled_from([b"", b"\0", b"\0\0\0", b"\xff\xff"]))
def test_a_jpeg_ls_frame_without_its_end_is_known_before_it_is_decoded(length: int, padding: bytes) -> None:
    frame = one_frame(JPEGLSLossless).rstrip(b"\0")
    assert not is_cut_off(frame + padding)
    assert is_cut_off(frame[: min(length, len(frame) - 1)] + padding)
    assert not is_cut_off(one_frame(JPEG2000Lossless)[:length])


@SYNTAXES
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_ends_the_process(syntax: str, data: st.DataObject) -> None:
    frame = bytearray(one_frame(syntax))
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=6)):
        frame[at] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(0, len(frame)))]
    decoders()[syntax](bytes(frame), np.empty((64, 80), np.int16), Wanted(64, 80, 12, is_signed=True))
