"""SR content items (PS3.3 C.17.3), and how they are written."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from pydicom.charset import convert_encodings, encode_string
from pydicom.valuerep import format_number_as_ds

from dicom_out.codes import SOURCE_IMAGE
from dicom_out.encoding import element, sequence, tag_of
from domain.codes import Code

CONTAINS = "CONTAINS"
MODIFIES = "HAS CONCEPT MOD"
OBSERVES = "HAS OBS CONTEXT"
ACQUIRES = "HAS ACQ CONTEXT"
_LONGEST_VALUE, _LONGEST_MEANING = 16, 64

Value: TypeAlias = "str | bytes | Code | Sequence[Mapping[str, Value]]"
"""Of an element: text, an encoded value, the one item of a code sequence, or the items of a sequence."""


@dataclass(frozen=True, slots=True)
class Item:
    """A content item: its elements by keyword, and what is below it.

    Reports have thousands of items, whose codes repeat: they are encoded here, as functional groups are.
    """

    value_type: str
    values: Mapping[str, Value]
    children: tuple[Item, ...] = ()

    def with_context(self, context: Sequence[Item]) -> Item:
        """Return the item with more below it, in front."""
        return replace(self, children=(*context, *self.children))


def _item(
    value_type: str,
    relationship: str | None,
    name: Code | None,
    children: Sequence[Item],
    values: Mapping[str, Value],
) -> Item:
    known: dict[str, Value] = {"ValueType": value_type}
    if relationship is not None:
        known["RelationshipType"] = relationship
    if name is not None:
        known["ConceptNameCodeSequence"] = name
    return Item(value_type, {**known, **values}, tuple(children))


def container(
    name: Code, children: Sequence[Item], *, relationship: str | None = CONTAINS, template: str | None = None
) -> Item:
    """Return a CONTAINER; ``template`` is the TID it follows."""
    values: dict[str, Value] = {"ContinuityOfContent": "SEPARATE"}
    if template is not None:
        values["ContentTemplateSequence"] = [{"MappingResource": "DCMR", "TemplateIdentifier": template}]
    return _item("CONTAINER", relationship, name, children, values)


def code(name: Code, value: Code, relationship: str = CONTAINS, children: Sequence[Item] = ()) -> Item:
    """Return a CODE."""
    return _item("CODE", relationship, name, children, {"ConceptCodeSequence": value})


def text(name: Code, value: str, relationship: str = CONTAINS) -> Item:
    """Return a TEXT."""
    return _item("TEXT", relationship, name, (), {"TextValue": value})


def uidref(name: Code, value: str, relationship: str = CONTAINS) -> Item:
    """Return a UIDREF."""
    return _item("UIDREF", relationship, name, (), {"UID": value})


def num(name: Code, value: float, unit: Code, children: Sequence[Item] = ()) -> Item:
    """Return a NUM with the value as a decimal string, and exactly beside it (PS3.3 C.18.1)."""
    measured: dict[str, Value] = {
        "NumericValue": format_number_as_ds(float(value)),
        "FloatingPointValue": struct.pack("<d", value),
        "MeasurementUnitsCodeSequence": unit,
    }
    return _item("NUM", CONTAINS, name, children, {"MeasuredValueSequence": [measured]})


def image(
    name: Code | None,
    sop_class_uid: str,
    sop_instance_uid: str,
    *,
    segment: int | None = None,
    frame: int | None = None,
    relationship: str = CONTAINS,
) -> Item:
    """Return an IMAGE, or a segment or a frame of one."""
    reference = _reference(sop_class_uid, sop_instance_uid)
    if segment is not None:
        reference["ReferencedSegmentNumber"] = struct.pack("<H", segment)
    if frame is not None:
        reference["ReferencedFrameNumber"] = str(frame)
    return _item("IMAGE", relationship, name, (), {"ReferencedSOPSequence": [reference]})


def composite(name: Code | None, sop_class_uid: str, sop_instance_uid: str) -> Item:
    """Return a COMPOSITE: a reference to an object that is no image."""
    reference = _reference(sop_class_uid, sop_instance_uid)
    return _item("COMPOSITE", CONTAINS, name, (), {"ReferencedSOPSequence": [reference]})


def _reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, Value]:
    return {"ReferencedSOPClassUID": sop_class_uid, "ReferencedSOPInstanceUID": sop_instance_uid}


def polyline(
    name: Code,
    points: Sequence[tuple[float, float]],
    sop_class_uid: str,
    sop_instance_uid: str,
    *,
    frame: int | None = None,
) -> Item:
    """Return an SCOORD on one image or frame: a line, or a single point.

    ``points`` are (column, row) from the corner of the first pixel (C.18.6.1.2).
    """
    selected = image(SOURCE_IMAGE, sop_class_uid, sop_instance_uid, frame=frame, relationship="SELECTED FROM")
    coordinates = [value for point in points for value in point]
    values: dict[str, Value] = {
        "GraphicType": "POLYLINE" if len(points) > 1 else "POINT",
        "GraphicData": struct.pack(f"<{len(coordinates)}f", *coordinates),
    }
    return _item("SCOORD", CONTAINS, name, [selected], values)


def encoded_content(root: Item, character_set: Sequence[str]) -> dict[int, bytes]:
    """Return the elements of a document's content as they are written, by tag."""
    return _Encoder(character_set).elements(root)


class _Encoder:
    """Writes content items in one character set; each different code once."""

    def __init__(self, character_set: Sequence[str]) -> None:
        self._encodings = convert_encodings(list(character_set))
        self._codes: dict[tuple[str, str, str, str], bytes] = {}

    def elements(self, item: Item) -> dict[int, bytes]:
        """Return the elements of an item, by tag."""
        found = self._elements(item.values)
        if item.children:
            below = [_joined(self.elements(child)) for child in item.children]
            found[tag_of("ContentSequence")] = sequence("ContentSequence", below)
        return found

    def _elements(self, values: Mapping[str, Value]) -> dict[int, bytes]:
        return {tag_of(keyword): self._element(keyword, value) for keyword, value in values.items()}

    def _element(self, keyword: str, value: Value) -> bytes:
        if isinstance(value, Code):
            return self._code(keyword, value)
        if isinstance(value, str):
            return element(keyword, value.encode() if value.isascii() else encode_string(value, self._encodings))
        if isinstance(value, bytes):
            return element(keyword, value)
        return sequence(keyword, [_joined(self._elements(item)) for item in value])

    def _code(self, keyword: str, code: Code) -> bytes:
        """Return a sequence of one code (PS3.3 Section 8); long values have an attribute of their own."""
        key = keyword, code.value, code.scheme, code.meaning
        if key not in self._codes:
            value = "CodeValue" if len(code.value) <= _LONGEST_VALUE else "LongCodeValue"
            meaning = code.meaning[:_LONGEST_MEANING]
            item: dict[str, Value] = {
                value: code.value,
                "CodingSchemeDesignator": code.scheme,
                "CodeMeaning": meaning,
            }
            self._codes[key] = self._element(keyword, [item])
        return self._codes[key]


def _joined(elements: Mapping[int, bytes]) -> bytes:
    return b"".join(elements[tag] for tag in sorted(elements))
