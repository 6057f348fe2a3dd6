"""A chest CT that we made ourselves: lungs of known volume, for the demo and the tests; no patient's data."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy import ndimage

from gateway.anatomy import BoolGrid, Coordinates, FloatGrid, chest

NAMESPACE = uuid.UUID("0a3b8f6e-7d6d-5f0b-8b1c-2f5f3c1e9d44")
HEIGHT_MM, WIDTH_MM = 288.0, 435.0
LOWEST_MM = -152.0
SMALL = (24, 64, 64)
NOISE_HU = 18.0
BLUR_VOXELS = 0.6
"""In-plane point spread; the border voxels of real images are mixtures too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomTruth:
    """What is in the phantom, counted on its grid before noise."""

    folder: Path
    paths: tuple[Path, ...] = field(repr=False)
    study_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    left_ml: float
    right_ml: float
    left_mean_hu: float
    right_mean_hu: float


def write_phantom(
    folder: Path,
    *,
    slices: int = 128,
    rows: int = 256,
    columns: int | None = None,
    seed: int = 0,
    patient_name: str = "PHANTOM^CHEST",
    patient_id: str = "VOXGATE-PHANTOM",
    small: bool = False,
    fresh: bool = False,
) -> PhantomTruth:
    """Write a chest CT as Part 10 files ``0001.dcm`` and so on, lowest slice first, and return the truth.

    Parameters
    ----------
    slices, rows, columns
        Matrix; the extent stays the same, so that fewer mean coarser. As many columns as rows unless given.
    seed
        Noise and vessels follow from it, and UIDs from all arguments: the same call writes the same files.
    small
        The matrix ``SMALL`` in place of the others, for tests that need many series.
    fresh
        New UIDs at each call, for sending the demo again and again.
    """
    shape = SMALL if small else (slices, rows, columns or rows)
    spacing = (HEIGHT_MM / shape[0], WIDTH_MM / shape[1], WIDTH_MM / shape[2])
    random = np.random.default_rng(seed)
    made = chest(_coordinates(shape, spacing), random)
    blurred = _blurred(made.hu)
    voxels = _scanned(blurred, random)
    key = uuid.uuid4().hex if fresh else str((seed, shape, patient_name, patient_id))
    template = _template(key, spacing, patient_name, patient_id)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(_write(folder, template, voxels, index, spacing) for index in range(shape[0]))
    left, right = (_lung_truth(blurred, lung, spacing) for lung in (made.left, made.right))
    return PhantomTruth(
        folder=folder,
        paths=paths,
        study_instance_uid=template.StudyInstanceUID,
        series_instance_uid=template.SeriesInstanceUID,
        shape=shape,
        spacing_mm=spacing,
        left_ml=left[0],
        right_ml=right[0],
        left_mean_hu=left[1],
        right_mean_hu=right[1],
    )


def _coordinates(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Coordinates:
    z = LOWEST_MM + np.arange(shape[0], dtype=np.float32) * spacing[0]
    y, x = (
        (np.arange(length, dtype=np.float32) - (length - 1) / 2) * step
        for length, step in zip(shape[1:], spacing[1:], strict=True)
    )
    return Coordinates(z[:, None, None], y[None, :, None], x[None, None, :])


def _blurred(hu: FloatGrid) -> FloatGrid:
    blurred: FloatGrid = ndimage.gaussian_filter(  # type: ignore[attr-defined]
        hu, (0, BLUR_VOXELS, BLUR_VOXELS)
    )
    return blurred


def _scanned(hu: FloatGrid, random: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return ``hu`` as a scanner would store it: noisy, whole numbers."""
    noisy = hu + NOISE_HU * random.standard_normal(hu.shape, np.float32)
    return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)


def _lung_truth(hu: FloatGrid, lung: BoolGrid, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Return volume in ml and mean HU."""
    return float(np.count_nonzero(lung) * np.prod(spacing) / 1000), float(hu[lung].mean(dtype=np.float64))


def _uid(*parts: str) -> str:
    """Return a UID in the 2.25 arc (PS3.5 B.2); its own name space, since results are derived in another."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(parts)).int}"


def _template(key: str, spacing: tuple[float, float, float], patient_name: str, patient_id: str) -> Dataset:
    """Return the attributes that all slices share (CT Image IOD, PS3.3 A.3)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    for what in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{what}Date", "20240102")
        setattr(ds, f"{what}Time", "101112")
    ds.AccessionNumber, ds.Modality = "PHANTOM", "CT"
    ds.Manufacturer, ds.ManufacturerModelName = "Chest phantom", "Generator"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "Chest phantom", "Chest soft"
    ds.PatientName, ds.PatientID = patient_name, patient_id
    ds.PatientBirthDate, ds.PatientSex = "19600101", "O"
    ds.BodyPartExamined, ds.PatientPosition = "CHEST", "HFS"
    ds.SliceThickness, ds.KVP, ds.ConvolutionKernel = f"{spacing[0]:.6g}", "120", "SOFT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(key, "study"), _uid(key, "series")
    ds.FrameOfReferenceUID = _uid(key, "frame")
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = "1", 2, 1
    ds.PositionReferenceIndicator = ""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelSpacing = [f"{step:.8g}" for step in spacing[1:]]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "-600", "1500"
    return ds


def _write(
    folder: Path, template: Dataset, voxels: npt.NDArray[np.int16], index: int, spacing: tuple[float, float, float]
) -> Path:
    """Write one slice; the file appears under its name when it is whole."""
    _, rows, columns = voxels.shape
    ds = template.copy()
    ds.SOPInstanceUID = _uid(template.SeriesInstanceUID, str(index))
    ds.InstanceNumber = index + 1
    corner = [-(columns - 1) / 2 * spacing[2], -(rows - 1) / 2 * spacing[1], LOWEST_MM + index * spacing[0]]
    ds.ImagePositionPatient = [f"{value:.8g}" for value in corner]
    ds.Rows, ds.Columns = rows, columns
    ds.PixelData = voxels[index].astype("<i2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{index + 1:04d}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path
