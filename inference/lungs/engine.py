"""The engine ``lungs``: refuses what is not a CT of a chest, segments, measures, and doubts its own answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from domain.engine import Case, EngineManifest
from domain.errors import NotApplicable
from domain.findings import Findings
from domain.volume import Volume
from inference.lungs.measure import Lung, evaluations, measure, measurements
from inference.lungs.segmentation import segment_lungs

COARSEST_MM = 12.5
LEAST_EXTENT_MM = 30.0
"""Along every axis: less shows no lung that could be told from bowel."""
LARGEST_LUNG_ML = 6000.0
"""Total lung capacity of a large man with emphysema is about 10 l."""
MEAN_HU = (-980.0, -350.0)
"""Mean of a lung: above the gas of a pneumothorax, below a consolidated one."""


class Lungs:
    """Deterministic; holds no state between cases.

    Parameters
    ----------
    manifest
        Its segments are left and right lung, in this order.
    settings
        Nothing can be set: one version gives one answer.
    """

    def __init__(self, manifest: EngineManifest, settings: Mapping[str, object]) -> None:
        del settings
        self.manifest = manifest

    def load(self) -> None:
        """There are no weights."""

    def run(self, case: Case) -> Findings:
        """Return left and right lung of a CT of the chest, or of the part of it that the stack holds.

        One lung alone is an answer (the other was removed, or holds no air): the other segment is then empty and said
        to be not visualized. A lung that a face of the volume cuts is qualified and has no total volume.
        """
        volume = case.the_volume()
        _require_ct(volume)
        labels = segment_lungs(volume)
        lungs = measure(volume, labels, self.manifest.segments)
        _require_plausible(lungs)
        return Findings(
            labels=labels,
            segments=self.manifest.segments,
            measurements=tuple(found for lung in lungs for found in measurements(lung)),
            evaluations=tuple(said for lung in lungs for said in evaluations(lung, case.context)),
        )


def _require_ct(volume: Volume) -> None:
    if volume.unit != "HU":
        raise NotApplicable("The values are not in Hounsfield units.")
    spacing = volume.grid.spacing_mm
    if max(spacing) > COARSEST_MM:
        raise NotApplicable(f"The voxels are larger than {COARSEST_MM:g} mm.")
    if min(length * step for length, step in zip(volume.grid.shape, spacing, strict=True)) < LEAST_EXTENT_MM:
        raise NotApplicable(f"The volume is thinner than {LEAST_EXTENT_MM:g} mm.")
    # A mislabelled MR series has neither air at -1000 nor, around it, water at 0.
    sample = volume.voxels[::2, ::4, ::4]
    air, soft = np.mean(sample < -850), np.mean((sample > -200) & (sample < 200))
    if air < 0.01 or soft < 0.01:
        raise NotApplicable("The values are not Hounsfield units of a body in air, whatever the header says.")


def _require_plausible(lungs: tuple[Lung, ...]) -> None:
    """Refuse an answer that no patient has."""
    for lung in lungs:
        if lung.volume_ml > LARGEST_LUNG_ML:
            raise NotApplicable("What was found is larger than any lung.")
        if lung.voxels and not MEAN_HU[0] < lung.mean_hu < MEAN_HU[1]:
            raise NotApplicable("What was found does not have the density of lung.")
