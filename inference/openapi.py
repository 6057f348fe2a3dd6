"""The question side's part of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inference.medsam2_request import medsam2_schema
from inference.predict_request import schema

_ERRORS = {
    400: "Invalid; every fault is listed in details",
    413: "Too large",
    415: "Unsupported format",
    422: "Not decodable, or nothing that the model can look at",
    429: "Too many requests of one client; see Retry-After",
    500: "Unexpected fault, with its number in the log",
    503: "No model, or busy; see Retry-After",
}
_SLICE = {
    "type": "object",
    "description": "The source of an entry of segmentation_3d: an instance, and its frame from 1.",
    "required": ["sop_instance_uid", "frame"],
    "properties": {"sop_instance_uid": {"type": "string"}, "frame": {"type": "integer", "minimum": 1}},
}


def paths_and_schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return paths and the schemas that they refer to (OpenAPI 3.1)."""
    request = schema()
    definitions = request.pop("$defs", {})
    error = {
        "type": "object",
        "required": ["error", "details"],
        "properties": {"error": {"type": "string"}, "details": {"type": "array", "items": {"type": "string"}}},
    }
    masks = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Base64 of numpy.save of (rows, columns) uint8, 0 or 1, on the grid of what was sent.",
    }
    answer = {
        "type": "object",
        "required": ["text", "processing_time", "context_used", "engine"],
        "properties": {
            "text": {"type": "string"},
            "processing_time": {"type": "number", "description": "Seconds."},
            "context_used": {"type": "string"},
            "engine": {"type": "string"},
            "segmentation_2d": masks,
            "segmentation_3d": masks,
            "segmentation_mask": masks,
            "is_3d": {"type": "boolean"},
            "boxes": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "number"}},
                "description": "x1, y1, x2, y2 in pixels of the first image.",
            },
            "slices": {"type": "array", "items": _SLICE},
        },
    }
    accepted = {
        "type": "object",
        "required": ["job_id", "state", "url"],
        "properties": {name: {"type": "string"} for name in ("job_id", "state", "url")},
    }
    responses: dict[str, Any] = {
        "200": {**_json("The answer", answer), "content": {**_json("", answer)["content"], "application/zip": {}}},
        "202": _json("With ?async=1: kept, and answered later", accepted),
    }
    responses |= {str(status): _json(said, error) for status, said in _ERRORS.items()}
    paths = {
        "/predict": {
            "post": {
                "parameters": [{"name": "async", "in": "query", "schema": {"type": "string", "enum": ["0", "1"]}}],
                "requestBody": {"required": True, "content": {"application/json": {"schema": _moved(request)}}},
                "responses": responses,
            }
        },
        "/models/medsam2/predict": {"post": _medsam2(definitions)},
        **_later(answer, error),
    }
    return paths, _moved(definitions)


def _later(answer: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    """Return the resources of a question that is answered later."""
    elsewhere = {
        "type": "object",
        "required": ["url", "content_type"],
        "properties": {"url": {"type": "string"}, "content_type": {"type": "string"}},
    }
    state = {
        "type": "object",
        "required": ["job_id", "state"],
        "properties": {
            "job_id": {"type": "string"},
            "state": {"type": "string", "enum": ["queued", "running", "done", "failed"]},
            "answer": {"anyOf": [answer, elsewhere]},
            "fault": error,
        },
    }
    unknown = {"404": _json("There is no such question", error)}
    key = {"name": "key", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
    file = {"description": "The results", "content": {"application/zip": {}}}
    about: dict[str, Any] = {"parameters": [key]}
    return {
        "/api/v1/jobs/predict-{key}": {
            "get": about | {"responses": {"200": _json("How far it is, and the answer", state), **unknown}},
            "delete": about | {"responses": {"204": {"description": "Withdrawn, or forgotten"}, **unknown}},
        },
        "/api/v1/jobs/predict-{key}/result": {"get": about | {"responses": {"200": file, **unknown}}},
    }


def _medsam2(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the operation of MedSAM2's model card; its definitions join the others."""
    request = medsam2_schema()
    definitions.update(request.pop("$defs", {}))
    numbers = {"type": "array", "items": {"type": "number"}}
    metadata = {
        "type": "object",
        "properties": {
            "shape": {**numbers, "description": "x, y, z"},
            "key_slice_index": {"type": "integer"},
            "adjusted_key_slice_index": {"type": "integer", "description": "key_slice_idx less slice_offset"},
            "bbox": numbers,
            "dicom_window": numbers,
            "spacing": {**numbers, "description": "x, y, z in mm, as SimpleITK reads it"},
            "origin": {**numbers, "description": "x, y, z in mm, LPS, as SimpleITK reads it"},
        },
    }
    one = {
        "type": "object",
        "required": ["mask", "metadata"],
        "properties": {"mask": {"type": "array", "description": "z, y, x of 0 and 1"}, "metadata": metadata},
    }
    error = {
        "type": "object",
        "required": ["error", "status", "details"],
        "properties": {
            "error": {"type": "string"},
            "status": {"type": "integer"},
            "details": {"type": "array", "items": {"type": "string"}},
        },
    }
    ok = _json(
        "One image: an object; several: a list",
        {"anyOf": [one, {"type": "array", "items": one}]},
    )
    ok["content"] |= {
        "application/x-npy": {"schema": {"description": "The mask by numpy.save; uint8, z, y, x; one image only"}},
        "application/gzip": {"schema": {"description": "The mask as NIfTI, gzipped, in place; one image only"}},
    }
    ok["headers"] = {"X-Voxgate-Metadata": {"schema": {"type": "string"}, "description": "JSON beside a binary mask"}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _moved(request)}}},
        "responses": {"200": ok} | {str(status): _json(said, error) for status, said in _ERRORS.items()},
    }


def _json(said: str, schema: Any) -> dict[str, Any]:
    return {"description": said, "content": {"application/json": {"schema": schema}}}


def _moved(schema: Any) -> Any:
    """Return a schema whose references point to where its definitions stand here."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(value)
            for key, value in schema.items()
        }
    return [_moved(item) for item in schema] if isinstance(schema, list) else schema
