"""The shape of the chest phantom: which voxel is what, in Hounsfield units.

Positions are LPS millimetres around a point in the mediastinum. The shapes are ellipses, ellipsoids and capsules, so
that what an engine should find is known: it is counted on the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatGrid = npt.NDArray[np.float32]
BoolGrid = npt.NDArray[np.bool_]
Point = tuple[float, float, float]

OUTSIDE_HU, FAT_HU, MUSCLE_HU, SKIN_HU, BLOOD_HU = -1000.0, -100.0, 50.0, 20.0, 45.0
BONE_HU, MARROW_HU, COUCH_HU, GAS_HU, FOAM_HU = 600.0, 180.0, 150.0, -1000.0, -985.0
LUNG_HU = -850.0
LUNG_HU_PER_MM = 0.3
"""Lung grows denser towards the back, where it lies below."""

TRUNK_MM = (170.0, 115.0)
INNER_CHEST = 0.82
"""Radius of the chest's inside as part of the trunk's."""
LUNG_BASE_MM, LUNG_TOP_MM = -100.0, 110.0
LUNG_MIDDLE_MM = 78.0
"""From the mid-sagittal plane to the middle of a lung."""
LUNG_MM = (75.0, 90.0)
MEDIASTINUM_MM = 5.0
"""Half the least distance between the lungs."""
COUCH_MM = (120.0, 158.0)
"""Upper and lower surface."""
CARINA: Point = (0.0, 8.0, 35.0)
HILA: dict[str, Point] = {"left": (48.0, 12.0, 8.0), "right": (-46.0, 12.0, 8.0)}
TRACHEA_MM = 9.0
BRONCHUS_MM = 6.5
WALL_MM = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Chest:
    """Voxels without noise, and the truth.

    Attributes
    ----------
    hu
        Shape ``(slices, rows, columns)``.
    left, right
        Lungs with the vessels inside them, without bronchi.
    """

    hu: FloatGrid
    left: BoolGrid
    right: BoolGrid


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Voxel centres along each axis in mm, shaped so that they broadcast to the grid."""

    z: FloatGrid
    y: FloatGrid
    x: FloatGrid

    def ellipsoid(self, centre: Point, radii: Point) -> BoolGrid:
        """Return the voxels inside an ellipsoid; centre and radii are (x, y, z)."""
        squares = [
            np.square((axis - middle) / radius)
            for axis, middle, radius in zip((self.x, self.y, self.z), centre, radii, strict=True)
        ]
        inside: BoolGrid = squares[0] + squares[1] + squares[2] < 1
        return inside

    def box(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """Return the indices between two corners (x, y, z)."""
        z, y, x = (
            slice(int(np.searchsorted(axis.ravel(), first)), int(np.searchsorted(axis.ravel(), last, "right")))
            for axis, first, last in zip((self.z, self.y, self.x), low[::-1], high[::-1], strict=True)
        )
        return z, y, x

    def part(self, place: tuple[slice, slice, slice]) -> Coordinates:
        """Return the coordinates of a box of indices."""
        z, y, x = place
        return Coordinates(self.z[z], self.y[:, y], self.x[:, :, x])


def chest(at: Coordinates, random: np.random.Generator) -> Chest:
    """Return a chest: trunk, ribs, spine, heart, liver, stomach gas, lungs with vessels, airways and couch."""
    shape = (at.z.shape[0], at.y.shape[1], at.x.shape[2])
    hu = np.full(shape, OUTSIDE_HU, np.float32)
    _paint_trunk(hu, at)
    _paint_spine(hu, at)
    organs = _organs(at)
    lungs = {side: _lung(at, side) & ~organs for side in HILA}
    for side, lung in lungs.items():
        hu[lung] = np.broadcast_to(LUNG_HU + LUNG_HU_PER_MM * at.y, shape)[lung]
        _paint_vessels(hu, at, lung, side, random)
    hu[at.ellipsoid((70, -45, -118), (30, 22, 16))] = GAS_HU
    airways = _paint_airways(hu, at)
    _paint_couch(hu, at)
    return Chest(hu=hu, left=lungs["left"] & ~airways, right=lungs["right"] & ~airways)


def _trunk_radius(at: Coordinates) -> FloatGrid:
    """Return the distance from the axis as part of the trunk's radius, which is the same in every slice."""
    radius: FloatGrid = np.hypot(at.x / TRUNK_MM[0], at.y / TRUNK_MM[1])
    return radius


def _paint_trunk(hu: FloatGrid, at: Coordinates) -> None:
    radius = _trunk_radius(at)[0]
    layers = np.select(
        [radius < 0.9, radius < 0.985, radius < 1], [MUSCLE_HU, FAT_HU, SKIN_HU], OUTSIDE_HU
    )  # fmt: skip
    hu[:] = layers
    ribs = np.abs(radius - 0.86) < 0.025
    descending = at.z + 0.35 * at.y
    hu[(np.mod(descending, 28) < 10) & ribs & (np.abs(at.z) < LUNG_TOP_MM)] = BONE_HU / 2


def _paint_spine(hu: FloatGrid, at: Coordinates) -> None:
    body = np.hypot(at.x / 19, (at.y - 70) / 15)[0]
    canal = np.hypot(at.x, at.y - 92)[0]
    process = (np.abs(at.x) < 5)[0] & (np.abs(at.y - 104) < 5)[0]
    hu[:, canal < 11] = BONE_HU
    hu[:, canal < 8] = MUSCLE_HU
    hu[:, process] = BONE_HU
    hu[:, body < 1] = BONE_HU
    hu[:, body < 0.85] = MARROW_HU


def _organs(at: Coordinates) -> BoolGrid:
    """Return what the lungs leave free: heart, diaphragm domes, great vessels, vertebral bodies."""
    heart = at.ellipsoid((22, -22, -45), (52, 42, 62))
    domes = at.ellipsoid((-80, 0, -130), (80, 95, 75)) | at.ellipsoid((80, 0, -135), (75, 95, 70))
    aorta = np.hypot(at.x - 20, at.y - 42) < 15
    spine = np.hypot(at.x / 24, (at.y - 70) / 20) < 1
    return heart | domes | aorta | spine


def _lung(at: Coordinates, side: str) -> BoolGrid:
    """Return one lung: an ellipse in every slice, inside the chest, narrowing and nearing the middle at the apex."""
    sign = 1 if side == "left" else -1
    height = np.clip((at.z - LUNG_BASE_MM) / (LUNG_TOP_MM - LUNG_BASE_MM), 0, 1)
    narrowing = np.sqrt(1 - height**3)
    middle = LUNG_MIDDLE_MM - 22 * height**2
    across = (sign * at.x - middle) / (LUNG_MM[0] * narrowing + 1e-3)
    inside = np.hypot(across, at.y / (LUNG_MM[1] * narrowing + 1e-3)) < 1
    lung: BoolGrid = inside & (_trunk_radius(at) < INNER_CHEST) & (sign * at.x > MEDIASTINUM_MM)
    return lung & (at.z > LUNG_BASE_MM)


def _paint_vessels(hu: FloatGrid, at: Coordinates, lung: BoolGrid, side: str, random: np.random.Generator) -> None:
    """Paint arteries and veins from the hilum outwards, inside the lung only."""
    sign = 1 if side == "left" else -1
    for _ in range(36):
        tip = (sign * random.uniform(45, 125), random.uniform(-70, 70), random.uniform(-80, 85))
        place, inside = _capsule(at, HILA[side], tip, random.uniform(1.5, 3.0))
        hu[place][inside & lung[place]] = BLOOD_HU


def _paint_airways(hu: FloatGrid, at: Coordinates) -> BoolGrid:
    """Paint trachea and main bronchi; return them with their walls."""
    top = (0.0, CARINA[1], float(at.z.max()) + 10)
    tubes = [(top, CARINA, TRACHEA_MM), *((CARINA, hilum, BRONCHUS_MM) for hilum in HILA.values())]
    airways = np.zeros(hu.shape, bool)
    for widening, value in ((WALL_MM, MUSCLE_HU), (0.0, GAS_HU)):
        for start, end, radius in tubes:
            place, inside = _capsule(at, start, end, radius + widening)
            hu[place][inside] = value
            airways[place] |= inside
    return airways


def _paint_couch(hu: FloatGrid, at: Coordinates) -> None:
    """Paint a hollow couch under the patient: a shell around foam."""
    top, bottom = COUCH_MM
    couch = (at.y > top) & (at.y < bottom) & (np.abs(at.x) < 195)
    foam = (at.y > top + 4) & (at.y < bottom - 4) & (np.abs(at.x) < 191)
    hu[:, couch[0]] = COUCH_HU
    hu[:, foam[0]] = FOAM_HU


def _capsule(at: Coordinates, start: Point, end: Point, radius: float) -> tuple[tuple[slice, slice, slice], BoolGrid]:
    """Return the box around a rounded rod and the voxels of the box that are inside the rod."""
    low = tuple(min(a, b) - radius for a, b in zip(start, end, strict=True))
    high = tuple(max(a, b) + radius for a, b in zip(start, end, strict=True))
    place = at.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    near = at.part(place)
    axis = np.subtract(end, start).astype(np.float32)
    offset = (near.x - start[0], near.y - start[1], near.z - start[2])
    along = np.clip(sum(o * a for o, a in zip(offset, axis, strict=True)) / float(axis @ axis), 0, 1)
    square = sum(np.square(o - along * a) for o, a in zip(offset, axis, strict=True))
    return place, square < radius**2
