from __future__ import annotations

import pytest

from gateway.config import Config, load_config
from gateway.wiring import http_processes


def config(**environ: str) -> Config:
    return load_config(environ={f"VOXGATE_{name}": value for name, value in environ.items()})


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 2), (16, 4)])
def test_a_process_for_each_core_but_no_more_than_four(
    cores: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert http_processes(config()) == processes


def test_as_many_processes_as_are_asked_for() -> None:
    assert http_processes(config(HTTP__PROCESSES="7")) == 7


def test_one_process_where_questions_are_answered() -> None:
    assert http_processes(config(PREDICT__ENABLED="true")) == 1
