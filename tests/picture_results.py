"""Results on images without patient coordinates: a projection, a photograph, a cine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from factories import ct_slice
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, UltrasoundMultiFrameImageStorage
from results import manifest

from domain.findings import Findings
from domain.image import Raster
from domain.ports import Result


def xa_cine(frames: int) -> Dataset:
    """Return a cine of so many frames, without patient coordinates; with one it is a picture."""
    ds = ct_slice()
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del ds[keyword]
    ds.SOPClassUID = UltrasoundMultiFrameImageStorage if frames > 1 else SecondaryCaptureImageStorage
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.Modality, ds.PatientOrientation = "US", ["L", "F"]
    if frames > 1:
        ds.NumberOfFrames = frames
        ds.FrameTime, ds.FrameIncrementPointer = "40", 0x00181063
    ds.PixelData = ds.PixelData * frames
    return ds


def picture_result(source: Dataset | Path, folder: Path) -> Result:
    """Return findings with two segments and their probabilities on an image, which is saved or a file."""
    if isinstance(source, Dataset):
        path = folder / "picture" / "image.dcm"
        path.parent.mkdir(parents=True)
        source.save_as(path, enforce_file_format=True)
    else:
        path = source
    header = dcmread(path, stop_before_pixels=True)
    frames, rows, columns = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    labels = np.zeros((frames, rows, columns), np.uint8)
    labels[:, rows // 8 : rows // 2, 1 : columns // 3] = 1
    labels[frames // 2 :, rows // 2 :, columns // 3 : columns // 2] = 2
    engine = manifest()
    findings = Findings(
        labels=labels,
        segments=engine.segments,
        probabilities=tuple((labels == n).astype(np.float32) * np.float32(0.8) for n in (1, 2)),
    )
    return Result(
        job_id="0123456789abcdef",
        findings=findings,
        grid=Raster(shape=(frames, rows, columns)),
        source_paths=(path,),
        manifest=engine,
        route="pictures",
        stack="",
        started_at=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
    )
