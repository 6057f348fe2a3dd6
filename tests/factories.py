"""Synthetic DICOM for tests. The patient is called CANARY^PHI, so that a leak is found by a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


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
