"""The engine ``deepbet``: brings the head upright, asks the networks, and doubts their answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from domain.codes import MILLILITRE, Code
from domain.engine import Case, EngineManifest
from domain.errors import EngineFailed, EngineUnavailable, NotApplicable
from domain.findings import Evaluation, Findings, Measurement
from domain.volume import Volume
from inference.deepbet.network import THRESHOLD, BoolGrid, Box, FloatGrid, Networks, largest_piece, load_networks
from inference.device import Placement, fallback_of, fitted, placement
from inference.measures import VOLUME
from inference.weights import WeightsPackage
from volume.axes import Axes

T = TypeVar("T", bound=np.generic)

_PLACED = {"precision": "fp32"}
"""Others would be other networks: what is not certain of their answer was measured in this one."""

SERIES_QUALITY = Code("130550", "DCM", "Imaging Series Quality")
COVERAGE_INCOMPLETE = Code("130576", "DCM", "Anatomy coverage incomplete")
COMMENT = Code("121106", "DCM", "Comment")
CONTENTS = "Everything inside the skull: brain, ventricles and cerebrospinal fluid. Not the volume of the brain."
IMAGED_PART = "Incompletely imaged: no total volume is given."

LEAST_EXTENT_MM = 100.0
"""Of the volume along every axis: less of a head is not recognised reliably."""
VOLUME_ML = (800.0, 2200.0)
"""Of adults and children beyond the first year."""
LEAST_PART_ML = 500.0
LARGEST_MM = (180.0, 220.0, 175.0)
"""Width, length and height."""
UNCERTAIN = (0.05, 0.95)
THICKEST_BORDER_MM = 0.65
"""Mean thickness of what the fine network is not certain of (docs/engine-deepbet.md): below 0.6 on upright heads."""


class Deepbet:
    """The mask of the intracranial space and its volume; holds only the networks.

    Parameters
    ----------
    manifest
        With one segment.
    settings
        ``weights`` (a folder) and ``package`` come from the registry; ``device`` (default the CPU), ``threads``,
        ``vram_gb`` and ``cpu_fallback`` are the operator's.
    networks
        Default: read from the folder by ``load``.
    """

    def __init__(
        self, manifest: EngineManifest, settings: Mapping[str, object], networks: Networks | None = None
    ) -> None:
        self.manifest = manifest
        self._settings = settings
        self._networks = networks
        self._place = placement({**settings, **_PLACED, "device": "cpu"})

    def load(self) -> None:
        """Read both networks; other files than the pinned ones are refused.

        Raises
        ------
        EngineUnavailable
            The named device is not there.
        """
        try:
            self._place = placement({**self._settings, **_PLACED, "device": self._settings.get("device") or "cpu"})
        except EngineUnavailable as error:
            raise EngineUnavailable(f"engines.deepbet.device: {error}") from None
        self._networks = self._read(self._place)

    def _read(self, place: Placement) -> Networks:
        package, folder = cast(WeightsPackage, self._settings["package"]), cast(Path, self._settings["weights"])
        return load_networks(package, folder, place.device)

    def run(self, case: Case) -> Findings:
        """Return the intracranial space of a T1 MR of the head, whatever plane it was acquired in."""
        volume = case.the_volume()
        axes = Axes.of(volume.grid)
        _require_extent(volume)
        ras = _ras(axes, volume.voxels)
        image = np.nan_to_num(ras, copy=True).astype(np.float32, order="C", copy=False)
        answer = self._asked(image)
        if answer is None:
            raise NotApplicable("No head was found.")
        space = _judged(*answer, volume, axes)
        labels = np.zeros(volume.grid.shape, np.uint8)
        _ras(axes, labels)[space.box] = space.mask
        return self._findings(labels, space)

    def _asked(self, image: FloatGrid) -> tuple[FloatGrid, Box] | None:
        networks = self._networks
        if networks is None:
            raise EngineFailed("The engine has not been loaded.")

        def look(place: Placement, _: int) -> tuple[FloatGrid, Box] | None:
            return (networks if place is self._place else self._read(place)).probabilities(image)

        return fitted(look, self._place, batch=1, fallback=fallback_of({**self._settings, **_PLACED}, self._place))

    def _findings(self, labels: npt.NDArray[np.uint8], space: _Space) -> Findings:
        (segment,) = self.manifest.segments
        said = [Evaluation(segment=segment.key, concept=COMMENT, value=CONTENTS)]
        measured = []
        if space.complete:
            total = Measurement(
                segment=segment.key,
                concept=VOLUME,
                value=space.volume_ml,
                unit=MILLILITRE,
                label="Intracranial volume",
            )
            measured.append(total)
        else:
            said.append(Evaluation(segment=segment.key, concept=SERIES_QUALITY, value=COVERAGE_INCOMPLETE))
            said.append(Evaluation(segment=segment.key, concept=COMMENT, value=IMAGED_PART))
        return Findings(
            labels=labels, segments=(segment,), measurements=tuple(measured), evaluations=tuple(said)
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """What was found, in the RAS order of the source voxels."""

    mask: BoolGrid
    box: Box
    volume_ml: float
    complete: bool


def _ras(axes: Axes, array: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return ``array`` as (x, y, z), ascending to the patient's right, front and head; shares memory."""
    return axes.view(array).transpose(2, 1, 0)[::-1, ::-1]


def _require_extent(volume: Volume) -> None:
    extents = (length * step for length, step in zip(volume.grid.shape, volume.grid.spacing_mm, strict=True))
    if min(extents) < LEAST_EXTENT_MM:
        raise NotApplicable(f"The volume is thinner than {LEAST_EXTENT_MM:g} mm.")


def _judged(probabilities: FloatGrid, box: Box, volume: Volume, axes: Axes) -> _Space:
    """Return the mask of the probabilities, or refuse an answer that is none."""
    piece = largest_piece(probabilities > THRESHOLD)
    mask: BoolGrid = ndimage.binary_fill_holes(piece)  # type: ignore[attr-defined]
    voxel_ml = volume.grid.voxel_volume_ml
    volume_ml = float(np.count_nonzero(mask)) * voxel_ml
    if volume_ml < LEAST_PART_ML:
        raise NotApplicable("No head was found, or only a small part of it.")
    uncertain_ml = float(np.count_nonzero((probabilities > UNCERTAIN[0]) & (probabilities < UNCERTAIN[1]))) * voxel_ml
    if _border_mm(uncertain_ml, volume_ml) > THICKEST_BORDER_MM:
        raise NotApplicable(
            "The networks are not certain of their answer: this may be no T1 of a whole, upright head."
        )
    complete = not _touches(mask, box, axes.view(volume.voxels).shape[::-1])
    _require_plausible(mask, volume_ml, volume, axes, complete=complete)
    return _Space(mask, box, volume_ml, complete)


def _border_mm(uncertain_ml: float, volume_ml: float) -> float:
    """Return the thickness of the uncertain voxels if they lay around a ball of the mask's volume."""
    surface_cm2 = (36 * np.pi) ** (1 / 3) * volume_ml ** (2 / 3)
    return float(10 * uncertain_ml / surface_cm2)


def _touches(mask: BoolGrid, box: Box, shape: tuple[int, ...]) -> bool:
    """Tell whether the mask reaches a face of the volume."""
    return any(
        (part.start == 0 and bool(mask.take(0, axis).any()))
        or (part.stop == length and bool(mask.take(-1, axis).any()))
        for axis, (part, length) in enumerate(zip(box, shape, strict=True))
    )


def _require_plausible(mask: BoolGrid, volume_ml: float, volume: Volume, axes: Axes, *, complete: bool) -> None:
    """Refuse an answer that no patient has."""
    if volume_ml > VOLUME_ML[1] or (complete and volume_ml < VOLUME_ML[0]):
        raise NotApplicable(
            f"What was found is not between {VOLUME_ML[0]:g} and {VOLUME_ML[1]:g} ml, as the inside of a skull is."
        )
    spacing = [volume.grid.spacing_mm[axis] for axis in reversed(axes.order)]
    for axis, (step, largest) in enumerate(zip(spacing, LARGEST_MM, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if (used[-1] - used[0] + 1) * step > largest:
            raise NotApplicable("What was found is longer than the inside of any skull.")
