from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain.errors import EngineUnavailable
from inference import predictions as predictions_module
from inference.predictions import Answered, Predictions

Asking = Callable[[Any, Callable[[], bool]], Answered]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def echo(body: Any, cancelled: Callable[[], bool]) -> Answered:
    return Answered(status=200, body={"echo": body})


def predictions(
    folder: Path, answer: Callable[[Any, Callable[[], bool]], Answered] = echo, **more: Any
) -> Predictions:
    return Predictions(folder, answer, **{"most": 4, "keep_s": 60.0, **more})


def test_a_question_gets_its_answer(tmp_path: Path) -> None:
    later = predictions(tmp_path)
    keys = [later.accept(json.dumps({"n": n}).encode()) for n in range(3)]
    until(lambda: all(later.state(key) == "done" for key in keys))
    answers = [later.answer(key) for key in keys]
    assert [answer.body for answer in answers if answer] == [{"echo": {"n": n}} for n in range(3)]


def test_what_was_left_without_an_answer_is_asked_again_after_a_crash(tmp_path: Path) -> None:
    forever = threading.Event()

    def hang(body: Any, cancelled: Callable[[], bool]) -> Answered:
        forever.wait()
        return Answered(status=200)

    first = predictions(tmp_path, hang)
    keys = [first.accept(b'{"n": 1}'), first.accept(b'{"n": 2}')]
    until(lambda: first.state(keys[0]) == "running")
    assert first.state(keys[1]) == "queued"
    # A crash leaves the folder as it is: the first one's thread stands still for good.
    second = predictions(tmp_path)
    until(lambda: all(second.state(key) == "done" for key in keys))


def test_an_answer_survives_a_restart(tmp_path: Path) -> None:
    first = predictions(tmp_path)
    key = first.accept(b"{}")
    until(lambda: first.state(key) == "done")
    answer = predictions(tmp_path).answer(key)
    assert answer is not None
    assert answer.body == {"echo": {}}


def test_bytes_are_beside_the_answer(tmp_path: Path) -> None:
    later = predictions(
        tmp_path, lambda body, _: Answered(status=200, content=b"zip", content_type="application/zip")
    )
    key = later.accept(b"{}")
    until(lambda: later.state(key) == "done")
    path, answer = later.result(key), later.answer(key)
    assert path is not None
    assert path.read_bytes() == b"zip"
    assert answer is not None
    assert answer.content_type == "application/zip"


def test_too_many_are_told_to_come_again(tmp_path: Path) -> None:
    go = threading.Event()

    def wait(body: Any, cancelled: Callable[[], bool]) -> Answered:
        go.wait(10)
        return Answered(status=200)

    later = predictions(tmp_path, wait, most=2)
    keys = [later.accept(b"{}") for _ in range(2)]
    with pytest.raises(EngineUnavailable):
        later.accept(b"{}")
    go.set()
    until(lambda: all(later.state(key) == "done" for key in keys))
    assert later.state(later.accept(b"{}")) in ("queued", "running", "done")


def test_a_withdrawn_question_is_not_answered_and_the_running_one_is_told(tmp_path: Path) -> None:
    told = threading.Event()

    def wait(body: Any, cancelled: Callable[[], bool]) -> Answered:
        until(cancelled)
        told.set()
        return Answered(status=200)

    later = predictions(tmp_path, wait)
    running, waiting = later.accept(b"{}"), later.accept(b"{}")
    until(lambda: later.state(running) == "running")
    assert later.remove(waiting)
    assert later.remove(running)
    assert told.wait(10)
    until(lambda: later.state(running) is None)
    assert (later.state(waiting), later.answer(running)) == (None, None)
    assert not later.remove(running)


def test_a_failed_one_says_so(tmp_path: Path) -> None:
    later = predictions(tmp_path, lambda body, _: Answered(status=422, body={"error": "Invalid request"}))
    key = later.accept(b"{}")
    until(lambda: later.state(key) == "failed")


def test_old_answers_are_forgotten_and_open_questions_never(tmp_path: Path) -> None:
    moment = [time.time()]
    later = predictions(tmp_path, clock=lambda: moment[0])
    key = later.accept(b"{}")
    until(lambda: later.state(key) == "done")
    moment[0] += 61
    newer = later.accept(b"{}")
    assert later.state(key) is None
    assert later.state(newer) is not None


@pytest.mark.parametrize("key", ["", "..", "../secret", "0" * 31 + "/", "A" * 32])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "request.json").write_bytes(b"{}")
    later = predictions(tmp_path / "inner")
    assert (later.state(key), later.answer(key), later.result(key), later.remove(key)) == (None, None, None, False)
    assert (tmp_path / "request.json").exists()


@pytest.mark.parametrize("damaged", [b"", b"\0" * 64, b"[]", b'{"status": 200, "other": 1}'])
def test_an_answer_that_the_disk_damaged_is_asked_for_again(tmp_path: Path, damaged: bytes) -> None:
    first = predictions(tmp_path)
    key = first.accept(b"{}")
    until(lambda: first.state(key) == "done")
    (tmp_path / key / "answer.json").write_bytes(damaged)
    assert first.answer(key) is None
    second = predictions(tmp_path)
    until(lambda: second.state(key) == "done")


def test_a_question_that_the_disk_damaged_is_answered_with_that(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 32)
    folder.mkdir()
    (folder / "request.json").write_bytes(b"\0" * 64)
    later = predictions(tmp_path)
    until(lambda: later.state(folder.name) == "failed")
    answer = later.answer(folder.name)
    assert answer is not None
    assert "cannot be read again" in str(answer.body["details"])


def test_an_answer_without_room_is_held_and_written_when_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    full = threading.Event()
    full.set()
    write = predictions_module._write

    def into_a_full_disk(folder: Path, name: str, data: bytes) -> None:
        if full.is_set() and name == predictions_module.ANSWER:
            raise OSError(28, "no space")
        write(folder, name, data)

    def answer(body: Any, cancelled: Callable[[], bool]) -> Answered:
        asked.append(body)
        return echo(body, cancelled)

    monkeypatch.setattr(predictions_module, "_write", into_a_full_disk)
    later = predictions(tmp_path, answer, first_pause_s=0.01)
    key = later.accept(b"{}")
    until(lambda: len(asked) == 1)
    time.sleep(0.1)
    assert later.state(key) == "running"
    full.clear()
    until(lambda: later.state(key) == "done")
    assert len(asked) == 1


def test_an_old_answer_goes_though_nobody_asks_again(tmp_path: Path) -> None:
    later = predictions(tmp_path, keep_s=0.3)
    key = later.accept(b"{}")
    until(lambda: later.state(key) == "done")
    until(lambda: later.state(key) is None)
    assert list(tmp_path.iterdir()) == []


def test_several_are_asked_at_a_time_the_oldest_first(tmp_path: Path) -> None:
    go_on, began = threading.Semaphore(0), list[int]()

    def hold(body: Any, cancelled: Callable[[], bool]) -> Answered:
        began.append(body["n"])
        go_on.acquire()
        return echo(body, cancelled)

    later = predictions(tmp_path, hold, at_once=2, most=8)
    keys = [later.accept(json.dumps({"n": n}).encode()) for n in range(5)]
    until(lambda: len(began) == 2)
    assert sorted(began) == [0, 1]
    assert [later.state(key) for key in keys] == ["running"] * 2 + ["queued"] * 3
    for number in range(2, 5):
        go_on.release()
        until(lambda number=number: len(began) == number + 1)  # type: ignore[misc]
        assert began[-1] == number
    for _ in range(2):
        go_on.release()
    until(lambda: all(later.state(key) == "done" for key in keys))
    assert [(later.answer(key) or echo(0, bool)).body for key in keys] == [{"echo": {"n": n}} for n in range(5)]
