"""Schemathesis sends what the served OpenAPI document allows, and what it forbids, and finds no fault."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
import schemathesis
from http_fakes import ListedJobs, NotingIndex, ScriptedSink
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from questions import QuestionEngines, QuestionModel
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from domain.job import Job, JobState
from gateway.http import HttpSettings, create_app
from gateway.openapi import document
from inference.api import PredictService
from inference.predict_settings import PredictSettings

# What a schema cannot say (a task without a default prompt needs one, bytes must be an image) is answered 400 or 422.
UNSAYABLE = {"positive_data_acceptance"}
EXAMPLES = 60
JOB = Job(
    job_id="a", study_instance_uid="1.2", series_instance_uid="1.3", stack="", sop_instance_uids=("1.4",),
    state=JobState.DONE, timings_s={"engine": 1.5}, summary=[{"label": "Liver"}],
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_that_the_document_describes_or_forbids_breaks_the_service(
    mode: GenerationMode, tmp_path: Path
) -> None:
    asking = PredictSettings(enabled=True, queue=1000, folder=tmp_path)
    app = create_app(
        ScriptedSink(),
        NotingIndex().as_index(),
        ListedJobs([JOB]).as_log(),
        HttpSettings(),
        lambda: {"status": "ok"},
        predict=PredictService(QuestionEngines({"medversa": QuestionModel()}), asking),
    )
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    left_out: list[Any] = [CHECKS.get_one(name) for name in UNSAYABLE]
    statuses: set[int] = set()
    asked: set[str] = set()
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            response = case.call()
            asked.add(case.operation.path)
            statuses.add(response.status_code)
            case.validate_response(response, excluded_checks=left_out)

        with contextlib.suppress(Unsatisfiable, SkipTest):  # nothing that it could be sent is forbidden
            ask()
    described = document(version="1", needs_token=False)["paths"].keys()
    assert asked >= (
        described - {"/openapi.json"} if mode is GenerationMode.POSITIVE else {"/predict", "/api/v1/jobs"}
    )
    assert statuses >= ({200, 400, 404} if mode is GenerationMode.POSITIVE else {400})
