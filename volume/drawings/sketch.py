"""A drawing as it was received: shapes of objects, each on an image or in the patient, not on any grid yet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from domain.codes import Code
from domain.prompt import Drawing
from domain.volume import FloatArray


class Kind(StrEnum):
    """How the points of a shape are to be read."""

    POINT = "point"
    AXIS = "axis"
    """Two ends of a line across the object."""
    OUTLINE = "outline"
    """Vertices of a closed polygon."""
    CIRCLE = "circle"
    """Centre, then a point of the circumference."""
    ELLIPSE = "ellipse"
    """Ends of one axis, then of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image, or one frame of it."""

    sop_instance_uid: str = field(repr=False)
    frame: int | None = None
    """From 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """One thing that was drawn.

    Attributes
    ----------
    points
        On an image: shape ``(n, 2)``, column and row, where 0\\0 is the *corner* of the first pixel and 0.5\\0.5 its
        centre (PS3.3 C.18.6.1.2, C.10.5.1.2). In the patient: shape ``(n, 3)``, LPS in mm.
    image
        ``None``: in the patient.
    """

    kind: Kind
    points: FloatArray = field(repr=False)
    image: ImageRef | None = None

    def __post_init__(self) -> None:
        self.points.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Where the pixels of a mask lie; LPS in mm, the position is the centre of the first pixel."""

    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing_mm: tuple[float, float]
    """Between rows, then between columns."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """The largest slice of a segment; on its own plane, or on that of the image it was made from."""

    pixels: npt.NDArray[np.bool_] = field(repr=False)
    plane: Plane | None
    image: ImageRef | None

    def __post_init__(self) -> None:
        self.pixels.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """A segment of a segmentation that a report refers to."""

    sop_instance_uid: str = field(repr=False)
    number: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchedObject:
    """Everything that was drawn for one object."""

    shapes: tuple[Shape, ...] = ()
    mask: Mask | None = None
    segment: SegmentRef | None = None
    number: int = 0
    """Segment or ROI number, where it has one."""
    label: str = field(default="", repr=False)
    category: Code | None = None
    type: Code | None = None
    tracking_identifier: str = field(default="", repr=False)
    tracking_uid: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """A received object in which somebody drew."""

    drawing: Drawing
    study_instance_uid: str = field(repr=False)
    objects: tuple[SketchedObject, ...]
    images: frozenset[str] = field(default=frozenset(), repr=False)
    """SOP Instance UIDs of all images it names."""
    series: tuple[str, ...] = field(default=(), repr=False)
    """Series that it names."""
    frames_of_reference: frozenset[str] = field(default=frozenset(), repr=False)
    """In which the shapes in the patient lie."""
    predecessors: frozenset[str] = field(default=frozenset(), repr=False)
    """SOP Instance UIDs of documents that it replaces."""
    title: str = field(default="", repr=False)
    """Label of the whole."""
    made_at: str = field(default="", repr=False)
    """Date and time, to be compared as text."""

    @property
    def segments(self) -> tuple[SegmentRef, ...]:
        """Segments elsewhere that stand for objects without a shape of their own."""
        return tuple(item.segment for item in self.objects if item.segment is not None and not item.shapes)

    def with_segments(self, others: tuple[Sketch, ...]) -> Sketch:
        """Return the sketch with the masks of the segmentations that it refers to."""
        known = {(other.drawing.sop_instance_uid, item.number): item for other in others for item in other.objects}
        objects = tuple(
            item
            if item.segment is None or item.shapes
            else _with_mask(item, known.get((item.segment.sop_instance_uid, item.segment.number)))
            for item in self.objects
        )
        images = self.images.union(*(other.images for other in others))
        frames = self.frames_of_reference.union(*(other.frames_of_reference for other in others))
        return replace(self, objects=objects, images=images, frames_of_reference=frames)

    def replaces(self, other: Sketch) -> bool:
        """Tell whether this is an edited version of ``other``.

        It names it as its predecessor, or tracks one of its objects, or is of the same kind, title and object names
        (of a structure set anywhere, of anything else in the same series).
        """
        if other.drawing.sop_instance_uid in self.predecessors:
            return True
        tracked = {item.tracking_uid for item in self.objects} - {""}
        if tracked & {item.tracking_uid for item in other.objects}:
            return True
        names = sorted(item.label for item in self.objects)
        one, two = self.drawing, other.drawing
        same_place = one.series_instance_uid == two.series_instance_uid or self._is_structure_set
        return (
            all(names)
            and same_place
            and one.sop_class_uid == two.sop_class_uid
            and self.title == other.title
            and names == sorted(item.label for item in other.objects)
            and bool(self.images & other.images or set(self.series) & set(other.series))
        )

    @property
    def _is_structure_set(self) -> bool:
        return self.drawing.sop_class_uid == "1.2.840.10008.5.1.4.1.1.481.3"


def _with_mask(item: SketchedObject, segment: SketchedObject | None) -> SketchedObject:
    if segment is None:
        return item
    return replace(
        item,
        mask=segment.mask,
        label=item.label or segment.label,
        category=item.category or segment.category,
        type=item.type or segment.type,
    )
