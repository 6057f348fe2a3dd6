"""Softcopy presentation states (GSPS): graphic objects, in pixels of the image or relative to the displayed area."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from pydicom import Dataset

from domain.errors import DrawingRefused
from domain.volume import FloatArray
from volume.drawings.items import MOST_SHAPES, first, image_refs, items, number, numbers, text, triple
from volume.drawings.report import line
from volume.drawings.sketch import ImageRef, Kind, Shape, SketchedObject


def presentation_objects(ds: Dataset) -> list[SketchedObject]:
    """Return one object for each annotation that draws something."""
    found = []
    for annotation in items(ds, "GraphicAnnotationSequence"):
        images = _images(ds, annotation)
        drawn = (
            shape
            for graphic in items(annotation, "GraphicObjectSequence")
            for image in images
            for shape in _shapes(ds, graphic, image)
        )
        shapes = tuple(islice(drawn, MOST_SHAPES))
        if shapes:
            label = text(first(annotation, "TextObjectSequence"), "UnformattedTextValue")
            found.append(SketchedObject(shapes=shapes, label=label))
    return found


def _images(ds: Dataset, annotation: Dataset) -> list[ImageRef]:
    """Return what an annotation is on; without a reference on everything that the state is for (C.10.5)."""
    own = image_refs(items(annotation, "ReferencedImageSequence"))
    return own or [
        image
        for series in items(ds, "ReferencedSeriesSequence")
        for image in image_refs(items(series, "ReferencedImageSequence"))
    ]


def _shapes(ds: Dataset, graphic: Dataset, image: ImageRef) -> Iterator[Shape]:
    points = _in_pixels(ds, graphic, numbers(graphic, "GraphicData", 2), image)
    kind, count = text(graphic, "GraphicType"), len(points)
    if kind == "POINT" and count == 1:
        yield Shape(kind=Kind.POINT, points=points, image=image)
    elif kind == "CIRCLE" and count == 2:
        yield Shape(kind=Kind.CIRCLE, points=points, image=image)
    elif kind == "ELLIPSE" and count == 4:
        yield Shape(kind=Kind.ELLIPSE, points=points, image=image)
    elif kind in ("POLYLINE", "INTERPOLATED"):
        yield from line(points, image, closed=text(graphic, "GraphicFilled") == "Y")


def _in_pixels(ds: Dataset, graphic: Dataset, points: FloatArray, image: ImageRef) -> FloatArray:
    units = text(graphic, "GraphicAnnotationUnits")
    if units == "PIXEL":
        return points
    if units != "DISPLAY":
        raise DrawingRefused("GraphicAnnotationUnits is neither PIXEL nor DISPLAY.")
    corners = _displayed_area(ds, image)
    if corners is None:
        raise DrawingRefused(
            "It draws relative to the displayed area, and DisplayedAreaSelectionSequence is missing."
        )
    low, high = corners
    shares: FloatArray = _unturned(ds, points)
    return low + shares * (high - low)


def _displayed_area(ds: Dataset, image: ImageRef) -> tuple[FloatArray, FloatArray] | None:
    """Return the outer corners of the displayed area in the image (PS3.3 C.10.4: pixels are counted from 1)."""
    for area in items(ds, "DisplayedAreaSelectionSequence"):
        named = image_refs(items(area, "ReferencedImageSequence"))
        ends = [triple(area, f"DisplayedArea{end}HandCorner", 2) for end in ("TopLeft", "BottomRight")]
        if named and not any(_is_same(item, image) for item in named):
            continue
        if ends[0] is not None and ends[1] is not None:
            both = np.array(ends)
            return both.min(axis=0) - 1, both.max(axis=0)
    return None


def _is_same(one: ImageRef, other: ImageRef) -> bool:
    return one.sop_instance_uid == other.sop_instance_uid and one.frame in (None, other.frame)


def _unturned(ds: Dataset, points: FloatArray) -> FloatArray:
    """Return shares of the displayed area as shares of the image, before rotation and flip (C.10.6)."""
    u, v = points[:, 0], points[:, 1]
    if text(ds, "ImageHorizontalFlip") == "Y":  # done after the rotation
        u = 1 - u
    turned = {0: (u, v), 90: (v, 1 - u), 180: (1 - u, 1 - v), 270: (1 - v, u)}
    rotation = number(ds, "ImageRotation") or 0
    if rotation not in turned:
        raise DrawingRefused("ImageRotation is not 0, 90, 180 or 270.")
    return np.column_stack(turned[rotation])
