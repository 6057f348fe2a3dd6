"""Synthetic instances without coordinates in the patient: radiographs, photographs, ultrasound cine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from factories import ct_slice, headers_of, save
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
)

from domain.image import Image
from volume.images import read_image

_SLICE_ONLY = (
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PositionReferenceIndicator",
    "PixelSpacing", "SliceThickness", "RescaleType", "RescaleSlope", "RescaleIntercept", "KVP", "ConvolutionKernel",
    "PatientPosition", "AcquisitionNumber",
)  # fmt: skip


def _image(sop_class_uid: str, modality: str, number: int) -> Dataset:
    ds = ct_slice(number=number)
    for keyword in _SLICE_ONLY:
        delattr(ds, keyword)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    ds.Modality, ds.ImageType, ds.SeriesDescription = modality, ["ORIGINAL", "PRIMARY"], "images"
    return ds


def with_pixels(ds: Dataset, pixels: npt.NDArray[np.integer], *, bits_stored: int | None = None) -> Dataset:
    """Give an instance grey pixels, shape ``([frames,] rows, columns)``, or RGB with a last axis of 3."""
    is_colour = pixels.shape[-1] == 3 and pixels.dtype == np.uint8 and pixels.ndim >= 3
    *frames, rows, columns = pixels.shape[:-1] if is_colour else pixels.shape
    ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, 3 if is_colour else 1
    ds.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        ds.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits_stored or bits, (bits_stored or bits) - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if frames:
        ds.NumberOfFrames = frames[0]
    data = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def radiograph(*, view: str = "PA", number: int = 1, seed: int = 0) -> Dataset:
    """Return a DX of 12 bits with ImagerPixelSpacing (PS3.3 A.26)."""
    ds = _image(DigitalXRayImageStorageForPresentation, "DX", number)
    ds.ImagerPixelSpacing = ["0.2", "0.1"]
    ds.ViewPosition, ds.ImageLaterality, ds.PatientOrientation = view, "U", ["L", "F"]
    ds.PresentationIntentType, ds.PixelIntensityRelationship = "FOR PRESENTATION", "LIN"
    pixels = np.random.default_rng(seed).integers(0, 4096, (48, 32)).astype(np.uint16)
    return with_pixels(ds, pixels, bits_stored=12)


def photograph(*, number: int = 1) -> Dataset:
    """Return a VL Photographic image in colour (PS3.3 A.32.4)."""
    ds = _image(VLPhotographicImageStorage, "XC", number)
    return with_pixels(ds, np.random.default_rng(number).integers(0, 256, (36, 40, 3)).astype(np.uint8))


def region(**numbers: float) -> Dataset:
    """Return one calibrated region that is fit for measuring: 0.5 mm between columns, 0.4 mm between rows."""
    ds = Dataset()
    ds.RegionLocationMinX0, ds.RegionLocationMinY0 = 2, 2
    ds.RegionLocationMaxX1, ds.RegionLocationMaxY1 = 29, 19
    ds.RegionSpatialFormat, ds.RegionDataType, ds.RegionFlags = 1, 1, 0
    ds.PhysicalUnitsXDirection = ds.PhysicalUnitsYDirection = 3
    ds.PhysicalDeltaX, ds.PhysicalDeltaY = 0.05, 0.04
    for keyword, number in numbers.items():
        setattr(ds, keyword, number)
    return ds


def cine(frames: int = 5, *, number: int = 1, regions: Sequence[Dataset] | None = None) -> Dataset:
    """Return a grey ultrasound loop (PS3.3 A.7) of a bright square of 6 by 6 pixels that walks right."""
    ds = _image(UltrasoundMultiFrameImageStorage, "US", number)
    pixels = np.full((frames, 36, 40), 20, np.uint8)
    for k in range(frames):
        pixels[k, 8:14, 4 + k : 10 + k] = 200
    ds.FrameTime, ds.FrameIncrementPointer = "40", 0x00181063
    ds.SequenceOfUltrasoundRegions = [region()] if regions is None else list(regions)
    return with_pixels(ds, pixels)


def image_of(ds: Dataset, folder: Path) -> Image:
    """Write an instance and read it as an image."""
    (path,) = save([ds], folder)
    (header,) = headers_of([ds])
    return read_image(header, path)
