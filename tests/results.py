"""Results to encode: findings with a known answer on synthetic or real series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from factories import ct_series, save
from pydicom.dataset import Dataset

from domain.codes import HOUNSFIELD_UNIT, LEFT, MILLILITRE, PERCENT, RIGHT, Code
from domain.engine import EngineManifest
from domain.findings import Evaluation, Findings, Measurement, SegmentDescription
from domain.job import ResultObject
from domain.ports import Result
from domain.volume import Grid

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
LUNG = Code("39607008", "SCT", "Lung")
VOLUME = Code("118565006", "SCT", "Volume")
MEAN = Code("373098007", "SCT", "Mean")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
EMPHYSEMA = Code("LAA950", "99VOXGATE", "Lung volume below -950 HU")
INCOMPLETE = Code("LUNGCUT", "99VOXGATE", "Completeness of the imaged lung")
INCOMPLETELY = Code("INCOMPL", "99VOXGATE", "Incompletely imaged")


def lung(side: Code) -> SegmentDescription:
    """Return the description of one lung."""
    name = side.meaning.lower()
    return SegmentDescription(
        key=f"{name}_lung",
        label=f"{side.meaning} lung",
        category=ANATOMY,
        type=LUNG,
        type_modifiers=(side,),
        anatomic_region=LUNG,
        colour_rgb=(224, 120, 90) if side == LEFT else (90, 150, 224),
    )


def manifest(**changes: object) -> EngineManifest:
    """Return the manifest of an engine for both lungs."""
    values: dict[str, object] = {
        "name": "lungs",
        "version": "1.0.0",
        "title": "Lungs in CT",
        "device": "cpu",
        "algorithm_name": "lungs",
        "algorithm_family": Code("123109", "DCM", "Manual Processing"),
        "manufacturer": "Voxgate",
        "licence": "Apache-2.0",
        "intended_use": "test",
        "segments": (lung(LEFT), lung(RIGHT)),
        "finding_site": LUNG,
    }
    return EngineManifest(**(values | changes))  # type: ignore[arg-type]


def grid_of(series: Sequence[Dataset]) -> tuple[Grid, list[int]]:
    """Return the grid of a regular series, and the order of its instances along the normal."""
    cosines = np.array([float(x) for x in series[0].ImageOrientationPatient])
    row, column = cosines[:3], cosines[3:]
    positions = np.array([[float(x) for x in ds.ImagePositionPatient] for ds in series])
    order = np.argsort(positions @ np.cross(row, column)).tolist()
    first, last = positions[order[0]], positions[order[-1]]
    spacing = [float(x) for x in series[0].PixelSpacing]
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / max(len(series) - 1, 1)
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = column * spacing[0], row * spacing[1], first
    shape = (len(series), int(series[0].Rows), int(series[0].Columns))
    return Grid(shape=shape, affine=affine, frame_of_reference_uid=str(series[0].FrameOfReferenceUID)), order


def ball(grid: Grid, centre_mm: npt.ArrayLike, radius_mm: float) -> npt.NDArray[np.bool_]:
    """Return the voxels whose centre is in a ball, in patient coordinates."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid.to_lps(index) - np.asarray(centre_mm, float), axis=-1)
    inside: npt.NDArray[np.bool_] = distance <= radius_mm
    return inside


def measured(labels: npt.NDArray[np.uint8], grid: Grid, segments: Sequence[SegmentDescription]) -> Findings:
    """Return findings with volume, mean and %LAA of every segment and a statement about the first."""
    numbers = []
    for index, segment in enumerate(segments, start=1):
        volume = float(np.count_nonzero(labels == index)) * grid.voxel_volume_ml
        numbers += [
            Measurement(segment=segment.key, concept=VOLUME, value=volume, unit=MILLILITRE, label="Volume"),
            Measurement(
                segment=segment.key,
                concept=ATTENUATION,
                value=-812.3456789012345,
                unit=HOUNSFIELD_UNIT,
                derivation=MEAN,
            ),
            Measurement(segment=segment.key, concept=EMPHYSEMA, value=1 / 3, unit=PERCENT),
        ]
    said = (
        Evaluation(segment=segments[0].key, concept=INCOMPLETE, value=INCOMPLETELY),
        Evaluation(segment=None, concept=Code("KERNEL", "99VOXGATE", "Convolution kernel"), value="B30f"),
    )
    return Findings(labels=labels, segments=tuple(segments), measurements=tuple(numbers), evaluations=said)


def result_of(
    series: Sequence[Dataset],
    folder: Path,
    labels: npt.NDArray[np.uint8] | None = None,
    *,
    findings: Findings | None = None,
    job_id: str = "0123456789abcdef",
    predecessors: tuple[ResultObject, ...] = (),
    engine: EngineManifest | None = None,
) -> Result:
    """Save a series and return a result on it; ``labels`` lie on ``grid_of(series)``."""
    grid, order = grid_of(series)
    paths = save(series, folder)
    engine = engine or manifest()
    if findings is None:
        if labels is None:
            raise ValueError("labels or findings")
        findings = measured(labels, grid, engine.segments)
    return Result(
        job_id=job_id,
        findings=findings,
        grid=grid,
        source_paths=tuple(paths[index] for index in order),
        manifest=engine,
        route="chest",
        stack="",
        started_at=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
        predecessors=predecessors,
    )


def many_segments(folder: Path, count: int) -> Result:
    """Return a result on an oblique series with up to 240 segments of four voxels each, measured."""
    series = ct_series(voxels=np.zeros((9, 24, 40), np.int16), orientation=(0.8, 0.6, 0, -0.6, 0.8, 0))
    labels = np.zeros((9, 24, 40), np.uint8)
    for number in range(1, count + 1):
        row, column = divmod(number - 1, 20)
        labels[number % 9, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = number
    segments = (replace(lung(LEFT if n % 2 else RIGHT), key=f"part_{n}", label=f"Part {n}") for n in range(count))
    return result_of(series, folder, labels, engine=manifest(segments=tuple(segments)))
