"""Synthetic DICOM for tests. The patient is called CANARY^PHI, so that a leak is found by a search."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from domain.instance import Header
from volume.header import header_of


def ct_slice(
    *,
    voxels: npt.NDArray[np.int16] | None = None,
    position_mm: npt.ArrayLike = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing_mm: Sequence[float] = (0.7, 0.8),
    thickness_mm: float = 2.5,
    number: int = 1,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    frame_of_reference_uid: str | None = None,
) -> Dataset:
    """Return one CT instance (PS3.3 A.3), valid for dciodvfy's type 1 and 2 attributes."""
    if voxels is None:
        voxels = np.full((16, 20), -1000 + number, np.int16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyDate, ds.StudyTime = "20240102", "101112"
    ds.SeriesDate, ds.SeriesTime = "20240102", "101200"
    ds.AcquisitionDate, ds.AcquisitionTime = "20240102", "101200"
    ds.ContentDate, ds.ContentTime = "20240102", "101200"
    ds.AccessionNumber = "CANARYACC"
    ds.Modality = "CT"
    ds.Manufacturer = "TEST"
    ds.ReferringPhysicianName = "CANARY^REFERRER"
    ds.StudyDescription = "CANARY STUDY"
    ds.SeriesDescription = "axial"
    ds.PatientName, ds.PatientID = "CANARY^PHI", "CANARYID"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.BodyPartExamined = "CHEST"
    ds.SliceThickness = str(thickness_mm)
    ds.KVP = "120"
    ds.PatientPosition = "HFS"
    ds.ConvolutionKernel = "B30f"
    ds.StudyInstanceUID = study_instance_uid or generate_uid()
    ds.SeriesInstanceUID = series_instance_uid or generate_uid()
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", 2, 1, number
    ds.ImagePositionPatient = [f"{x:.10g}" for x in np.asarray(position_mm, float)]
    ds.ImageOrientationPatient = [f"{x:.10g}" for x in orientation]
    ds.FrameOfReferenceUID = frame_of_reference_uid or generate_uid()
    ds.PositionReferenceIndicator = ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = voxels.shape
    ds.PixelSpacing = [f"{x:.10g}" for x in spacing_mm]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
    ds.PixelData = np.ascontiguousarray(voxels, "<i2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def ct_series(
    slices: int = 3,
    *,
    spacing_mm: float = 2.5,
    voxels: npt.NDArray[np.int16] | None = None,
    in_plane_spacing_mm: Sequence[float] = (0.7, 0.8),
    origin_mm: npt.ArrayLike = (-10.0, -20.0, 30.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
) -> list[Dataset]:
    """Return a regular CT series in ascending order along its normal.

    ``voxels`` has shape ``(slices, rows, columns)`` in HU.
    """
    normal = np.cross(np.asarray(orientation[:3], float), np.asarray(orientation[3:], float))
    uids = {
        "study_instance_uid": generate_uid(),
        "series_instance_uid": generate_uid(),
        "frame_of_reference_uid": generate_uid(),
    }
    count = slices if voxels is None else voxels.shape[0]
    return [
        ct_slice(
            voxels=None if voxels is None else voxels[k],
            position_mm=np.asarray(origin_mm, float) + normal * spacing_mm * k,
            orientation=orientation,
            spacing_mm=in_plane_spacing_mm,
            thickness_mm=spacing_mm,
            number=k + 1,
            **uids,
        )
        for k in range(count)
    ]


def save(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write datasets as Part 10 files; return their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(datasets):
        path = folder / f"{index:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def two_phases() -> list[Dataset]:
    """Return a series of two stacks at the same places."""
    early = ct_series(4)
    late = copied(early, first_number=5)
    for image in late:
        image.AcquisitionNumber, image.ContentTime = 2, "101500"
        image.PixelData = bytes(len(image.PixelData))
    return [*early, *late]


def phases(count: int, slices: int = 3) -> list[Dataset]:
    """Return a series of ``count`` stacks at the same places, told apart by AcquisitionNumber."""
    first = ct_series(slices)
    series = list(first)
    for phase in range(1, count):
        more = copied(first, first_number=1 + phase * slices)
        for image in more:
            image.AcquisitionNumber = 1 + phase
            image.PixelData = phase.to_bytes(2, "little") * (len(image.PixelData) // 2)
        series += more
    return series


def mr_series(slices: int = 3, *, spacing_mm: float = 3.0, echo_time_ms: float = 5.0) -> list[Dataset]:
    """Return a regular MR series (PS3.3 A.4) without rescale attributes."""
    voxels = np.broadcast_to(np.arange(slices, dtype=np.int16)[:, None, None], (slices, 16, 20))
    series = ct_series(spacing_mm=spacing_mm, voxels=voxels)
    for ds in series:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.Modality = "MR"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "", "3D"
        ds.EchoTime, ds.EchoNumbers, ds.RepetitionTime, ds.FlipAngle = str(echo_time_ms), "1", "12", "20"
        for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType", "KVP", "ConvolutionKernel"):
            delattr(ds, keyword)
    return series


def pet_series(slices: int = 3, *, dose_bq: float = 4e8, half_life_s: float = 6586.2) -> list[Dataset]:
    """Return a regular PET series (PS3.3 A.21) in Bq/ml, rescaled by another slope on every slice.

    70 kg, injected at 09:00:00, begun and decay-corrected to 10:00:00.
    """
    series = ct_series(slices)
    for k, ds in enumerate(series):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        ds.Modality = "PT"
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.RescaleSlope, ds.RescaleType = str(1.5 + k), "US"
        ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["ATTN", "DECY", "SCAT"]
        ds.SeriesType = ["WHOLE BODY", "IMAGE"]
        ds.SeriesTime, ds.AcquisitionTime, ds.PatientWeight = "100000", f"10{k:02d}00.5", "70"
        isotope = Dataset()
        isotope.RadiopharmaceuticalStartTime = "090000.00"
        isotope.RadionuclideTotalDose, isotope.RadionuclideHalfLife = str(dose_bq), str(half_life_s)
        ds.RadiopharmaceuticalInformationSequence = [isotope]
        del ds.KVP
    return series


def moved(datasets: Sequence[Dataset], offsets_mm: npt.ArrayLike) -> list[Dataset]:
    """Shift the position of each instance in place; ``offsets_mm`` has shape ``(instances, 3)``."""
    for ds, offset in zip(datasets, np.asarray(offsets_mm, float), strict=True):
        position = np.asarray(ds.ImagePositionPatient, float) + offset
        ds.ImagePositionPatient = [f"{x:.10g}" for x in position]
    return list(datasets)


def copied(datasets: Sequence[Dataset], *, first_number: int | None = None) -> list[Dataset]:
    """Return copies with SOP Instance UIDs of their own, numbered on from ``first_number`` where given."""
    copies = [copy.deepcopy(ds) for ds in datasets]
    for index, ds in enumerate(copies):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if first_number is not None:
            ds.InstanceNumber = first_number + index
    return copies


def headers_of(datasets: Sequence[Dataset]) -> list[Header]:
    """Return what intake reads from ``datasets``."""
    return [header_of(ds, str(ds.file_meta.TransferSyntaxUID)) for ds in datasets]
