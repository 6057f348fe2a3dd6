"""The OpenAPI document: complete, and whole in itself."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from http_fakes import ListedJobs, NotingIndex, ScriptedSink

from domain.job import Delivery, DeliveryState, Job, JobState, ResultObject
from gateway.http import HttpSettings, create_app
from gateway.job_view import job_as_json
from gateway.openapi import UNDESCRIBED, document
from inference.api import PredictService
from inference.predict_settings import PredictSettings
from inference.registry import Registry

METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}


def _app(tmp_path: Path, token: str = "") -> Flask:
    asking = PredictSettings(enabled=True, folder=tmp_path)
    return create_app(
        ScriptedSink(),
        NotingIndex().as_index(),
        ListedJobs().as_log(),
        HttpSettings(token=token),
        lambda: {"status": "ok"},
        version="1.2",
        predict=PredictService(Registry({}), asking),
    )


def test_every_route_is_in_the_document_or_among_those_left_out(tmp_path: Path) -> None:
    app = _app(tmp_path)
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & METHODS
        if not rule.rule.startswith(UNDESCRIBED)
    }
    described: Any = app.test_client().get("/openapi.json").json
    assert {(path, m) for path, item in described["paths"].items() for m in item} == served
    assert any(rule.rule.startswith(UNDESCRIBED) for rule in app.url_map.iter_rules())


def test_references_lead_somewhere_and_what_is_there_is_referred_to() -> None:
    described = document(version="1", needs_token=False)
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert referred == described["components"]["schemas"].keys()


def test_a_job_has_what_the_document_says_and_nothing_else() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(
        job_id="a", study_instance_uid="1.2", series_instance_uid="1.3", stack="", sop_instance_uids=("1.4",),
        state=JobState.DONE, created_at=moment, updated_at=moment,
    )  # fmt: skip
    result = ResultObject(
        job_id="a", kind="SEG", sop_class_uid="1.2", sop_instance_uid="1.3", series_instance_uid="1.4", path=Path("x")
    )  # fmt: skip
    delivery = Delivery(job_id="a", destination="pacs", sop_instance_uid="1.3", state=DeliveryState.STORED)
    shown: dict[str, Any] = job_as_json(job, [delivery], [result])
    schemas = document(version="1", needs_token=False)["components"]["schemas"]
    assert shown.keys() == schemas["Job"]["properties"].keys()
    for name, part in (("Result", "objects"), ("Delivery", "deliveries")):
        (found,) = shown[part]
        assert found.keys() == schemas[name]["properties"].keys()


@pytest.mark.parametrize("token", ["", "secret"])
def test_the_token_is_described_where_one_is_asked_for(token: str, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    described: Any = _app(tmp_path, token).test_client().get("/openapi.json", headers=headers).json
    assert ("securitySchemes" in described["components"]) == bool(token)
    assert ("401" in described["paths"]["/predict"]["post"]["responses"]) == bool(token)
    assert "401" not in described["paths"]["/health"]["get"]["responses"]
