"""Real sources of every kind with findings in known places: what a viewer is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from viewers.finding import labelled

from dicom_out.profile import Options, Profile
from domain.job import JobState
from gateway.config import load_config
from gateway.offline import analyse
from gateway.sections import RouteSection
from inference.registry import Registry

FINDER = Path(__file__).parent
LABEL_MAP = Profile(name="label map", objects=("SEG",), options=Options(segmentation="labelmap"))
DOCUMENTS = Profile(name="documents", objects=("SC", "PDF"))
SOURCES = {
    "oblique MR": "mr/brain_FLAIR_ax_Philips_BRAINIX_22sl.tar.xz",
    "compressed CT": "ct/abdomen_Siemens_J2K_20sl_TotalSeg",
    "enhanced MR": "enhanced/BRTUM004",
    "PET": "pet/PET_wholebody_QIN-HEADNECK-0024_299sl.tar.xz",
    "radiograph": "xr/dx_image.dcm",
    "mammogram": "mg/MG_GE_GH133.dcm",
    "cine": "us/IM00001.implicit_little_endian.dcm",
    "photograph": "derm/VL1.dcm",
    "Japanese name": "charset/chrH31.dcm",
    "Arabic name": "charset/chrArab.dcm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A source with its results in one folder, as a viewer gets it."""

    name: str
    folder: Path
    study_instance_uid: str = field(repr=False)
    images: tuple[tuple[str, int], ...] = field(repr=False)
    """SOP instance UID and frame (from 1) of each slice, in the order of the findings."""
    labels: npt.NDArray[np.uint8] = field(repr=False)
    planes: tuple[npt.NDArray[np.float64], ...] = field(repr=False)
    """Of each slice the place of the first pixel, and the steps from column to column and from row to row, in mm."""
    middle: int
    patient_name: str = field(repr=False)

    def image(self, k: int) -> str:
        """Return how a DICOMweb address of a slice ends."""
        uid, frame = self.images[k]
        return f"/instances/{uid}/frames/{frame}"

    def places(self, k: int, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return where (column, row) of a slice are in the patient; 0 is the centre of the first pixel."""
        first, across, down = self.planes[k]
        at = np.asarray(points, float)
        places: npt.NDArray[np.float64] = first + at[:, :1] * across + at[:, 1:] * down
        return places

    def series(self, modality: str) -> list[str]:
        """Return the series of results of a modality."""
        headers = [dcmread(path, stop_before_pixels=True) for path in sorted(self.folder.glob("results*/**/*.dcm"))]
        return list(dict.fromkeys(str(ds.SeriesInstanceUID) for ds in headers if ds.Modality == modality))


def scene(
    name: str, source: Path, unpacked: Callable[[str], Path], folder: Path, profiles: Sequence[Profile]
) -> Scene:
    """Analyse a source as ``voxgate run`` does, and put it beside the results for each profile."""
    path = source / SOURCES[name]
    if path.name.endswith(".tar.xz"):
        path = unpacked(SOURCES[name].removesuffix(".tar.xz"))
    files = _whole(path, folder / "source")
    config = load_config(None, {}).model_copy(update={"routes": (RouteSection(name="look", engine="finder"),)})
    registry = Registry({}, folder=FINDER)
    for number, profile in enumerate(profiles):
        done = analyse(files, folder / f"results {number}", config=config, profile=profile, registry=registry)
        refused = [report.reason for report in done.series if report.state is not JobState.DONE]
        if refused or not done.series:
            raise RuntimeError(f"{name}: {refused or done.files}")
    return _described(name, folder, files)


def _whole(path: Path, folder: Path) -> list[Path]:
    """Copy instances with what the data left empty: identifiers of the abdomen, pixels of the names' examples."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    copies = []
    for number, file in enumerate(sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]):
        ds = dcmread(file)
        if not ds.get("SOPInstanceUID"):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
            ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
            ds.PatientID, ds.PatientName = "EMPTY", "Empty^Abdomen"
        ds.pop("VOILUTFunction", None)  # OHIF 3.13 shows no image with SIGMOID
        if "PixelData" not in ds:
            ds.PixelData = np.arange(ds.Rows * ds.Columns * ds.BitsAllocated // 8, dtype=np.uint8).tobytes()
            ds["PixelData"].VR = "OW"
        copies.append(folder / f"{number:04}.dcm")
        ds.save_as(copies[-1], enforce_file_format=True)
    return copies


def _described(name: str, folder: Path, files: Sequence[Path]) -> Scene:
    """Read the source once more, by pydicom alone, and tell what must be seen where."""
    series = [dcmread(file) for file in files]
    first = series[0]
    planes: list[npt.NDArray[np.float64]] = []
    if len(series) > 1:
        planes = [_plane(ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing) for ds in series]
        order = _along(planes)
        series, planes = [series[k] for k in order], [planes[k] for k in order]
        values = np.stack([_values(ds) for ds in series])
        images = [(str(ds.SOPInstanceUID), 1) for ds in series]
    else:
        frames = int(first.get("NumberOfFrames") or 1)
        values = _values(first).reshape((frames, first.Rows, first.Columns, -1)).mean(axis=3)
        planes = _planes_of_frames(first)
        order = _along(planes) if planes else list(range(frames))
        values, planes = values[order], [planes[k] for k in order if planes]
        images = [(str(first.SOPInstanceUID), k + 1) for k in order]
    labels, middle = labelled(values)
    return Scene(
        name=name,
        folder=folder,
        study_instance_uid=str(first.StudyInstanceUID),
        images=tuple(images),
        labels=labels,
        planes=tuple(planes),
        middle=middle,
        patient_name=str(first.get("PatientName", "")),
    )


def _values(ds: Dataset) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = ds.pixel_array * float(ds.get("RescaleSlope") or 1) + float(
        ds.get("RescaleIntercept") or 0
    )
    return values


def _plane(position: Sequence[float], cosines: Sequence[float], spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    place, along = np.array(position, float), np.array(cosines, float)
    return np.stack([place, along[:3] * float(spacing[1]), along[3:] * float(spacing[0])])


def _planes_of_frames(ds: Dataset) -> list[npt.NDArray[np.float64]]:
    """Return the planes of an enhanced instance's frames; none of what has no place in the patient."""
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return []
    shared = ds.SharedFunctionalGroupsSequence[0]
    return [
        _plane(
            group.PlanePositionSequence[0].ImagePositionPatient,
            _either(group, shared, "PlaneOrientationSequence").ImageOrientationPatient,
            _either(group, shared, "PixelMeasuresSequence").PixelSpacing,
        )
        for group in ds.PerFrameFunctionalGroupsSequence
    ]


def _either(group: Dataset, shared: Dataset, keyword: str) -> Dataset:
    item: Dataset = (group if keyword in group else shared)[keyword].value[0]
    return item


def _along(planes: Sequence[npt.NDArray[np.float64]]) -> list[int]:
    """Return the order of planes along their normal."""
    normal = np.cross(planes[0][1], planes[0][2])
    return [int(k) for k in np.argsort([normal @ plane[0] for plane in planes])]
