"""The OpenAPI document of the question side."""

from __future__ import annotations

from typing import Any

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


def document() -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
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
            "slices": {"type": "array", "items": {"type": "object"}},
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
    return {
        "openapi": "3.1.0",
        "info": {"title": "Voxgate predict", "version": "1"},
        "paths": {
            "/predict": {
                "post": {
                    "parameters": [
                        {"name": "async", "in": "query", "schema": {"type": "string", "enum": ["0", "1"]}}
                    ],
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _moved(request)}}},
                    "responses": responses,
                }
            },
            "/health": {"get": {"responses": {"200": _json("Healthy", {"type": "object"})}}},
            "/info": {"get": {"responses": {"200": _json("What is served", {"type": "object"})}}},
        },
        "components": {"schemas": _moved(definitions)},
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
