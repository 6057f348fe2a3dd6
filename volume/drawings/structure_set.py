"""RT Structure Sets: contours in the patient, with or without the images that they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from volume.drawings.items import MOST_NUMBERS, code, first, items, number, numbers, text
from volume.drawings.report import line
from volume.drawings.sketch import Kind, Shape, SketchedObject

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


def structures(ds: Dataset) -> list[SketchedObject]:
    """Return one object for each ROI that has contours. Their images are not needed: the plane tells the slice."""
    named = {number(item, "ROINumber"): item for item in items(ds, "StructureSetROISequence")}
    observed = {number(item, "ReferencedROINumber"): item for item in items(ds, "RTROIObservationsSequence")}
    found, room = [], MOST_NUMBERS
    for roi in items(ds, "ROIContourSequence"):
        own = number(roi, "ReferencedROINumber")
        shapes = [shape for contour in items(roi, "ContourSequence") for shape in _shapes(contour)]
        room -= sum(shape.points.size for shape in shapes)
        if not shapes or room < 0:
            continue
        structure, observation = named.get(own, Dataset()), observed.get(own, Dataset())
        found.append(
            SketchedObject(
                shapes=tuple(shapes),
                number=own or 0,
                label=text(structure, "ROIName") or text(observation, "ROIObservationLabel"),
                category=code(first(observation, "SegmentedPropertyCategoryCodeSequence")),
                type=code(first(observation, "RTROIIdentificationCodeSequence")),
            )
        )
    return found


def _shapes(contour: Dataset) -> Iterator[Shape]:
    points, kind = numbers(contour, "ContourData", 3), text(contour, "ContourGeometricType")
    if kind == "POINT" and len(points) == 1:
        yield Shape(kind=Kind.POINT, points=points)
    elif kind in _CLOSED and len(points) > 2:
        yield Shape(kind=Kind.OUTLINE, points=points)
    elif kind == "OPEN_PLANAR":
        yield from line(points, None)
