"""Reads the Store Instances Response Module (PS3.18 I) of a STOW-RS answer, in JSON or XML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

_FAILED, _REFERENCED = "00081198", "00081199"
_INSTANCE, _WARNING, _FAILURE = "00081155", "00081196", "00081197"
_PROCESSING_FAILURE = 0x0110


def stored_and_failed(content: bytes, content_type: str) -> tuple[Mapping[str, int], Mapping[str, int]] | None:
    """Return the instances that the answer names.

    Returns
    -------
    tuple or None
        SOP Instance UIDs of ReferencedSOPSequence with their WarningReason (0 without), and those of
        FailedSOPSequence with their FailureReason; ``None`` when the answer is no such module. Only items count:
        Orthanc sends an empty FailedSOPSequence with every success.
    """
    try:
        module = _from_xml(content) if "xml" in content_type else _from_json(content)
        stored = {item[_INSTANCE]: int(item.get(_WARNING, 0)) for item in module.get(_REFERENCED, ())}
        failed = {
            item[_INSTANCE]: int(item.get(_FAILURE, _PROCESSING_FAILURE))
            for item in module.get(_FAILED, ())
            if _INSTANCE in item
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ElementTree.ParseError):
        return None
    return (stored, failed) if module else None


def _from_json(content: bytes) -> dict[str, list[dict[str, str]]]:
    document: Any = json.loads(content)
    if isinstance(document, list):
        document = document[0] if document else {}
    return {
        tag: [
            {inner: str(element["Value"][0]) for inner, element in item.items() if element.get("Value")}
            for item in document[tag].get("Value", ())
        ]
        for tag in (_REFERENCED, _FAILED)
        if tag in document
    }


def _from_xml(content: bytes) -> dict[str, list[dict[str, str]]]:
    # Of a configured peer; expat itself refuses the exponential expansion of entities
    root = ElementTree.fromstring(content)  # noqa: S314
    found: dict[str, list[dict[str, str]]] = {}
    for sequence in root.findall("{*}DicomAttribute"):
        tag = sequence.get("tag", "")
        if tag in (_REFERENCED, _FAILED):
            found[tag] = [
                {str(inner.get("tag")): inner.findtext("{*}Value", "") for inner in item}
                for item in sequence.findall("{*}Item")
            ]
    return found
