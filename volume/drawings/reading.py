"""From the dataset of a received object to what is drawn in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from domain.errors import DrawingRefused, GatewayError
from domain.prompt import Drawing
from volume.drawings.items import image_refs, items, text
from volume.drawings.presentation import presentation_objects
from volume.drawings.report import report_objects
from volume.drawings.segmentation import segments, source_images
from volume.drawings.sketch import Sketch, SketchedObject
from volume.drawings.structure_set import structures

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_REPORTS = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage)
_READERS: dict[str, Callable[[Dataset], list[SketchedObject]]] = {
    **dict.fromkeys(_REPORTS, report_objects),
    GrayscaleSoftcopyPresentationStateStorage: presentation_objects,
    RTStructureSetStorage: structures,
    SegmentationStorage: segments,
    LABEL_MAP: segments,
}

_REFERENCES = (
    "ReferencedSOPSequence",
    "ReferencedImageSequence",
    "ReferencedInstanceSequence",
    "ContourImageSequence",
)

DRAWING_CLASSES: frozenset[str] = frozenset(_READERS)
"""SOP Classes in which people draw."""


def read_sketch(ds: Dataset) -> Sketch:
    """Return what is drawn in an object of one of ``DRAWING_CLASSES``.

    Raises
    ------
    DrawingRefused
        Nothing is drawn in it that can be a prompt, or it cannot be read.
    """
    uid = str(ds.get("SOPClassUID", ""))
    try:
        objects = _READERS[uid](ds)
        names = _names(ds)
        frames = frozenset(_frames_of_reference(ds))
    except GatewayError:
        raise
    except Exception as error:
        raise DrawingRefused(f"It cannot be read ({type(error).__name__}).") from None
    if not objects:
        raise DrawingRefused("Nothing is drawn in it: no point, axis, closed contour or mask.")
    shown = (shape.image.sop_instance_uid for item in objects for shape in item.shapes if shape.image)
    return Sketch(
        drawing=Drawing(
            sop_class_uid=uid, sop_instance_uid=text(ds, "SOPInstanceUID"),
            series_instance_uid=text(ds, "SeriesInstanceUID"),
        ),
        study_instance_uid=text(ds, "StudyInstanceUID"),
        objects=tuple(objects),
        images=frozenset(names.images).union(shown),
        series=tuple(dict.fromkeys(names.series)),
        frames_of_reference=frames,
        predecessors=frozenset(_predecessors(ds)),
        title=text(ds, "StructureSetLabel") or text(ds, "ContentLabel"),
        made_at=_made_at(ds),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Names:
    images: list[str]
    series: list[str]


def _names(ds: Dataset) -> _Names:
    """Return the images and the series that the object says it is about."""
    images = [ref.sop_instance_uid for ref in source_images(ds)]
    series = []
    for item in _series_items(ds):
        own = [ref.sop_instance_uid for keyword in _REFERENCES for ref in image_refs(items(item, keyword))]
        images += own
        series.append(text(item, "SeriesInstanceUID"))
    return _Names(images, [uid for uid in series if uid])


def _series_items(ds: Dataset) -> Iterator[Dataset]:
    for study in items(ds, "CurrentRequestedProcedureEvidenceSequence"):
        yield from items(study, "ReferencedSeriesSequence")
    yield from items(ds, "ReferencedSeriesSequence")
    for frame in items(ds, "ReferencedFrameOfReferenceSequence"):
        for study in items(frame, "RTReferencedStudySequence"):
            yield from items(study, "RTReferencedSeriesSequence")


def _frames_of_reference(ds: Dataset) -> Iterator[str]:
    found = [
        text(ds, "FrameOfReferenceUID"),
        *(text(item, "FrameOfReferenceUID") for item in items(ds, "ReferencedFrameOfReferenceSequence")),
        *(text(item, "ReferencedFrameOfReferenceUID") for item in items(ds, "StructureSetROISequence")),
        *_of_content(ds, 0),
    ]
    yield from (uid for uid in found if uid)


def _of_content(ds: Dataset, depth: int) -> Iterator[str]:
    for item in items(ds, "ContentSequence"):
        if item.get("ValueType") == "SCOORD3D":
            yield text(item, "ReferencedFrameOfReferenceUID")
        if depth < 32:
            yield from _of_content(item, depth + 1)


def _predecessors(ds: Dataset) -> Iterator[str]:
    for study in items(ds, "PredecessorDocumentsSequence"):
        for series in items(study, "ReferencedSeriesSequence"):
            yield from (ref.sop_instance_uid for ref in image_refs(items(series, "ReferencedSOPSequence")))


def _made_at(ds: Dataset) -> str:
    pairs = (
        ("StructureSetDate", "StructureSetTime"),
        ("PresentationCreationDate", "PresentationCreationTime"),
        ("ContentDate", "ContentTime"),
        ("InstanceCreationDate", "InstanceCreationTime"),
    )
    return next((text(ds, day) + text(ds, time) for day, time in pairs if text(ds, day)), "")
