"""Volumes from every compression, encoded by foreign programs: what comes out is what went in."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from factories import ct_series, save
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress
from pydicom.uid import HTJ2K as HTJ2KOther
from pydicom.uid import JPEG2000, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless, JPEGLSLossless, RLELossless

from domain.errors import AssemblyError
from domain.series import RefusalCode
from domain.volume import Volume
from volume.assembly import assemble
from volume.digest import inspect
from volume.grouping import group

Peer = Callable[[str], str]


def scene(slices: int = 3) -> npt.NDArray[np.int16]:
    """Return stored values of 12 bits: smooth, with edges and noise, as images are."""
    k, j, i = np.indices((slices, 48, 40))
    smooth = 1200 + 600 * np.sin(i / 9 + k) * np.cos(j / 7)
    noise = np.random.default_rng(3).normal(0, 12, smooth.shape)
    edges = np.where((i - 20) ** 2 + (j - 24) ** 2 < 100, 900, 0)
    found: npt.NDArray[np.int16] = np.clip(np.rint(smooth + noise + edges), 0, 4095).astype(np.int16)
    return found


def unsigned_series(voxels: npt.NDArray[np.int16], bits: int = 12) -> list[Dataset]:
    """Return a CT whose stored values are unsigned, as encoders of JPEG want them."""
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
        ds.RescaleIntercept = "-1024"
    return series


def volume_of(paths: Sequence[Path]) -> Volume:
    headers = [inspect(path)[0] for path in paths]
    (stack,) = group(headers)
    return assemble(stack, {header.sop_instance_uid: path for header, path in zip(headers, paths, strict=True)})


def recoded(program: str, options: Sequence[str], series: Sequence[Dataset], folder: Path) -> list[Path]:
    """Encode (or decode) each instance by a program of DCMTK."""
    done = []
    (folder / "out").mkdir(parents=True)
    for path in save(series, folder / "in"):
        target = folder / "out" / path.name
        subprocess.run([program, *options, str(path), str(target)], check=True, capture_output=True)
        done.append(target)
    return done


@pytest.mark.peer
@pytest.mark.parametrize(
    ("program", "options", "syntax"),
    [
        ("dcmcjpeg", ["+e1"], "1.2.840.10008.1.2.4.70"),
        *(("dcmcjpeg", ["+el", "+sv", str(n)], "1.2.840.10008.1.2.4.57") for n in range(1, 8)),
        ("dcmcjpls", ["+el"], "1.2.840.10008.1.2.4.80"),
        ("dcmcrle", [], "1.2.840.10008.1.2.5"),
        ("dcmconv", ["+td"], "1.2.840.10008.1.2.1.99"),
        ("dcmconv", ["+tb"], "1.2.840.10008.1.2.2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
def test_lossless_encodings_of_dcmtk_give_the_very_voxels(
    program: str, options: list[str], syntax: str, tmp_path: Path, peer: Peer
) -> None:
    voxels = scene()
    paths = recoded(peer(program), options, unsigned_series(voxels), tmp_path)
    assert {str(dcmread(path).file_meta.TransferSyntaxUID) for path in paths} == {syntax}
    volume = volume_of(paths)
    np.testing.assert_array_equal(volume.voxels, voxels.astype(np.int16) - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_encodings_of_pydicom_give_the_very_voxels(syntax: UID, signed: bool, tmp_path: Path) -> None:
    voxels = scene()
    series = ct_series(voxels=voxels - 1024) if signed else unsigned_series(voxels)
    for ds in series:
        compress(ds, syntax, generate_instance_uid=False)
    volume = volume_of(save(series, tmp_path))
    np.testing.assert_array_equal(volume.voxels, voxels - 1024)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("program", "options", "back", "bits", "off"),
    [
        ("dcmcjpeg", ["+ee", "+bt"], "dcmdjpeg", 12, 0),
        ("dcmcjpeg", ["+eb"], "dcmdjpeg", 8, 1),
        ("dcmcjpls", ["+en", "+md", "3"], "dcmdjpls", 12, 0),
    ],
    ids=["JPEG Extended 12 bits", "JPEG Baseline", "JPEG-LS near-lossless"],
)
def test_lossy_encodings_are_decoded_as_dcmtk_decodes_them(
    program: str, options: list[str], back: str, bits: int, off: int, tmp_path: Path, peer: Peer
) -> None:
    voxels = scene() >> (12 - bits)
    series = unsigned_series(voxels, bits)
    if bits == 8:
        for ds, plane in zip(series, voxels, strict=True):
            ds.BitsAllocated, ds.PixelData = 8, plane.astype(np.uint8).tobytes()
            ds["PixelData"].VR = "OB"
    paths = recoded(peer(program), options, series, tmp_path)
    volume = volume_of(paths)
    decoded = []
    for path in paths:
        plain = path.with_suffix(".plain")
        subprocess.run([peer(back), str(path), str(plain)], check=True, capture_output=True)
        ds = dcmread(plain)  # dcmcjpeg spreads the values of each slice over all bits, and rescales them back
        decoded.append(ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept))
    assert np.abs(volume.voxels - np.stack(decoded)).max() <= off
    assert np.abs(volume.voxels + 1024 - voxels).mean() < 8  # and it is the image
    assert inspect(paths[0])[0].lossy


def test_lossy_jpeg_2000_is_decoded(tmp_path: Path) -> None:
    voxels = scene()
    series = unsigned_series(voxels)
    for ds in series:
        compress(ds, JPEG2000, j2k_cr=[4], generate_instance_uid=False)
        ds.LossyImageCompression = "01"
    volume = volume_of(save(series, tmp_path))
    assert np.abs(volume.voxels + 1024 - voxels).mean() < 20


@pytest.mark.peer
def test_damaged_jpeg_extended_is_refused_and_the_instance_named(tmp_path: Path, peer: Peer) -> None:
    paths = recoded(peer("dcmcjpeg"), ["+ee", "+bt"], unsigned_series(scene()), tmp_path)
    data = bytearray(paths[1].read_bytes())
    start = data.find(b"\xff\xc1")
    data[start + 30 : start + 400] = bytes(370)
    paths[1].write_bytes(data)
    with pytest.raises(AssemblyError, match="JPEG Extended") as caught:
        volume_of(paths)
    assert (caught.value.code, caught.value.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (2,))


@pytest.mark.peer
def test_signed_values_of_jpeg_extended_are_sign_extended(tmp_path: Path, peer: Peer) -> None:
    paths = recoded(peer("dcmcjpeg"), ["+ee", "+bt"], unsigned_series(scene()), tmp_path)

    def stored_values(signed: int) -> npt.NDArray[np.float64]:
        for path in paths:
            ds = dcmread(path)
            ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = signed, "1", "0"
            ds.save_as(path)
        return volume_of(paths).voxels.astype(float)

    unsigned = stored_values(0)
    np.testing.assert_array_equal(stored_values(1), np.where(unsigned > 2047, unsigned - 4096, unsigned))
    assert unsigned.max() > 2047


HTJ2K = (
    "/0//UQApQAAAAAAUAAAAEAAAAAAAAAAAAAAAFAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
    "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAXoAAf+TwAAmefgFB3QAwAASgOICh3QAwAASwAATgPkAR3QADtf3"
    "AKI0AMAAE8AAFbAABODCSfYAAbQAJAwbIFUF3gBCA362AJKm9gADNADAABbMAAFtwAAWwBEeFMWUURQI9ThQEJg4UPwD/i+MHyRZmQAxYEue"
    "FIAg12AIgbcHARdkAMZhABKPn8kimwCDUihxc87Lj0mNkf2g8AL/Xk4AfJMrOgDAAC9CgABejwAAu2A/8NzjaMFjGPQ3pQH0PO7/N+AnE0CO"
    "APj1cUEgcvz/YfhglHhxgHu/scFN+ECH4tPTcLrgvAh/AEAYgzl6/AJn1gGj5iM4cOHDOu45zSvgF4zO7e8B6NA5LwIex3xj7gN4RP1D/1h/"
    "/p/oZXspf94f/UEBCIGQYAi8qzvj1dXB0BgFLIzoAmfYAf8DAt+D/vfBAAAg+AO8/ysg8PuAgd/Px8Ge33+PBC4B/ARAf82XzBGNcn6j2EMI"
    "70Pv8mfZAf/Z"
)
"""16 x 20 values of ``reference`` by OpenJPH 0.26, reversible."""


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2KOther])
def test_high_throughput_jpeg_2000_of_another_encoder_gives_the_very_voxels(syntax: UID, tmp_path: Path) -> None:
    row, column = np.indices((16, 20))
    reference = (row * 97 + column * 61 + (row * column) % 13 * 5) % 4096
    series = unsigned_series(np.zeros((3, 16, 20), np.int16))
    for ds in series:
        ds.PixelData = encapsulate([base64.b64decode(HTJ2K)])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
    volume = volume_of(save(series, tmp_path))
    np.testing.assert_array_equal(volume.voxels, np.broadcast_to(reference - 1024, (3, 16, 20)))
