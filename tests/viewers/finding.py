"""The engine ``finder``: a letter L cut out of what is bright, and a tile, which look different however turned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from domain.codes import MILLILITRE, MILLIMETRE, Code
from domain.engine import Case, EngineManifest
from domain.findings import Detection, Evaluation, Findings, Measurement
from domain.image import Raster
from domain.volume import Grid

VOLUME = Code("118565006", "SCT", "Volume")
DIAMETER = Code("81827009", "SCT", "Diameter")
AREA = Code("42798000", "SCT", "Area")
PIXELS = Code("{pixels}", "UCUM", "pixels")
MASS = Code("4147007", "SCT", "Mass")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
FINDING = Code("121071", "DCM", "Finding")
STEM, FOOT, TILE = (0.25, 0.30, 0.70, 0.40), (0.60, 0.30, 0.70, 0.62), (0.30, 0.55, 0.40, 0.65)
"""Top, left, bottom and right border as parts of an image: a letter L, and a tile in its angle."""


class Finder:
    """Puts its findings into the middle third of the slices; the upper half of these lacks the letter's foot."""

    def __init__(self, manifest: EngineManifest, settings: Mapping[str, object]) -> None:
        del settings
        self.manifest = manifest

    def load(self) -> None:
        """There are no weights."""

    def run(self, case: Case) -> Findings:
        if case.volume is not None:
            return self._of_volume(case.volume.voxels, case.volume.grid)
        image = case.images[0]
        grey = image.pixels.mean(axis=3) if image.is_colour else image.pixels
        return self._of_image(grey, image.raster)

    def _of_volume(self, voxels: npt.NDArray[np.generic], grid: Grid) -> Findings:
        labels, middle = labelled(voxels)
        place = grid.voxel_volume_ml * np.bincount(labels.ravel(), minlength=3)
        top, left, bottom, right = inside(STEM, labels.shape)
        ends = ((middle, float(top), (left + right - 1) / 2), (middle, bottom - 1.0, (left + right - 1) / 2))
        return Findings(
            labels=labels,
            segments=self.manifest.segments,
            measurements=(
                Measurement(segment="letter", concept=VOLUME, value=float(place[1]), unit=MILLILITRE, label="Volume"),
                Measurement(segment="tile", concept=VOLUME, value=float(place[2]), unit=MILLILITRE, label="Volume"),
                Measurement(
                    segment="letter",
                    concept=DIAMETER,
                    value=(bottom - 1 - top) * grid.spacing_mm[1],
                    unit=MILLIMETRE,
                    label="Stem",
                    points=ends,
                ),
            ),
            evaluations=(Evaluation(segment=None, concept=FINDING, value="A letter and a tile"),),
        )

    def _of_image(self, grey: npt.NDArray[np.generic], raster: Raster) -> Findings:
        labels, middle = labelled(grey)
        top, left, bottom, right = inside(TILE, labels.shape)
        sizes = np.bincount(labels.ravel(), minlength=3)
        box = Detection(
            key="box",
            label="Mass",
            category=ABNORMAL,
            type=MASS,
            box=(float(left), float(top), float(right), float(bottom)),
            image=middle if raster.shape[0] > 1 else 0,
            probability=0.873,
        )
        return Findings(
            labels=labels,
            segments=self.manifest.segments,
            measurements=(
                Measurement(segment="letter", concept=AREA, value=float(sizes[1]), unit=PIXELS, label="Area"),
            ),
            detections=(box,),
            narrative="There is a letter.\nNo other finding.",
            impression="A letter L.",
        )


def labelled(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.uint8], int]:
    """Return 1 for the letter, where it is bright, and 2 for the tile; and the slice in the middle of both."""
    bright = values > values.mean()
    slices = values.shape[0]
    first, last = slices // 3, max(2 * slices // 3, slices // 3 + 1)
    middle = (first + last - 1) // 2
    labels = np.zeros(values.shape, np.uint8)
    for shape, until in ((STEM, last), (FOOT, middle + 1)):
        top, left, bottom, right = inside(shape, values.shape)
        labels[first:until, top:bottom, left:right] = bright[first:until, top:bottom, left:right]
    top, left, bottom, right = inside(TILE, values.shape)
    labels[first:last, top:bottom, left:right] = 2
    return labels, middle


def inside(shape: tuple[float, float, float, float], of: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a part of an image in pixels."""
    _, rows, columns = of
    top, left, bottom, right = shape
    return round(top * rows), round(left * columns), round(bottom * rows), round(right * columns)
