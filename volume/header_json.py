"""Headers as the index keeps them: JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from domain.instance import Header, Mosaic
from volume.functional_groups import frame_as_json, frame_from_json
from volume.header import TUPLES

_DEFAULTS = {field.name: field.default for field in fields(Header)}
_MOSAIC_NAMES = tuple(field.name for field in fields(Mosaic))


def header_to_json(header: Header) -> str:
    """Return a stable JSON text that leaves out what has its default value, and who the patient is."""
    said = {
        name: getattr(header, name)
        for name, default in _DEFAULTS.items()
        if getattr(header, name) != default and name != "patient"
    }
    if header.frames:
        said["frames"] = [frame_as_json(frame) for frame in header.frames]
    if header.mosaic is not None:
        said["mosaic"] = asdict(header.mosaic)
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def header_from_json(text: str) -> Header:
    """Return the header that ``header_to_json`` wrote; names of newer or older versions are passed over."""
    said: dict[str, Any] = json.loads(text)
    known: dict[str, Any] = {
        name: said[name] for name, default in _DEFAULTS.items() if name in said or default is MISSING
    }
    for name in TUPLES & known.keys():
        known[name] = tuple(known[name])
    known["frames"] = tuple(map(frame_from_json, known.get("frames", ())))
    if known.get("mosaic") is not None:
        known["mosaic"] = _mosaic_from_json(known["mosaic"])
    return Header(**known)


def _mosaic_from_json(said: Mapping[str, Any]) -> Mosaic:
    known = {name: said[name] for name in _MOSAIC_NAMES if name in said}
    for name in ("normal", "planned_extent_mm"):
        known[name] = None if known.get(name) is None else tuple(known[name])
    known["planned_mm"] = tuple(map(tuple, known.get("planned_mm", ())))
    return Mosaic(**known)
