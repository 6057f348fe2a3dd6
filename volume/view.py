"""One DICOM image as a picture: RGB, 8 bits, as a viewer shows it first."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from domain.errors import GatewayError, MalformedInstance, UnsupportedSopClass
from domain.instance import Header
from volume.display import WHOLE, displayed
from volume.header import header_of, is_uid
from volume.images import read_image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """``pixels`` are uint8, ``(rows, columns, 3)``."""

    pixels: npt.NDArray[np.uint8]
    sop_instance_uid: str = field(repr=False)


def read_picture(path: Path, *, most_pixels: int) -> Picture:
    """Return the one frame of a Part 10 file as ``volume.display`` shows it, from its darkest to its brightest.

    Identity is not needed here: a file without UIDs is taken as well.

    Raises
    ------
    MalformedInstance
        No DICOM, no pixels, or not decodable.
    UnsupportedSopClass
        Several frames, more than ``most_pixels``, or a deflated dataset, whose size cannot be known beforehand.
    """
    ds = _read(path)
    header = _header(ds, path)
    if (header.number_of_frames or 1) != 1:
        raise UnsupportedSopClass("NumberOfFrames is above 1; send one frame.")
    if (header.rows or 0) * (header.columns or 0) > most_pixels:
        raise UnsupportedSopClass(f"Rows x Columns is more than {most_pixels} pixels.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            pixels = displayed(read_image(header, path), percentiles=WHOLE)
    except GatewayError as error:
        raise MalformedInstance(f"PixelData cannot be decoded: {error}") from None
    return Picture(pixels=pixels, sop_instance_uid=str(ds.get("SOPInstanceUID", "")))


_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def _header(ds: pydicom.Dataset, path: Path) -> Header:
    known = pydicom.Dataset()
    known.update(ds)
    for keyword in _UIDS:
        if not is_uid(str(ds.get(keyword, ""))):
            setattr(known, keyword, "2.25.0")
    known.PixelData = b"\0\0"  # not read; whether it is there shows when it is decoded
    return header_of(known, str(read_file_meta_info(path).TransferSyntaxUID))


def _read(path: Path) -> pydicom.Dataset:
    syntax: object = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = read_file_meta_info(path).get("TransferSyntaxUID")
            if syntax != DeflatedExplicitVRLittleEndian:
                return pydicom.dcmread(path, stop_before_pixels=True)
    except Exception as error:
        raise MalformedInstance(f"It is not readable as DICOM ({type(error).__name__}).") from None
    raise UnsupportedSopClass("The deflated transfer syntax is not taken here.")
