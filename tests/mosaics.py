"""Siemens mosaics made of single slices, with the private headers that say how they lie."""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from factories import ct_series
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid

CSA = "SIEMENS CSA HEADER"
IMAGE_HEADER, SERIES_HEADER = 0x10, 0x20

Elements = dict[str, tuple[str, Sequence[str]]]
"""VR and values of each element of a CSA header, by name."""


def slices_of_mr(
    voxels: npt.NDArray[np.int16],
    *,
    spacing_mm: float = 3.3,
    in_plane_spacing_mm: Sequence[float] = (1.8, 1.8),
    origin_mm: npt.ArrayLike = (-104.5, -97.25, -30.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
) -> list[Dataset]:
    """Return single MR slices in ascending order along their normal, as a scanner writes them without mosaic."""
    series = ct_series(
        spacing_mm=spacing_mm,
        voxels=voxels,
        in_plane_spacing_mm=in_plane_spacing_mm,
        origin_mm=origin_mm,
        orientation=[round(float(x), 9) for x in orientation],
    )
    for ds in series:
        ds.ImagePositionPatient = written(ds.ImagePositionPatient)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.Modality, ds.Manufacturer, ds.BodyPartExamined = "MR", "SIEMENS", "BRAIN"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "EP", "SK", "FS", "2D"
        ds.EchoTime, ds.EchoNumbers, ds.RepetitionTime, ds.FlipAngle = "30", "1", "2000", "90"
        ds.EchoTrainLength = "1"
        ds.SpacingBetweenSlices = f"{spacing_mm:.10g}"
        for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType", "KVP", "ConvolutionKernel"):
            delattr(ds, keyword)
    return series


def mosaic(slices: Sequence[Dataset], *, number: int = 1, **private: bytes | None) -> Dataset:
    """Return one mosaic whose tiles are ``slices``, in their order: ascending or descending.

    Parameters
    ----------
    private
        ``image_header`` and ``series_header`` in place of the right ones; ``None`` leaves one out.
    """
    first = slices[0]
    ds = copy.deepcopy(first)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.ImageType = [*first.ImageType, "MOSAIC"]
    ds.InstanceNumber = ds.AcquisitionNumber = number
    tiles = [one.pixel_array for one in slices]
    image = laid_out(tiles)
    ds.Rows, ds.Columns = image.shape
    ds.PixelData = image.tobytes()
    row, column, spacing = _in_plane(first)
    (rows, columns), (tile_rows, tile_columns) = image.shape, tiles[0].shape
    corner = np.array(first.ImagePositionPatient, float)
    corner -= row * spacing[1] * (columns - tile_columns) / 2 + column * spacing[0] * (rows - tile_rows) / 2
    ds.ImagePositionPatient = written(corner)
    headers = {
        IMAGE_HEADER: private.get("image_header", csa(image_elements(slices))),
        SERIES_HEADER: private.get("series_header", csa(series_elements(slices))),
    }
    block = ds.private_block(0x0029, CSA, create=True)
    for element, value in headers.items():
        if value is not None:
            block.add_new(element, "OB", value)
    return ds


def written(position_mm: npt.ArrayLike) -> list[str]:
    """Return a position as scanners write it."""
    return [f"{x:.7f}" for x in np.asarray(position_mm, float)]


def laid_out(tiles: Sequence[npt.NDArray[np.int16]]) -> npt.NDArray[np.int16]:
    """Return tiles side by side in the smallest square that holds them, row by row."""
    across = math.ceil(math.sqrt(len(tiles)))
    rows, columns = tiles[0].shape
    image = np.zeros((across * rows, across * columns), np.int16)
    for k, tile in enumerate(tiles):
        top, left = k // across * rows, k % across * columns
        image[top : top + rows, left : left + columns] = tile
    return image


def _in_plane(ds: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[float]]:
    cosines = np.array(ds.ImageOrientationPatient, float)
    return cosines[:3], cosines[3:], [float(x) for x in ds.PixelSpacing]


def normal_of(slices: Sequence[Dataset]) -> npt.NDArray[np.float64]:
    """Return the direction from slice to slice."""
    row, column, _ = _in_plane(slices[0])
    normal = np.cross(row, column)
    first, last = (np.array(ds.ImagePositionPatient, float) for ds in (slices[0], slices[-1]))
    return normal if (last - first) @ normal >= 0 else -normal


def image_elements(slices: Sequence[Dataset]) -> Elements:
    """Return what the CSA image header of a mosaic says."""
    return {
        "EchoLinePosition": ("IS", ["64"]),
        "NumberOfImagesInMosaic": ("US", [str(len(slices))]),
        "SliceNormalVector": ("FD", [f"{x:.8f}" for x in normal_of(slices)]),
        "ProtocolSliceNumber": ("IS", ["0"]),
        "AcquisitionMatrixText": ("SH", [f"{slices[0].Columns}*{slices[0].Rows}"]),
    }


def series_elements(slices: Sequence[Dataset], **changes: str) -> Elements:
    """Return what the CSA series header says: a protocol that plans the slices. ``changes`` replaces its lines."""
    return {"UsedPatientWeight": ("IS", ["70"]), "MrPhoenixProtocol": ("UN", [protocol(plan(slices) | changes)])}


def plan(slices: Sequence[Dataset]) -> dict[str, str]:
    """Return the lines of a protocol that are about its slices; numbers that are zero are left out."""
    row, column, spacing = _in_plane(slices[0])
    rows, columns = int(slices[0].Rows), int(slices[0].Columns)
    lines = {"sSliceArray.lSize": str(len(slices)), "sSliceArray.ucImageNumbTra": "0x0"}
    for k, ds in enumerate(slices):
        middle = row * spacing[1] * (columns // 2) + column * spacing[0] * (rows // 2)
        centre = np.array(ds.ImagePositionPatient, float) + middle
        for axis, value in zip(("dSag", "dCor", "dTra"), centre, strict=True):
            if round(value, 9):
                lines[f"sSliceArray.asSlice[{k}].sPosition.{axis}"] = f"{value:.10g}"
        lines[f"sSliceArray.asSlice[{k}].dPhaseFOV"] = f"{rows * spacing[0]:.10g}"
        lines[f"sSliceArray.asSlice[{k}].dReadoutFOV"] = f"{columns * spacing[1]:.10g}"
    return lines


def protocol(lines: Mapping[str, str]) -> str:
    """Return a protocol as text, between lines that are about other things."""
    said = "\n".join(f"{name:40} = {value}" for name, value in lines.items())
    return (
        '<XProtocol> { <Name> "PhoenixMetaProtocol" }\n### ASCCONV BEGIN ###\nulVersion = 0x1421cf5\n'
        f'tSequenceFileName = ""%SiemensSeq%\\ep2d_bold""\n{said}\nsSliceArray.anAsc[1] = 1\n### ASCCONV END ###\n'
    )


def csa(elements: Elements) -> bytes:
    """Return a CSA header of the form SV10; elements have places for more values than there are."""
    parts = [b"SV10\4\3\2\1", struct.pack("<II", len(elements), 77)]
    for name, (vr, values) in elements.items():
        items = [value.encode("latin-1") + b"\0" for value in values] + [b""] * 2
        parts.append(struct.pack("<64si4siii", name.encode(), len(values), vr.encode(), 0, len(items), 77))
        for item in items:
            parts += [struct.pack("<iiii", len(item), len(item), 77, len(item)), item, b"\0" * (-len(item) % 4)]
    return b"".join(parts)
