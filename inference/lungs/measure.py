"""What is measured in each lung, and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domain.codes import HOUNSFIELD_UNIT, MILLILITRE, PERCENT, Code
from domain.context import StudyContext
from domain.findings import Evaluation, Measurement, SegmentDescription
from domain.volume import Volume
from inference.lungs.working import LabelGrid
from inference.measures import MEAN, VOLUME

EMPHYSEMA_BELOW_HU = -950

ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
# PS3.16 has no concept for %LAA-950 nor for the kernel's name; docs/engine-lungs.md explains the private ones.
LOW_ATTENUATION = Code("LAA950", "99VOXGATE", "Percentage of lung voxels below -950 HU")
KERNEL = Code("KERNEL", "99VOXGATE", "Convolution Kernel")
SLICE_THICKNESS = Code("112225", "DCM", "Slice Thickness")
SERIES_QUALITY = Code("130550", "DCM", "Imaging Series Quality")
COVERAGE_INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
FINDING = Code("121071", "DCM", "Finding")
NOT_VISUALIZED = Code("122288", "DCM", "Not visualized")
COMMENT = Code("121106", "DCM", "Comment")

IMAGED_PART = "Incompletely imaged: the values are of the imaged part, and no total volume is given."
NO_AIR = "No aerated lung was found on this side."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lung:
    """Numbers of one segment; ``hu`` values are ``nan`` where it is empty."""

    segment: SegmentDescription
    voxels: int
    volume_ml: float
    mean_hu: float
    sd_hu: float
    below_950_percent: float
    complete: bool
    """It reaches no face of the volume."""


def measure(volume: Volume, labels: LabelGrid, segments: tuple[SegmentDescription, ...]) -> tuple[Lung, ...]:
    """Return the numbers of each segment, in their order; every voxel of the mask counts, vessels included."""
    cut = {int(label) for axis in range(3) for end in (0, -1) for label in np.unique(labels.take(end, axis)) if label}
    inside = labels != 0
    values, owners = volume.voxels[inside].astype(np.float32), labels[inside]
    return tuple(
        _lung(segment, values[owners == number], volume.grid.voxel_volume_ml, complete=number not in cut)
        for number, segment in enumerate(segments, start=1)
    )


def _lung(segment: SegmentDescription, hu: npt.NDArray[np.float32], voxel_ml: float, *, complete: bool) -> Lung:
    empty = hu.size == 0
    return Lung(
        segment=segment,
        voxels=hu.size,
        volume_ml=hu.size * voxel_ml,
        mean_hu=float("nan") if empty else float(hu.mean(dtype=np.float64)),
        sd_hu=float("nan") if empty else float(hu.std(dtype=np.float64)),
        below_950_percent=float("nan") if empty else 100 * float((hu < EMPHYSEMA_BELOW_HU).mean()),
        complete=complete,
    )


def measurements(lung: Lung) -> list[Measurement]:
    """Return what goes into the report; a lung that the stack cuts has no total volume."""
    if lung.voxels == 0:
        return []
    key, part = lung.segment.key, "" if lung.complete else " (imaged part)"
    found = [
        Measurement(segment=key, concept=ATTENUATION, value=lung.mean_hu, unit=HOUNSFIELD_UNIT, derivation=MEAN,
                    label=f"Mean attenuation{part}"),
        Measurement(segment=key, concept=ATTENUATION, value=lung.sd_hu, unit=HOUNSFIELD_UNIT,
                    derivation=STANDARD_DEVIATION, label=f"Standard deviation{part}"),
        Measurement(segment=key, concept=LOW_ATTENUATION, value=lung.below_950_percent, unit=PERCENT,
                    label=f"%LAA-950{part}"),
    ]  # fmt: skip
    if lung.complete:
        total = Measurement(
            segment=key, concept=VOLUME, value=lung.volume_ml, unit=MILLILITRE, label="Volume"
        )  # fmt: skip
        found.insert(0, total)
    return found


def evaluations(lung: Lung, context: StudyContext) -> list[Evaluation]:
    """Return what qualifies the numbers: coverage, and what %LAA-950 depends on, kernel and slice thickness."""
    key = lung.segment.key
    if lung.voxels == 0:
        return [
            Evaluation(segment=key, concept=FINDING, value=NOT_VISUALIZED),
            Evaluation(segment=key, concept=COMMENT, value=NO_AIR),
        ]
    said = []
    if not lung.complete:
        said.append(Evaluation(segment=key, concept=SERIES_QUALITY, value=COVERAGE_INCOMPLETE))
        said.append(Evaluation(segment=key, concept=COMMENT, value=IMAGED_PART))
    kernel, thickness = context.convolution_kernel, context.slice_thickness_mm
    said.append(Evaluation(segment=key, concept=KERNEL, value=kernel or "unknown"))
    said.append(
        Evaluation(
            segment=key, concept=SLICE_THICKNESS, value="unknown" if thickness is None else f"{thickness:g} mm"
        )
    )
    return said
