"""SR content items (PS3.3 C.17.3) as datasets."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_out.codes import SOURCE_IMAGE
from dicom_out.derived import code_item
from domain.codes import Code

CONTAINS = "CONTAINS"
MODIFIES = "HAS CONCEPT MOD"
OBSERVES = "HAS OBS CONTEXT"
ACQUIRES = "HAS ACQ CONTEXT"


def _item(value_type: str, relationship: str | None, name: Code | None, children: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    if relationship is not None:
        item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = [code_item(name)]
    if children:
        item.ContentSequence = list(children)
    return item


def container(
    name: Code, children: Sequence[Dataset], *, relationship: str | None = CONTAINS, template: str | None = None
) -> Dataset:
    """Return a CONTAINER; ``template`` is the TID it follows."""
    item = _item("CONTAINER", relationship, name, children)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        item.ContentTemplateSequence = [Dataset()]
        item.ContentTemplateSequence[0].MappingResource = "DCMR"
        item.ContentTemplateSequence[0].TemplateIdentifier = template
    return item


def code(name: Code, value: Code, relationship: str = CONTAINS, children: Sequence[Dataset] = ()) -> Dataset:
    """Return a CODE."""
    item = _item("CODE", relationship, name, children)
    item.ConceptCodeSequence = [code_item(value)]
    return item


def text(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    """Return a TEXT."""
    item = _item("TEXT", relationship, name, ())
    item.TextValue = value
    return item


def uidref(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    """Return a UIDREF."""
    item = _item("UIDREF", relationship, name, ())
    item.UID = value
    return item


def num(name: Code, value: float, unit: Code, children: Sequence[Dataset] = ()) -> Dataset:
    """Return a NUM with the value as a decimal string, and exactly beside it (PS3.3 C.18.1)."""
    item = _item("NUM", CONTAINS, name, children)
    measured = Dataset()
    measured.NumericValue = format_number_as_ds(float(value))
    measured.FloatingPointValue = float(value)
    measured.MeasurementUnitsCodeSequence = [code_item(unit)]
    item.MeasuredValueSequence = [measured]
    return item


def image(
    name: Code | None,
    sop_class_uid: str,
    sop_instance_uid: str,
    *,
    segment: int | None = None,
    frame: int | None = None,
    relationship: str = CONTAINS,
) -> Dataset:
    """Return an IMAGE, or a segment or a frame of one."""
    item = _item("IMAGE", relationship, name, ())
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if segment is not None:
        reference.ReferencedSegmentNumber = segment
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    item.ReferencedSOPSequence = [reference]
    return item


def composite(name: Code, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return a COMPOSITE: a reference to an object that is no image."""
    item = _item("COMPOSITE", CONTAINS, name, ())
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    item.ReferencedSOPSequence = [reference]
    return item


def polyline(
    name: Code,
    points: Sequence[tuple[float, float]],
    sop_class_uid: str,
    sop_instance_uid: str,
    *,
    frame: int | None = None,
) -> Dataset:
    """Return an SCOORD on one image or frame: a line, or a single point.

    ``points`` are (column, row) from the corner of the first pixel (C.18.6.1.2).
    """
    selected = image(SOURCE_IMAGE, sop_class_uid, sop_instance_uid, frame=frame, relationship="SELECTED FROM")
    item = _item("SCOORD", CONTAINS, name, [selected])
    item.GraphicType = "POLYLINE" if len(points) > 1 else "POINT"
    item.GraphicData = [value for point in points for value in point]
    return item
