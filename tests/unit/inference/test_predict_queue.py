"""``POST /predict`` of many at a time: who waits for whom, and who is answered with whom."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from questions import QuestionEngines as Registry
from questions import QuestionModel as Model
from questions import body, client, masks, png

from domain.errors import NotApplicable
from domain.question import Answer, Question


@dataclass
class Together(Model):
    """Answers up to three questions at once; the one with a 2 is not for it."""

    rounds: list[int] = field(default_factory=list)

    @property
    def most_together(self) -> int:
        return 3

    def answers(
        self, asked: Sequence[tuple[Question, Callable[[], bool]]]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        self.rounds.append(len(asked))
        for number, (question, cancelled) in enumerate(asked):
            if "2" in question.prompt:
                yield number, NotApplicable("question 2 is not for it")
            else:
                yield number, dataclasses.replace(self.ask(question, cancelled), text=f"Seen: {question.prompt}")


@pytest.mark.parametrize(("places", "waits"), [({"medversa": "cuda:0", "lungs": "cpu"}, False), ({}, True)])
def test_each_device_has_a_worker_of_its_own_where_devices_are_known(places: dict[str, str], waits: bool) -> None:
    hold = threading.Event()
    slow, other = Model(wait=hold), Model(text="Meanwhile.")
    asking = client(registry=Registry({"medversa": slow, "lungs": other}, places=places), timeout_s=0.5)
    first = threading.Thread(target=asking.post, args=("/predict",), kwargs={"json": body()})
    first.start()
    while not slow.asked:
        time.sleep(0.01)
    answer = asking.post("/predict", json=body(engine="lungs", prompt="x"))
    assert answer.status_code == (503 if waits else 200)
    if waits:
        assert answer.json == {
            "error": "Service unavailable",
            "details": ["There was no answer within 0.5 s ([predict] timeout_s)."],
        }
    hold.set()
    first.join()


def test_an_engine_keeps_its_worker_whatever_else_is_installed_later() -> None:
    hold = threading.Event()
    model, registry = Model(wait=hold), Registry({}, places={"medversa": "cuda:0"})
    registry.engines["medversa"] = model
    asking = client(registry=registry, timeout_s=5)
    threads = [threading.Thread(target=asking.post, args=("/predict",), kwargs={"json": body()}) for _ in range(2)]
    threads[0].start()
    while not model.asked:
        time.sleep(0.01)
    registry.engines["deepbet"] = Model()  # it will find out itself where it runs
    threads[1].start()
    time.sleep(0.3)
    assert len(model.asked) == 1
    hold.set()
    for thread in threads:
        thread.join()
    assert len(model.asked) == 2


def test_a_full_queue_says_so() -> None:
    hold = threading.Event()
    slow = Model(wait=hold)
    asking = client(slow, queue=1)
    threads = [threading.Thread(target=asking.post, args=("/predict",), kwargs={"json": body()}) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    answer = asking.post("/predict", json=body())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json is not None
    assert answer.json["details"] == ["1 requests wait already ([predict] queue)."]
    undecodable = asking.post("/predict", json=body({"data": "AAAA", "format": "png"}))
    assert undecodable.status_code == 503  # nothing is decoded for which there is no room
    hold.set()
    for thread in threads:
        thread.join()


def test_a_withdrawn_question_gives_its_place_to_the_next_though_the_queue_stays_full(tmp_path: Path) -> None:
    hold = threading.Event()
    asking = client(Model(wait=hold), queue=2, folder=tmp_path)
    threads = [threading.Thread(target=asking.post, args=("/predict",), kwargs={"json": body()}) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)

    def state(url: str) -> object:
        return (asking.get(url).json or {}).get("state")

    try:
        first, second = [(asking.post("/predict?async=1", json=body()).json or {})["url"] for _ in range(2)]
        end = time.monotonic() + 10
        while state(first) != "running":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert state(second) == "queued"
        assert asking.delete(first).status_code == 204
        while state(second) != "running":
            assert time.monotonic() < end, "it waits behind one that was withdrawn"
            time.sleep(0.05)
    finally:
        hold.set()
        for thread in threads:
            thread.join()


def test_questions_that_wait_reach_a_model_that_answers_several_at_once_together() -> None:
    hold = threading.Event()
    model = Together(wait=hold)
    asking = client(model)
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        sent = body({"data": png((20 + number, 30)), "format": "png"}, prompt=f"question {number}")
        answers[number] = asking.post("/predict", json=sent, environ_base={"REMOTE_ADDR": f"192.0.2.{number}"})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    hold.set()
    for thread in threads:
        thread.join()
    assert model.rounds == [1, 3, 1]
    for number in (0, 1, 3, 4):
        assert answers[number].json["text"] == f"Seen: question {number}"
        assert masks(answers[number])[0].shape == (20 + number, 30)
    assert (answers[2].status_code, answers[2].json["details"]) == (422, ["question 2 is not for it"])
