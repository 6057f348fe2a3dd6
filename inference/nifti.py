"""NIfTI-1 files of a request, gzipped or not; nothing is trusted."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.volume import Grid, Volume
from inference.predict_request import InvalidRequest
from inference.predict_settings import PredictSettings
from inference.scratch import scratch

_HEADER = 348
_FIRST_VOXEL = 352
_SINGLE_FILE = b"n+1\0"
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
"""Of the data types with one real value a voxel."""
_GZIP = b"\x1f\x8b"
_PIECE = 64 << 10
_MOST_MEMBERS = 100_000
"""bgzip writes one for each 64 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nifti:
    """One volume of one value a voxel, as SimpleITK reads it: LPS, whatever the file says.

    Attributes
    ----------
    voxels
        Shape ``(slices, rows, columns)``: z, y, x of the file.
    spacing, origin
        In the order x, y, z.
    direction
        3 x 3, row by row.
    """

    voxels: npt.NDArray[np.float32] = field(repr=False)
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]


def read_nifti(
    data: bytes, settings: PredictSettings, where: str = "images[0].data", *, plain: bool = False
) -> Nifti:
    """Return the volume in the bytes of a file.

    Parameters
    ----------
    where
        What messages call it.
    plain
        A file that is not gzipped is taken too.

    Raises
    ------
    InvalidRequest
        413 where it is too large, by what it unpacks to or by what its header says; 422 where it is no volume.
    """
    import SimpleITK as sitk

    # It would write to stderr, past the log
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # type: ignore[no-untyped-call]
    with _unpacked(data, settings, where, plain=plain) as path:
        _check(path, settings, where)
        try:
            image: Any = sitk.ReadImage(str(path), sitk.sitkFloat32)
        except RuntimeError:
            raise InvalidRequest(422, [f"{where}: not decodable as NIfTI"]) from None
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InvalidRequest(422, [f"{where}: not one volume of one value a voxel"])
    voxels: npt.NDArray[np.float32] = np.array(sitk.GetArrayViewFromImage(image), np.float32)
    if not np.isfinite(voxels).all():
        raise InvalidRequest(422, [f"{where}: a voxel is not a number"])
    return Nifti(voxels=voxels, spacing=image.GetSpacing(), origin=image.GetOrigin(), direction=image.GetDirection())


def nifti_volume(read: Nifti, unit: str = "HU") -> Volume:
    """Return the volume, its slices along the third axis of the file."""
    affine = np.eye(4)
    axes = np.reshape(read.direction, (3, 3)) * np.array(read.spacing)
    affine[:3, :3], affine[:3, 3] = axes[:, ::-1], read.origin
    slices, rows, columns = read.voxels.shape
    grid = Grid(shape=(slices, rows, columns), affine=affine, frame_of_reference_uid="")
    return Volume(voxels=read.voxels, grid=grid, sop_instance_uids=("",) * slices, unit=unit)


def mask_nifti(mask: npt.NDArray[np.uint8], read: Nifti) -> bytes:
    """Return a mask as a gzipped NIfTI file that lies where ``read`` lies."""
    import SimpleITK as sitk

    image: Any = sitk.GetImageFromArray(mask)
    image.SetSpacing(read.spacing)
    image.SetOrigin(read.origin)
    image.SetDirection(read.direction)
    with scratch() as folder:
        path = folder / "mask.nii.gz"
        sitk.WriteImage(image, str(path), useCompression=True)
        return path.read_bytes()


def _check(path: Path, settings: PredictSettings, where: str) -> None:
    """Look at the header before anything is allocated by it (NIfTI-1: sizeof_hdr, then dim at byte 40)."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
    order = next((o for o in "<>" if len(header) == _HEADER and struct.unpack(f"{o}i", header[:4])[0] == 348), "")
    if not order or header[344:] != _SINGLE_FILE:
        raise InvalidRequest(422, [f"{where}: not a NIfTI-1 file"])
    count, *dims = struct.unpack(f"{order}8h", header[40:56])
    if not 3 <= count <= 4 or min(dims[:count]) < 1:
        raise InvalidRequest(422, [f"{where}: not one volume"])
    voxels = math.prod(dims[:count])
    if voxels > settings.most_voxels:
        raise InvalidRequest(413, [f"{where}: more than {settings.most_voxels} voxels"])
    kind, offset = struct.unpack(f"{order}h", header[70:72])[0], struct.unpack(f"{order}f", header[108:112])[0]
    if kind not in _BITS:
        raise InvalidRequest(422, [f"{where}: its data type is not one number a voxel"])
    # The reader would begin within the header, and fill what is missing with zeros.
    if not offset >= _FIRST_VOXEL:
        raise InvalidRequest(422, [f"{where}: vox_offset lies within the header"])
    if not path.stat().st_size >= offset + voxels * _BITS[kind] / 8:
        raise InvalidRequest(422, [f"{where}: shorter than its header says"])
    if not all(map(math.isfinite, _place(header, order))):
        raise InvalidRequest(422, [f"{where}: its header does not say where it lies (pixdim, qform, sform)"])


def _place(header: bytes, order: str) -> tuple[float, ...]:
    """Return the numbers that say where the voxels lie: spacing, and what the codes of qform and sform declare."""
    codes = struct.unpack(f"{order}2h", header[252:256])
    spacing = struct.unpack(f"{order}3f", header[80:92])
    quaternion, rows = struct.unpack(f"{order}6f", header[256:280]), struct.unpack(f"{order}12f", header[280:328])
    return (*spacing, *(quaternion if codes[0] else ()), *(rows if codes[1] else ()))


@contextmanager
def _unpacked(data: bytes, settings: PredictSettings, where: str, *, plain: bool) -> Iterator[Path]:
    with scratch() as folder:
        path = folder / "volume.nii"
        path.write_bytes(data if plain and not data.startswith(_GZIP) else _inflated(data, settings, where))
        yield path


def _inflated(data: bytes, settings: PredictSettings, where: str) -> bytes:
    """Return what a gzip file holds, all its members; a bomb is given up at the limit, whatever it says of itself."""
    room, unpacked, view, at, members = settings.most_unpacked_mb << 20, bytearray(), memoryview(data), 0, 1
    unpacker = zlib.decompressobj(wbits=31)
    while at < len(view):
        if unpacker.eof:
            if view[at : at + 2] != _GZIP:
                break
            members += 1
            unpacker = zlib.decompressobj(wbits=31)
        piece = view[at : at + _PIECE]
        try:
            unpacked += unpacker.decompress(piece, room + 1 - len(unpacked))
        except zlib.error:
            raise InvalidRequest(422, [f"{where}: not gzipped"]) from None
        if len(unpacked) > room:
            raise InvalidRequest(413, [f"{where}: unpacks to more than {settings.most_unpacked_mb} MiB"])
        if members > _MOST_MEMBERS:
            raise InvalidRequest(413, [f"{where}: more than {_MOST_MEMBERS} gzip members"])
        at += len(piece) - len(unpacker.unused_data)
    return bytes(unpacked)
