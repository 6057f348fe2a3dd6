"""Schemathesis sends what the served OpenAPI document allows, and what it forbids, and finds no fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import schemathesis
from http_fakes import ListedJobs, NotingIndex, ScriptedSink
from hypothesis import HealthCheck, given, settings
from questions import QuestionEngines, QuestionModel
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok

from gateway.http import HttpSettings, create_app
from inference.api import PredictService
from inference.predict_settings import PredictSettings

# What a schema cannot say (a task without a default prompt needs one, bytes must be an image) is answered 400 or 422.
UNSAYABLE = {"positive_data_acceptance"}
EXAMPLES = 120


def test_no_request_that_the_document_describes_breaks_the_service(tmp_path: Path) -> None:
    asking = PredictSettings(enabled=True, queue=1000, folder=tmp_path)
    app = create_app(
        ScriptedSink(),
        NotingIndex().as_index(),
        ListedJobs().as_log(),
        HttpSettings(),
        lambda: {"status": "ok"},
        predict=PredictService(QuestionEngines({"medversa": QuestionModel()}), asking),
    )
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    left_out: list[Any] = [CHECKS.get_one(name) for name in UNSAYABLE]
    statuses: set[int] = set()
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            response = case.call()
            statuses.add(response.status_code)
            case.validate_response(response, excluded_checks=left_out)

        ask()
    assert {operation.path for operation in operations} >= {"/predict", "/health", "/info"}
    assert statuses >= {200, 400}
