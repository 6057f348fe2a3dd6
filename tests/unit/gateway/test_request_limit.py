from __future__ import annotations

import pytest
from http_fakes import ListedJobs, NotingIndex, ScriptedSink
from werkzeug.test import Client

from gateway.http import HttpSettings, create_app
from inference.api import PredictService
from inference.predict_settings import PredictSettings
from inference.registry import Registry

HEADERS = {"Authorization": "Bearer t"}


def client(host: str, per_minute: int = 3) -> Client:
    settings = HttpSettings(host=host, token="t", questions_per_minute=per_minute)
    predict = PredictService(Registry({}), PredictSettings())
    app = create_app(
        ScriptedSink(),
        NotingIndex().as_index(),
        ListedJobs().as_log(),
        settings,
        lambda: {"status": "ok"},
        predict=predict,
    )
    return app.test_client()


def statuses(asking: Client, times: int, address: str = "192.0.2.1", path: str = "/predict") -> list[int]:
    return [
        asking.post(path, json={}, headers=HEADERS, environ_base={"REMOTE_ADDR": address}).status_code
        for _ in range(times)
    ]


@pytest.mark.parametrize("path", ["/predict", "/models/medsam2/predict"])
def test_a_client_that_asks_too_often_is_told_when_to_come_again_and_others_are_not(path: str) -> None:
    asking = client("0.0.0.0")
    assert statuses(asking, 4, path=path) == [400, 400, 400, 429]
    assert statuses(asking, 1, "192.0.2.2", path) == [400]
    refused = asking.post(path, json={}, headers=HEADERS, environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert refused.json is not None
    assert refused.json["error"] == "Too many requests"
    assert "3 requests" in refused.json["details"][0]
    assert 1 <= int(refused.headers["Retry-After"]) <= 61


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/api/v1/jobs"])
def test_only_questions_are_counted(path: str) -> None:
    asking = client("0.0.0.0", per_minute=1)
    assert [asking.get(path, headers=HEADERS).status_code for _ in range(3)] == [200] * 3


def test_on_loopback_nothing_is_counted() -> None:
    assert statuses(client("127.0.0.1", per_minute=1), 5) == [400] * 5
