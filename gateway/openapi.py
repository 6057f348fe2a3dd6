"""The OpenAPI document: every resource of the HTTP port but DICOMweb, whose interface is PS3.18's."""

from __future__ import annotations

from typing import Any

from dicomweb.problems import MEDIA_TYPE
from domain.job import DeliveryState, JobState
from gateway.api import MOST_INSTANCES, MOST_JOBS
from inference.openapi import paths_and_schemas

UNDESCRIBED = ("/dicomweb/",)
"""What is not in the document: STOW-RS, whose bodies OpenAPI cannot describe; docs/conformance-stow-rs.md does."""
_UID = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)*)$", "maxLength": 64}
_UID_OR_NONE = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)*)?$", "maxLength": 64}
_TEXT, _NUMBER, _COUNT = {"type": "string"}, {"type": "number"}, {"type": "integer", "minimum": 0}
_MOMENT = {"type": ["string", "null"], "format": "date-time"}


def document(*, version: str, needs_token: bool) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    paths, schemas = paths_and_schemas()
    paths |= {
        "/health": {"get": _get("How the gateway is; needs no token", _ref("Health"), _answer(503, "Health"))},
        "/info": {"get": _get("What runs here, and under which licences", _ref("Info"))},
        "/openapi.json": {"get": _get("This document", {"type": "object"})},
        "/api/v1/jobs": {"get": _jobs()},
        "/api/v1/jobs/{job_id}": {
            "get": _get("One job", _ref("Job"), _problem(404)) | {"parameters": [_parameter("job_id", _TEXT, "path")]}
        },
        "/api/v1/series/{series}/expected-instances": {"put": _expected()},
    }
    components: dict[str, Any] = {"schemas": schemas | _schemas()}
    whole: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": "Voxgate", "version": version or "0"}}
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"token": []}]
        _ask_for_token(paths)
    return whole | {"paths": dict(sorted(paths.items())), "components": components}


def _jobs() -> dict[str, Any]:
    found = {"type": "object", "required": ["jobs"], "properties": {"jobs": {"type": "array", "items": _ref("Job")}}}
    number = {"type": "integer", "minimum": 1, "maximum": MOST_JOBS, "default": 100}
    states = {"type": "string", "enum": ["", *JobState]}
    return _get("Jobs, the newest first", found, _problem(400)) | {
        "parameters": [
            _parameter("series", _UID_OR_NONE),
            _parameter("study", _UID_OR_NONE),
            _parameter("state", states),
            _parameter("limit", number),
        ]
    }


def _expected() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 1, "maximum": MOST_INSTANCES}
    body = {"type": "object", "required": ["instances"], "properties": {"instances": count}}
    return {
        "summary": "Tell how many instances a series has, so that nobody waits for more",
        "parameters": [_parameter("series", _UID, "path")],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"204": {"description": "Noted"}, **_problem(400), **_problem(413), **_problem(503)},
    }


def _schemas() -> dict[str, Any]:
    result = _object(kind=_TEXT, sop_class_uid=_UID, sop_instance_uid=_UID, series_instance_uid=_UID)
    delivery = _object(
        destination=_TEXT, sop_instance_uid=_UID, state={"type": "string", "enum": [*DeliveryState]}, attempts=_COUNT,
        reason=_TEXT, updated_at=_MOMENT,
    )  # fmt: skip
    engine = _object(
        name=_TEXT, version=_TEXT, title=_TEXT, device=_TEXT, licence=_TEXT, intended_use=_TEXT
    )  # fmt: skip
    info = _object(product=_TEXT, version=_TEXT, engines={"type": "array", "items": _ref("Engine")}, name=_TEXT)
    return {
        "Job": _job(), "Result": result, "Delivery": delivery, "Engine": engine,
        "Health": {"type": "object", "required": ["status"], "properties": {"status": _TEXT}},
        "Info": info | {"additionalProperties": True},
        "Problem": _object(title=_TEXT, status=_COUNT, detail=_TEXT),
    }  # fmt: skip


def _job() -> dict[str, Any]:
    seconds = {"type": "object", "additionalProperties": _NUMBER}
    return _object(
        job_id=_TEXT, study_instance_uid=_UID, series_instance_uid=_UID, stack=_TEXT, instances=_COUNT,
        state={"type": "string", "enum": [*JobState]}, final={"type": "boolean"}, code=_TEXT, reason=_TEXT,
        route=_TEXT, engine=_TEXT, engine_version=_TEXT, generation=_COUNT, predecessor={"type": ["string", "null"]},
        priority={"type": "integer"}, attempt=_COUNT, destinations={"type": "array", "items": _TEXT},
        timings_s=seconds, summary={"type": "array", "items": {"type": "object"}},
        objects={"type": "array", "items": _ref("Result")},
        deliveries={"type": "array", "items": _ref("Delivery")}, created_at=_MOMENT, updated_at=_MOMENT,
    )  # fmt: skip


def _object(**properties: Any) -> dict[str, Any]:
    required = sorted(properties)
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _get(said: str, schema: dict[str, Any], *errors: dict[str, Any]) -> dict[str, Any]:
    responses = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    for error in errors:
        responses |= error
    return {"summary": said, "responses": responses}


def _answer(status: int, schema: str) -> dict[str, Any]:
    return {str(status): {"description": "Not well", "content": {"application/json": {"schema": _ref(schema)}}}}


def _problem(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": _ref("Problem")}}
    return {str(status): {"description": "A problem (RFC 9457)", "content": content}}


def _parameter(name: str, schema: dict[str, Any], place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _ask_for_token(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        for operation in operations.values():
            if path == "/health":
                operation["security"] = []
            else:
                operation["responses"] = operation["responses"] | _problem(401)
