"""Results to look at: phantoms that are alike no way round, on volumes, radiographs, photographs and cine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from factories import ct_series, ct_slice, save
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
)
from results import ANATOMY, manifest, result_of

from dicom_out.profile import Choice, Profile
from dicom_out.writer import Writer
from domain.codes import MILLILITRE, MILLIMETRE, Code
from domain.engine import EngineManifest
from domain.findings import Detection, Evaluation, Findings, Measurement, SegmentDescription
from domain.image import Raster
from domain.job import ResultObject
from domain.ports import Result

MASS = Code("4147007", "SCT", "Mass")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = SegmentDescription(
    key="nodule", label="Nodule", category=ABNORMAL, type=Code("27925004", "SCT", "Nodule"), colour_rgb=(255, 80, 80)
)
LIVER = SegmentDescription(
    key="liver", label="Liver", category=ANATOMY, type=Code("10200004", "SCT", "Liver"), colour_rgb=(90, 200, 120)
)
VOLUME = Code("118565006", "SCT", "Volume")
DIAMETER = Code("81827009", "SCT", "Diameter")
Written = tuple[Result, tuple[ResultObject, ...]]


def engine(*segments: SegmentDescription, **changes: object) -> EngineManifest:
    """Return the manifest of a model that finds what it is told to."""
    about = {"name": "finder", "title": "Findings of a phantom", "segments": segments, "finding_site": None}
    return manifest(**(about | {"licence": "MIT", "intended_use": "Tests only; not a medical device."} | changes))


def phantom(rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Return values from 0 to 1 that differ from themselves turned or mirrored."""
    y, x = np.mgrid[:rows, :columns] / np.array([rows, columns]).reshape(2, 1, 1)
    body = ((x - 0.5) / 0.45) ** 2 + ((y - 0.5) / 0.48) ** 2 < 1
    values = np.where(body, 0.35 + 0.25 * x + 0.15 * y, 0.0)
    values[((x - 0.7) / 0.15) ** 2 + ((y - 0.3) / 0.1) ** 2 < 1] = 0.95
    return values


def volume_result(folder: Path, **changes: object) -> Result:
    """Return a result with a liver and a nodule on 12 slices of an anisotropic CT, one measured with callipers."""
    values = phantom(60, 72) * 400 - 150
    series = ct_series(voxels=np.stack([values + k for k in range(12)]).astype(np.int16))
    labels = np.zeros((12, 60, 72), np.uint8)
    labels[2:10, 12:40, 10:38] = 1
    labels[7:9, 44:50, 50:57] = 2
    measurements = (
        Measurement(segment="liver", concept=VOLUME, value=8.7808, unit=MILLILITRE, label="Volume"),
        Measurement(
            segment="nodule",
            concept=DIAMETER,
            value=7.0312,
            unit=MILLIMETRE,
            label="Long axis",
            points=((8, 44.0, 50.0), (8, 49.0, 56.0)),
        ),
    )
    statements = (Evaluation(segment=None, concept=Code("121071", "DCM", "Finding"), value="Phantom; nobody is ill"),)
    findings = Findings(labels=labels, segments=(LIVER, NODULE), measurements=measurements, evaluations=statements)
    return replace(result_of(series, folder, findings=findings, engine=engine(LIVER, NODULE)), **changes)  # type: ignore[arg-type]


def _image(pixels: npt.NDArray[np.generic], sop_class_uid: str, modality: str) -> Dataset:
    """Return an instance without patient coordinates."""
    ds = ct_slice(number=1)
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "PositionReferenceIndicator",
        "SliceThickness", "RescaleIntercept", "RescaleSlope", "RescaleType", "PixelSpacing", "KVP",
        "ConvolutionKernel", "PatientPosition",
    ):  # fmt: skip
        delattr(ds, keyword)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    ds.Modality, ds.ImageType = modality, ["ORIGINAL", "PRIMARY"]
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.PixelRepresentation = 0
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    if pixels.dtype == np.uint8:
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds["PixelData"].VR = "OB"
    return ds


def radiograph(*, inverted: bool = False, voi_lut: bool = False) -> Dataset:
    """Return a CR image of 12 bits, 90 x 70, with a window or a VOI LUT."""
    values = (phantom(90, 70) * 4000).astype(np.uint16)
    ds = _image(4095 - values if inverted else values, ComputedRadiographyImageStorage, "CR")
    ds.BitsStored, ds.HighBit = 12, 11
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.ImagerPixelSpacing = ["0.2", "0.2"]
    ds.PatientOrientation = ["L", "F"]
    ds.ViewPosition = "AP"
    if voi_lut:
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 12])
        table.add_new("LUTData", "US", list(range(4096)))
        ds.VOILUTSequence = [table]
    else:
        ds.WindowCenter, ds.WindowWidth = "2000", "4000"
    return ds


def photograph() -> Dataset:
    """Return a photograph of 80 x 100 in RGB."""
    grey = phantom(80, 100)
    rgb = (np.stack([0.3 + 0.7 * grey, 0.6 * grey, 0.5 * grey], axis=2) * 250).astype(np.uint8)
    ds = _image(rgb, VLPhotographicImageStorage, "XC")
    _make_rgb(ds)
    return ds


def _make_rgb(ds: Dataset) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.LossyImageCompression = "00"


def cine(frames: int = 5) -> Dataset:
    """Return a US cine in RGB, 60 x 80."""
    grey = np.stack([np.roll(phantom(60, 80), 2 * k, axis=1) for k in range(frames)])
    rgb = (np.repeat(grey[..., None], 3, axis=3) * 250).astype(np.uint8)
    ds = _image(rgb[0], UltrasoundMultiFrameImageStorage, "US")
    _make_rgb(ds)
    ds.NumberOfFrames = frames
    ds.FrameTime, ds.FrameIncrementPointer = "40", 0x00181063
    ds.PixelData = rgb.tobytes()
    return ds


def image_result(
    images: Sequence[Dataset], folder: Path, findings: Findings, *, spacing_mm: tuple[float, float] | None = None
) -> Result:
    """Save images and return a result on them."""
    first = images[0]
    origin = "ImagerPixelSpacing" if spacing_mm and "ImagerPixelSpacing" in first else "PixelSpacing"
    shape = (int(first.get("NumberOfFrames", 1)), int(first.Rows), int(first.Columns))
    return Result(
        job_id="fedcba9876543210",
        findings=findings,
        grid=Raster(shape=shape, spacing_mm=spacing_mm, spacing_origin=origin if spacing_mm else ""),
        source_paths=tuple(save(images, folder)),
        manifest=engine(*findings.segments),
        route="images",
        stack="",
        started_at=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
    )


def box_on(
    image: int = 0, box: tuple[float, float, float, float] = (20, 30, 45.5, 61.25), key: str = "m1"
) -> Detection:
    """Return a detection with a probability."""
    return Detection(key=key, label="Mass", category=ABNORMAL, type=MASS, box=box, image=image, probability=0.873)


def blob(shape: tuple[int, int, int], frame: int = 0) -> npt.NDArray[np.uint8]:
    """Return labels with a ring, i.e. a mask with a hole, on one frame."""
    labels = np.zeros(shape, np.uint8)
    y, x = np.mgrid[: shape[1], : shape[2]]
    distance = np.hypot(y - shape[1] * 0.45, x - shape[2] * 0.6)
    labels[frame][(distance < shape[1] * 0.25) & (distance > shape[1] * 0.08)] = 1
    return labels


def radiograph_result(folder: Path, *, inverted: bool = False, voi_lut: bool = False) -> Result:
    """Return boxes and a text of findings on a radiograph."""
    findings = Findings(
        labels=None,
        detections=(box_on(), box_on(box=(50, 10, 66, 30), key="m2")),
        narrative="There is a mass (12 mm).\nNo effusion.",
        impression="Mass; compare with earlier images.",
    )
    return image_result([radiograph(inverted=inverted, voi_lut=voi_lut)], folder, findings, spacing_mm=(0.2, 0.2))


def photograph_result(folder: Path) -> Result:
    """Return a ring and its area in pixels on a photograph."""
    area = Measurement(
        segment="nodule",
        concept=Code("42798000", "SCT", "Area"),
        value=1021.0,
        unit=Code("{pixels}", "UCUM", "pixels"),
    )
    findings = Findings(labels=blob((1, 80, 100)), segments=(NODULE,), measurements=(area,))
    return image_result([photograph()], folder, findings)


def cine_result(folder: Path) -> Result:
    """Return a ring on the third frame of a cine, and a box on the fifth."""
    findings = Findings(labels=blob((5, 60, 80), frame=2), segments=(NODULE,), detections=(box_on(4),))
    return image_result([cine()], folder, findings)


def written(result: Result, folder: Path, *roles: Choice) -> Written:
    """Write a result's objects of some roles."""
    return result, writer(*roles).write(result, folder)


def writer(*roles: Choice) -> Writer:
    """Return a writer of objects of some roles."""
    return Writer(default=Profile(name="test", objects=roles))
