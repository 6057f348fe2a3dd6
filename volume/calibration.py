"""Which distance between pixels measurements in an image may trust, and why none where there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from domain.image import Image, Raster, UltrasoundRegion

_TWO_DIMENSIONAL: Final = 1
"""RegionSpatialFormat (PS3.3 C.8.5.5.1.1)."""
_CENTIMETRE: Final = 3
"""PhysicalUnitsXDirection (PS3.3 C.8.5.5.1.15)."""

Extent = tuple[float, float, float, float]
"""x0, y0, x1, y1: columns and rows; 0 is the corner of the first pixel, as in ``domain.findings.Detection.box``."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Distance between rows, then between columns, in mm; or, where there is none, the reason."""

    spacing_mm: tuple[float, float] | None
    reason: str = ""


def plausible_spacing(image: Image, extent: Extent) -> Calibration:
    """Return by what an object within ``extent`` may be measured.

    It is the raster's own spacing where that is known; otherwise that of the calibrated regions around the whole
    object which are plausible (``region_fault``). Regions that contradict one another count as none.
    """
    if image.raster.spacing_mm is not None:
        return Calibration(image.raster.spacing_mm)
    if not image.regions:
        return Calibration(None, "the image has no calibration")
    around = [region for region in image.regions if _contains(region, extent)]
    if not around:
        return Calibration(None, "no calibrated region contains the whole object")
    found = {
        (region.delta_y * 10, region.delta_x * 10) for region in around if not region_fault(region, image.raster)
    }
    if not found:
        return Calibration(None, f"the calibrated region around the object {region_fault(around[0], image.raster)}")
    if len(found) > 1:
        return Calibration(None, "calibrated regions around the object contradict one another")
    return Calibration(found.pop())


def region_fault(region: UltrasoundRegion, raster: Raster) -> str:
    """Return why lengths cannot be measured in a region, to follow its name in a sentence; empty where they can."""
    _, rows, columns = raster.shape
    if not (0 <= region.x0 <= region.x1 < columns and 0 <= region.y0 <= region.y1 < rows):
        return "does not lie within the image"
    if region.spatial_format != _TWO_DIMENSIONAL:
        return "is not two-dimensional (RegionSpatialFormat)"
    if (region.units_x, region.units_y) != (_CENTIMETRE, _CENTIMETRE):
        return "is not in centimetres (PhysicalUnitsXDirection, PhysicalUnitsYDirection)"
    if not all(math.isfinite(delta) and delta > 0 for delta in (region.delta_x, region.delta_y)):
        return "has a PhysicalDeltaX or PhysicalDeltaY that is not positive"
    return ""


def _contains(region: UltrasoundRegion, extent: Extent) -> bool:
    x0, y0, x1, y1 = extent
    # The last pixel of a region is inside, up to its far edge.
    return region.x0 <= x0 and region.y0 <= y0 and x1 <= region.x1 + 1 and y1 <= region.y1 + 1
