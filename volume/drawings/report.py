"""SR documents (TID 1500): SCOORD, SCOORD3D and referenced segments of measurement groups."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pydicom import Dataset

from domain.codes import Code
from domain.volume import FloatArray
from volume.drawings.items import MOST_SHAPES, code, first, image_refs, is_called, items, number, numbers, text
from volume.drawings.sketch import ImageRef, Kind, SegmentRef, Shape, SketchedObject

MEASUREMENT_GROUP = ("125007", "DCM")
IMAGE_REGION = ("111030", "DCM")
REFERENCED_SEGMENT = ("121191", "DCM")
REFERENCED_FRAME = ("121214", "DCM")
TRACKING_IDENTIFIER = ("112039", "DCM")
TRACKING_UID = ("112040", "DCM")
FINDING = ("121071", "DCM")
FINDING_CATEGORY = ("276214006", "SCT")
_DEEPEST = 32
_SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})


def report_objects(ds: Dataset) -> list[SketchedObject]:
    """Return one object for each measurement group with a region, or for each container with one where none is."""
    groups = [item for item in _containers(ds) if is_called(item, MEASUREMENT_GROUP)]
    found = [_object(group) for group in groups or _containers(ds)]
    return [item for item in found if item.shapes or item.segment is not None]


def _containers(ds: Dataset, depth: int = 0) -> Iterator[Dataset]:
    yield ds
    if depth < _DEEPEST:
        for item in items(ds, "ContentSequence"):
            if item.get("ValueType") == "CONTAINER":
                yield from _containers(item, depth + 1)


def _object(group: Dataset) -> SketchedObject:
    children = list(items(group, "ContentSequence"))
    shapes = islice((shape for item in children for shape in _shapes(item)), MOST_SHAPES)
    finding = _coded(children, FINDING)
    identifier = _said(children, TRACKING_IDENTIFIER, "TextValue")
    return SketchedObject(
        shapes=tuple(shapes),
        segment=_segment(children),
        label=finding.meaning if finding else identifier,
        category=_coded(children, FINDING_CATEGORY),
        type=finding,
        tracking_identifier=identifier,
        tracking_uid=_said(children, TRACKING_UID, "UID"),
    )


def _coded(children: list[Dataset], name: tuple[str, str]) -> Code | None:
    return next((code(first(item, "ConceptCodeSequence")) for item in children if is_called(item, name)), None)


def _said(children: list[Dataset], name: tuple[str, str], keyword: str) -> str:
    return next((text(item, keyword) for item in children if is_called(item, name)), "")


def _segment(children: list[Dataset]) -> SegmentRef | None:
    for item in children:
        if is_called(item, REFERENCED_SEGMENT, REFERENCED_FRAME):
            reference = first(item, "ReferencedSOPSequence")
            segment = number(reference, "ReferencedSegmentNumber")
            uid = text(reference, "ReferencedSOPInstanceUID")
            if segment is not None and uid and reference.get("ReferencedSOPClassUID") in _SEGMENTATIONS:
                return SegmentRef(sop_instance_uid=uid, number=segment)
    return None


def _shapes(item: Dataset, depth: int = 0) -> Iterator[Shape]:
    """Yield the shapes in a child of a group: regions, and what measurements were taken from; no group inside."""
    kind = item.get("ValueType")
    if kind == "SCOORD":
        yield from _in_images(item)
    elif kind == "SCOORD3D":
        yield from _shaped(item, numbers(item, "GraphicData", 3), None)
    elif kind != "CONTAINER" and depth < _DEEPEST and not _is_angle(item):
        for child in items(item, "ContentSequence"):
            yield from _shapes(child, depth + 1)


def _is_angle(item: Dataset) -> bool:
    return "angle" in text(first(item, "ConceptNameCodeSequence"), "CodeMeaning").lower()


def _in_images(item: Dataset) -> Iterator[Shape]:
    for child in items(item, "ContentSequence"):
        if child.get("ValueType") == "IMAGE":
            for image in image_refs(items(child, "ReferencedSOPSequence")):
                yield from _shaped(item, numbers(item, "GraphicData", 2), image)


def _shaped(item: Dataset, points: FloatArray, image: ImageRef | None) -> Iterator[Shape]:
    graphic, count = text(item, "GraphicType"), len(points)
    if graphic in ("POINT", "MULTIPOINT"):
        yield from (Shape(kind=Kind.POINT, points=point[None].copy(), image=image) for point in points)
    elif graphic == "CIRCLE" and count == 2:
        yield Shape(kind=Kind.CIRCLE, points=points, image=image)
    elif graphic == "ELLIPSE" and count == 4:
        yield Shape(kind=Kind.ELLIPSE, points=points, image=image)
    elif graphic in ("POLYLINE", "POLYGON"):
        yield from line(points, image, closed=graphic == "POLYGON" or is_called(item, IMAGE_REGION))


def line(points: FloatArray, image: ImageRef | None, *, closed: bool = False) -> Iterator[Shape]:
    """Yield a line of two points as an axis, a closed one (or one that is meant to be) as an outline."""
    returns = len(points) > 2 and bool((points[0] == points[-1]).all())
    if len(points) == 2:
        yield Shape(kind=Kind.AXIS, points=points, image=image)
    elif (returns and len(points) > 3) or (closed and not returns and len(points) > 2):
        yield Shape(kind=Kind.OUTLINE, points=points, image=image)
