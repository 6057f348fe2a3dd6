"""Results on irregular phantoms as the pipeline makes them: found on the regular grid, brought back to the slices."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from factories import headers_of, save
from irregular import Phantom
from results import ball, lung, manifest

from domain.codes import LEFT, MILLILITRE, RIGHT, Code
from domain.findings import Findings, Measurement
from domain.ports import Analysed, Result
from domain.series import Resample, Stack
from domain.volume import Grid
from volume.geometry import geometry
from volume.onto_source import findings_on_source
from volume.resample import resampling_of

VOLUME = Code("118565006", "SCT", "Volume")
SMALL_MM = 5.0
"""Radius of a second ball, beside the phantom's own."""
ASIDE_MM = np.array([14.0, -18.0, 0.0])


def resampled_result(
    found: Phantom, folder: Path, *, allowed: tuple[Resample, ...] = tuple(Resample), probabilities: bool = False
) -> Result:
    """Return two balls, the phantom's and a small one; a stack that is regular is not resampled."""
    paths = {str(ds.SOPInstanceUID): path for ds, path in zip(found.series, save(found.series, folder), strict=True)}
    proven = geometry(Stack(name="", headers=tuple(headers_of(found.series))), allowed)
    plan = resampling_of(proven)
    grid = plan.regular if proven.resample else proven.grid
    findings = two_balls(grid, found, probabilities=probabilities)
    result = Result(
        job_id="0123456789abcdef",
        findings=findings,
        grid=proven.grid,
        source_paths=tuple(paths[header.sop_instance_uid] for header in proven.headers),
        manifest=manifest(),
        route="chest",
        stack="",
        started_at=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
    )
    if not proven.resample:
        return result
    here = findings_on_source(findings, plan)
    return replace(result, findings=here, analysed=Analysed(findings=findings, grid=plan.regular))


def two_balls(grid: Grid, found: Phantom, *, probabilities: bool) -> Findings:
    """Return both balls on a grid, measured there."""
    places = ((found.centre_mm, found.radius_mm), (found.centre_mm + ASIDE_MM, SMALL_MM))
    masks = tuple(ball(grid, centre, radius) for centre, radius in places)
    segments = (lung(LEFT), lung(RIGHT))
    numbers = tuple(
        Measurement(
            segment=segment.key,
            concept=VOLUME,
            value=int(mask.sum()) * grid.voxel_volume_ml,
            unit=MILLILITRE,
            label="Volume",
        )
        for segment, mask in zip(segments, masks, strict=True)
    )
    chances = tuple(_fading(grid, *place) for place in places) if probabilities else ()
    return Findings(labels=None, masks=masks, probabilities=chances, segments=segments, measurements=numbers)


def _fading(grid: Grid, centre_mm: npt.NDArray[np.float64], radius_mm: float) -> npt.NDArray[np.float32]:
    """Return a probability of one half at the outline."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    depth = radius_mm - np.linalg.norm(grid.to_lps(index) - centre_mm, axis=-1)
    chance: npt.NDArray[np.float32] = np.clip(0.5 + depth / 4, 0, 1).astype(np.float32)
    return chance
