"""One DICOM image as a picture: RGB, 8 bits, as a viewer shows it first."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from domain.errors import MalformedInstance, UnsupportedSopClass


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """``pixels`` are uint8, ``(rows, columns, 3)``."""

    pixels: npt.NDArray[np.uint8]
    sop_instance_uid: str = field(repr=False)


def read_picture(path: Path, *, most_pixels: int) -> Picture:
    """Return the one frame of a Part 10 file after the Modality LUT, the first VOI LUT or window, and inversion.

    MONOCHROME1 is shown inverted (PS3.3 C.7.6.3.1.2): bright stays bright. The output spans the darkest to the
    brightest value; padding is black.

    Raises
    ------
    MalformedInstance
        No DICOM, no pixels, or not decodable.
    UnsupportedSopClass
        Several frames, more than ``most_pixels``, or a deflated dataset, whose size cannot be known beforehand.
    """
    ds = _read(path)
    rows, columns = _number(ds, "Rows"), _number(ds, "Columns")
    if _number(ds, "NumberOfFrames", 1) != 1:
        raise UnsupportedSopClass("NumberOfFrames is above 1; send one frame.")
    if rows * columns > most_pixels:
        raise UnsupportedSopClass(f"Rows x Columns is more than {most_pixels} pixels.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            pixels = _colour(ds) if _number(ds, "SamplesPerPixel", 1) == 3 else _shown(ds)
    except MalformedInstance:
        raise
    except Exception as error:
        raise MalformedInstance(f"PixelData cannot be decoded ({type(error).__name__}).") from None
    return Picture(pixels=pixels, sop_instance_uid=str(ds.get("SOPInstanceUID", "")))


def _read(path: Path) -> pydicom.Dataset:
    syntax: object = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = read_file_meta_info(path).get("TransferSyntaxUID")
            if syntax != DeflatedExplicitVRLittleEndian:
                return pydicom.dcmread(path)
    except Exception as error:
        raise MalformedInstance(f"It is not readable as DICOM ({type(error).__name__}).") from None
    raise UnsupportedSopClass("The deflated transfer syntax is not taken here.")


def _number(ds: pydicom.Dataset, keyword: str, default: int | None = None) -> int:
    value = ds.get(keyword)
    if value is None and default is not None:
        return default
    try:
        return int(str(value))
    except ValueError:
        raise MalformedInstance(f"{keyword} is missing or no number.", attribute=keyword) from None


def _colour(ds: pydicom.Dataset) -> npt.NDArray[np.uint8]:
    values: npt.NDArray[Any] = pixel_array(ds)  # YBR becomes RGB here
    return values if values.dtype == np.uint8 else _spread(values.astype(np.float64))


def _shown(ds: pydicom.Dataset) -> npt.NDArray[np.uint8]:
    stored: npt.NDArray[Any] = pixel_array(ds)
    if ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _spread(apply_color_lut(stored, ds).astype(np.float64)[..., :3])
    values = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(np.float64)
    if ds.get("PhotometricInterpretation") == "MONOCHROME1":
        values = -values
    padding = ds.get("PixelPaddingValue")
    inside = np.ones(stored.shape, bool) if padding is None else stored != padding
    return np.repeat(_spread(values, inside if inside.any() else None)[..., None], 3, axis=2)


def _spread(values: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.uint8]:
    known = values if inside is None else values[inside]
    low, high = float(known.min()), float(known.max())
    shown = np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255
    if inside is not None:
        shown[~inside] = 0
    return np.rint(shown).astype(np.uint8)
