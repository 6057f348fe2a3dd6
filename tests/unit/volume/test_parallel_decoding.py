"""Every compression is decoded by several threads or processes, and nobody notices but the clock."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from enhanced import enhanced
from factories import ct_series, headers_of, save
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import cine, image_of
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress, get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from transfer_syntaxes import stored

import volume.jpeg
import volume.jpeg_child
from domain.errors import AssemblyError
from domain.series import RefusalCode
from domain.volume import Volume
from volume import jpeg_helpers, run_lengths
from volume.ahead import in_order
from volume.assembly import assemble
from volume.digest import inspect
from volume.frames import with_frames
from volume.grouping import group
from volume.jpeg_form import Form
from volume.jpeg_helpers import decode, jpeg_decoder

Peer = Callable[[str], str]


@pytest.fixture(autouse=True)
def _four_processors_and_no_small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(jpeg_helpers, "_WORTH_IT", 1)


def values(slices: int, bits: int) -> npt.NDArray[np.int16]:
    k, row, column = np.indices((slices, 40, 48))
    smooth = (np.sin(column / 9 + k) * np.cos(row / 7) + 1) / 2 * ((1 << bits) - 1)
    found: npt.NDArray[np.int16] = smooth.astype(np.int16)
    return found


def series_of(voxels: npt.NDArray[np.int16], bits: int) -> list[Dataset]:
    series = ct_series(voxels=voxels)
    for ds, plane in zip(series, voxels, strict=True):
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
        if bits == 8:
            ds.BitsAllocated, ds.PixelData = 8, plane.astype(np.uint8).tobytes()
            ds["PixelData"].VR = "OB"
    return series


def volume_of(paths: list[Path]) -> Volume:
    headers = [inspect(path)[0] for path in paths]
    (stack,) = group(with_frames(headers))
    return assemble(stack, {header.sop_instance_uid: path for header, path in zip(headers, paths, strict=True)})


def by_dcmtk(program: str, options: list[str], series: list[Dataset], folder: Path) -> list[Path]:
    paths = save(series, folder)
    for path in paths:
        subprocess.run([program, *options, path, path.with_suffix(".jpeg")], check=True, capture_output=True)
    return [path.with_suffix(".jpeg") for path in paths]


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_bytes_and_words_are_the_same_by_four_threads(syntax: str, bits: int, tmp_path: Path) -> None:
    voxels = values(17, bits)
    series = series_of(voxels, bits)
    for ds in series:
        compress(ds, syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(volume_of(save(series, tmp_path)).voxels, voxels)


@pytest.mark.peer
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("options", [["+e1"], ["+el", "+sv", "6"]], ids=["first-order", "other predictor"])
def test_lossless_jpeg_is_the_same_by_other_processes(
    options: list[str], bits: int, tmp_path: Path, peer: Peer
) -> None:
    voxels = values(10, bits)
    paths = by_dcmtk(peer("dcmcjpeg"), options, series_of(voxels, bits), tmp_path)
    np.testing.assert_array_equal(volume_of(paths).voxels, voxels)


@pytest.mark.peer
@pytest.mark.parametrize(("allocated", "stored", "high"), [(8, 7, 6), (16, 12, 15), (16, 13, 13)])
def test_lossless_jpeg_keeps_bits_wherever_they_lie(
    allocated: int, stored: int, high: int, tmp_path: Path, peer: Peer
) -> None:
    voxels = values(3, stored)
    series = series_of(voxels, 8 if allocated == 8 else stored)
    for ds, plane in zip(series, voxels, strict=True):
        ds.BitsStored, ds.HighBit = stored, high
        ds.PixelData = (plane.astype(np.uint16) << (high - stored + 1)).astype(f"u{allocated // 8}").tobytes()
    paths = by_dcmtk(peer("dcmcjpeg"), ["+e1"], series, tmp_path)
    np.testing.assert_array_equal(volume_of(paths).voxels, voxels)


@pytest.mark.peer
def test_padding_in_unused_bits_is_seen_through_lossless_jpeg(tmp_path: Path, peer: Peer) -> None:
    voxels = values(3, 12)
    series = series_of(voxels, 12)
    for ds, plane in zip(series, voxels, strict=True):
        words = plane.astype(np.uint16)
        words[:5] = 63536
        ds.PixelData, ds.PixelPaddingValue = words.tobytes(), 63536
    volume = volume_of(by_dcmtk(peer("dcmcjpeg"), ["+e1"], series, tmp_path))
    assert volume.padding_value is not None
    assert (volume.voxels[:, :5] == volume.padding_value).all()
    np.testing.assert_array_equal(volume.voxels[:, 5:], voxels[:, 5:])


@pytest.mark.peer
def test_of_two_damaged_slices_always_the_first_is_named(tmp_path: Path, peer: Peer) -> None:
    paths = by_dcmtk(peer("dcmcjpeg"), ["+e1"], series_of(values(9, 12), 12), tmp_path)
    for path in (paths[7], paths[5]):
        data = bytearray(path.read_bytes())
        table = data.find(b"\xff\xc4")
        data[table + 5 : table + 21] = b"\xff" * 16  # more codes than there can be
        path.write_bytes(data)
    for _ in range(3):
        with pytest.raises(AssemblyError, match="JPEG Lossless") as caught:
            volume_of(paths)
        assert (caught.value.code, caught.value.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (6,))


def test_results_and_faults_come_in_the_order_of_the_work() -> None:
    def work(k: int) -> int:
        time.sleep(0.002 * (5 - k % 5))
        if k in (7, 8):
            raise ValueError(k)
        return k

    found = in_order(work, range(20), 4)
    assert [next(found) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="7"):
        next(found)


def jpeg_of(pixels: npt.NDArray[np.uint8]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=90)
    return target.getvalue()


FRAME = jpeg_of(values(1, 8)[0].astype(np.uint8))
FORM = Form(syntax=JPEGBaseline8Bit, rows=40, columns=48, allocated=8, stored=8, signed=0)


def children() -> set[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def pixels_by(decoder: Callable[..., bool], frame: bytes = FRAME) -> npt.NDArray[np.uint8]:
    out = np.zeros(FORM.size, np.uint8)
    assert decoder(frame, out, FORM)
    return out


def test_processes_end_with_what_they_were_started_for() -> None:
    before = children()
    with jpeg_decoder(4, 1 << 30) as decoder:
        np.testing.assert_array_equal(pixels_by(decoder), pixels_by(decode))
        assert len(children() - before) == 1  # as many as are needed
    assert children() == before


def test_little_work_is_done_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_helpers, "_WORTH_IT", 1 << 20)
    before = children()
    with jpeg_decoder(4, 1000) as decoder, ThreadPoolExecutor(4) as pool:
        found = [pool.submit(pixels_by, decoder) for _ in range(8)]
        assert len({pixels.result().tobytes() for pixels in found}) == 1
        assert len(children() - before) == 1


def test_a_process_that_is_killed_costs_no_frame() -> None:
    before = children()
    with jpeg_decoder(4, 1 << 30) as decoder:
        expected = pixels_by(decoder)
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_array_equal(pixels_by(decoder), expected)
        assert pid not in children()
    assert children() == before


def test_a_process_that_does_not_start_costs_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pixels_by(decode)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with jpeg_decoder(4, 1 << 30) as decoder:
        np.testing.assert_array_equal(pixels_by(decoder), expected)


def test_a_frame_that_is_damaged_or_another_is_said_to_be() -> None:
    out = np.zeros(FORM.size, np.uint8)
    with jpeg_decoder(4, 1 << 30) as decoder:
        assert not decoder(FRAME[: len(FRAME) // 2], out, FORM)
        np.testing.assert_array_equal(pixels_by(decoder), pixels_by(decode))


def without_first_table(frame: bytes) -> bytes:
    """Return a frame that makes GDCM end its process, which nobody catches."""
    return frame.replace(b"\xff\xc4", b"\x8f\xc4", 1)


def test_a_frame_that_ends_its_process_does_not_end_this_one() -> None:
    out, before = np.zeros(FORM.size, np.uint8), children()
    with jpeg_decoder(4, 1 << 30) as decoder:
        assert not decoder(without_first_table(FRAME), out, FORM)
        np.testing.assert_array_equal(pixels_by(decoder), pixels_by(decode))
    assert not decode(without_first_table(FRAME), out, FORM)
    assert children() == before


@pytest.mark.peer
def test_a_frame_that_ends_its_process_is_refused_by_its_number(tmp_path: Path, peer: Peer) -> None:
    paths = by_dcmtk(peer("dcmcjpeg"), ["+e1"], series_of(values(4, 12), 12), tmp_path)
    paths[2].write_bytes(without_first_table(paths[2].read_bytes()))
    with pytest.raises(AssemblyError, match="JPEG Lossless") as caught:
        volume_of(paths)
    assert (caught.value.code, caught.value.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (3,))


@pytest.mark.parametrize(
    "syntax", [*volume.jpeg.SYNTAXES, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000]
)
def test_no_decoder_calls_gdcm_in_this_process(syntax: str) -> None:
    plugins = get_decoder(UID(syntax)).available_plugins
    assert plugins
    assert "gdcm" not in plugins


def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    program = """
        import numpy as np, os, signal, sys
        from volume.jpeg_form import Form
        from volume.jpeg_helpers import jpeg_decoder
        frame = open(sys.argv[1], "rb").read()
        form = Form(syntax="1.2.840.10008.1.2.4.50", rows=40, columns=48, allocated=8, stored=8, signed=0)
        with jpeg_decoder(2, 1 << 30) as decoder:
            assert decoder(frame, np.zeros(form.size, np.uint8), form)
            print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    (tmp_path / "frame").write_bytes(FRAME)
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path / "frame"],
        capture_output=True,
        text=True,
        cwd=Path(volume.jpeg_child.__file__).parents[1],
    )
    assert ran.returncode == -signal.SIGKILL
    (pid,) = ran.stdout.split()
    until = time.monotonic() + 30
    while time.monotonic() < until and is_running(pid):
        time.sleep(0.02)
    assert not is_running(pid)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_a_cine_in_colour_has_the_frames_of_pydicom(photometric: str, tmp_path: Path) -> None:
    ds = cine(9)
    frames = [jpeg_of(np.dstack([plane, plane[::-1], 255 - plane]).astype(np.uint8)) for plane in values(9, 8)]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PlanarConfiguration = 40, 48, 3, 0
    ds.PhotometricInterpretation = photometric
    ds.PixelData = encapsulate(frames, has_bot=False)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    expected = ds.pixel_array  # pydicom sees by the codestream that what is called RGB is YBR
    np.testing.assert_array_equal(image_of(ds, tmp_path).pixels, expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_compressed_enhanced_image_is_the_volume_of_its_frames(syntax: str, tmp_path: Path) -> None:
    voxels = values(23, 12)
    ds = enhanced(series_of(voxels, 12))
    compress(ds, syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(volume_of(save([ds], tmp_path)).voxels, voxels)


def test_the_frame_that_is_damaged_is_named_by_its_number(tmp_path: Path) -> None:
    ds = enhanced(series_of(values(9, 12), 12))
    compress(ds, RLELossless, generate_instance_uid=False)
    (path,) = save([ds], tmp_path)
    data = bytearray(path.read_bytes())
    frames = [k for k in range(len(data)) if data[k : k + 8] == b"\2\0\0\0\x40\0\0\0"]
    data[frames[3]] = 1
    path.write_bytes(data)
    with pytest.raises(AssemblyError, match=r"frame 4 .*RLE Lossless"):
        volume_of([path])


@pytest.mark.parametrize(("rows", "columns"), [(40, 46), (36, 48)])
@pytest.mark.parametrize("bits", [8, 12])
def test_run_lengths_of_a_larger_image_are_refused(bits: int, rows: int, columns: int, tmp_path: Path) -> None:
    series = series_of(values(3, bits), bits)
    for ds in series:
        compress(ds, RLELossless, generate_instance_uid=False)
        ds.Rows, ds.Columns = rows, columns
    (stack,) = group(headers_of(series))
    with pytest.raises(AssemblyError, match="RLE Lossless") as caught:
        assemble(stack, stored(series, tmp_path))
    assert (caught.value.code, caught.value.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (1,))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), head=st.lists(st.integers(0, 400), max_size=4), count=st.integers(0, 4))
def test_rubbish_for_run_lengths_is_refused_and_no_more(data: bytes, head: list[int], count: int) -> None:
    src = np.array([count, *head, *[0] * (15 - len(head))], "<u4").tobytes() + data
    for size in (1, 2):
        out = np.zeros((1, 8, 9, size), np.uint8)
        try:
            run_lengths.decode(src, out)
        except ValueError:
            continue


def test_encapsulated_uncompressed_pixels_are_refused_by_name(tmp_path: Path) -> None:
    series = series_of(values(3, 12), 12)
    for ds in series:
        compress(ds, RLELossless, generate_instance_uid=False)
    paths = stored(series, tmp_path)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.98")
    (stack,) = group(headers_of(series))
    with pytest.raises(AssemblyError, match=r"no decoder knows .*Encapsulated Uncompressed"):
        assemble(stack, paths)
