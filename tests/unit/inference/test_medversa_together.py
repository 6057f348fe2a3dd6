"""Several answers written at the same time: each is the one that its question gets alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medversa_checkpoint import write_checkpoint

from domain.errors import EngineUnavailable
from domain.question import Answer, Question, Sampling, Withdrawn
from inference.medversa.settings import MedVersaSettings

pytestmark = [
    pytest.mark.usefixtures("language_models"),
    pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`:UserWarning"),
]

PICTURES = [np.random.default_rng(n).integers(0, 255, (60 + n, 80, 3)).astype(np.uint8) for n in range(4)]
MASK_VOXELS = 0
"""Masks are drawn by each answer's own state, read alone: no tolerance is needed."""


@pytest.fixture(scope="module", autouse=True)
def one_thread(language_models: None) -> Iterator[None]:
    """Compute in one thread: two that wait for each other after each small product take minutes beside other work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("babbling"), babbles=True)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def model(folder: Path, request: pytest.FixtureRequest) -> Any:
    return _model(folder, precision=request.param)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    """A model whose passes are the library's own."""
    return _model(folder, batch=1, widths=())


def _model(folder: Path, widths: tuple[int, ...] = (8,), **settings: Any) -> Any:
    """Return a model whose passes have eight rows always: equal widths give equal bits on every machine."""
    from inference.medversa.loading import load
    from inference.medversa.model import MedVersa

    loaded = load(MedVersaSettings(weights=str(folder), **settings))
    loaded.network.llama_model.widths = widths
    return MedVersa(dataclasses.replace(loaded, together=8 if widths else 1))


def _question(number: int, task: str = "classification", words: int = 1, **sampling: Any) -> Question:
    return Question(
        modality="derm",
        task=task,
        prompt="mask " * words + "heart",
        pictures=(PICTURES[number],),
        sampling=Sampling(**{"max_new_tokens": 20, **sampling}),
    )


def _mixed() -> list[Question]:
    """Return questions of different lengths, about different pictures, each with settings of its own."""
    return [
        _question(0, "segmentation", do_sample=False),
        _question(1, words=60, seed=3, temperature=2.0, top_p=0.95, max_new_tokens=45),
        dataclasses.replace(
            _question(2, "report generation", words=9, do_sample=False, num_beams=3, length_penalty=0.7),
            pictures=(PICTURES[2], PICTURES[3]),
        ),
        _question(3, "detection", words=4, seed=9, num_beams=2, temperature=1.5),
        _question(0, words=4, seed=4, repetition_penalty=1.3, temperature=1.0, min_length=12, max_new_tokens=13),
        _question(0, words=4, seed=5, temperature=3.0),
        _question(0, words=4, seed=5, temperature=3.0),
    ]


def _together(model: Any, questions: list[Question]) -> dict[int, Any]:
    return dict(model.answers([(question, lambda: False) for question in questions]))


def _same(one: Any, other: Any) -> bool:
    masks = (one.picture_masks, other.picture_masks)
    drawn = [(a, b) for said in zip(*masks, strict=True) for a, b in zip(*said, strict=True)]
    return (
        (one.ids, one.text, one.boxes) == (other.ids, other.text, other.boxes)
        and len(masks[0]) == len(masks[1])
        and all(np.count_nonzero(a != b) <= MASK_VOXELS for a, b in drawn)
    )


def test_each_answer_is_the_one_that_its_question_gets_alone(model: Any) -> None:
    questions = _mixed()
    together = _together(model, questions)
    alone = [model.ask(question) for question in questions]
    assert all(_same(together[number], answer) for number, answer in enumerate(alone))
    assert together[5].ids == together[6].ids  # one seed, one answer
    assert len({answer.ids for answer in alone}) == len(questions) - 1  # otherwise a mix-up would not be seen
    assert len({len(answer.ids) for answer in alone}) > 2  # they end at different times


def test_passes_for_several_write_what_the_library_writes(folder: Path, plain: Any) -> None:
    together = _together(_model(folder), _mixed())
    assert [together[n].ids for n in range(7)] == [plain.ask(question).ids for question in _mixed()]


def test_answers_of_beams_share_passes_with_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.medversa.language import LanguageModel

    model, rows = _model(folder), list[int]()
    passed = LanguageModel._pass

    def noting(self: Any, calls: Any) -> Any:
        rows.append(sum(call.rows for call in calls))
        return passed(self, calls)

    monkeypatch.setattr(LanguageModel, "_pass", noting)
    questions = [_question(n, do_sample=False, num_beams=3, min_length=9, max_new_tokens=9) for n in range(3)]
    _together(model, questions)
    assert max(rows) == 6  # the third has a pass of its own: nine rows are too many
    assert rows.count(3) == rows.count(6)


def test_masks_are_those_of_each_ones_picture(tmp_path: Path) -> None:
    model = _model(write_checkpoint(tmp_path))
    questions = [_question(number, "segmentation", do_sample=False) for number in (2, 0, 3)]
    together = _together(model, questions)
    for number, question in enumerate(questions):
        answer = model.ask(question)
        assert _same(together[number], answer)
        assert answer.picture_masks[0][0].shape == question.pictures[0].shape[:2]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_rows_have_the_same_bits_is_tried_out(folder: Path, precision: str) -> None:
    import torch

    from inference.medversa.language import _trial, even_widths

    network = _model(folder, precision=precision)._network.llama_model
    widths = even_widths(network)
    assert widths in ((), tuple(sorted(widths)))
    with torch.inference_mode():
        whole = _trial(network, range(8))
        assert all(torch.equal(_trial(network, range(rows)), whole[:rows]) for rows in widths)


def test_a_device_that_rounds_by_its_rows_answers_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.medversa import loading

    for widths in ((), (8,)):  # eight rows for each lone answer do not pay on a CPU
        monkeypatch.setattr(loading, "even_widths", lambda model, found=widths: found)
        loaded = loading.load(MedVersaSettings(weights=str(folder)))
        assert (loaded.together, loaded.network.llama_model.widths) == (1, ())
    monkeypatch.setattr(loading, "even_widths", lambda model: (2, 4, 8))
    loaded = loading.load(MedVersaSettings(weights=str(folder), batch=4))
    assert (loaded.together, loaded.network.llama_model.widths) == (4, (2, 4, 8))
    assert loading.load(MedVersaSettings(weights=str(folder), batch=1)).together == 1


def _given_up_after(calls: int) -> Callable[[], bool]:
    left = [calls]

    def cancelled() -> bool:
        left[0] -= 1
        return left[0] < 0

    return cancelled


@pytest.mark.parametrize("after", [0, 1, 6])
def test_one_that_is_given_up_leaves_the_others_as_they_are(model: Any, after: int) -> None:
    questions = _mixed()[:3]
    asked = [(question, lambda: False) for question in questions]
    asked[1] = (questions[1], _given_up_after(after))
    together = dict(model.answers(asked))
    assert isinstance(together[1], Withdrawn)
    assert all(_same(together[number], model.ask(questions[number])) for number in (0, 2))


def test_one_that_fails_leaves_the_others_as_they_are(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = _mixed()[:3]
    alone = [model.ask(question) for question in questions]
    draw = type(model)._drawn

    def failing(self: Any, question: Question, *others: Any) -> Any:
        if question is questions[0]:
            raise ValueError("broken head")
        return draw(self, question, *others)

    monkeypatch.setattr(type(model), "_drawn", failing)
    unfit = dataclasses.replace(questions[0], prompt="heart " * 1100)
    together = _together(model, [*questions, unfit])
    assert isinstance(together[0], ValueError)
    assert "the model takes fewer than 1024" in str(together[3])
    assert all(_same(together[number], alone[number]) for number in (1, 2))


def test_each_answer_is_told_when_it_is_there(model: Any) -> None:
    long, short = _mixed()[1], _question(1, do_sample=False, max_new_tokens=2)
    assert len(model.ask(long).ids) > 2
    assert list(_together(model, [long, short])) == [1, 0]


def test_who_stops_listening_leaves_no_thread_and_a_model_that_works(model: Any) -> None:
    import threading

    before = threading.active_count()
    questions = _mixed()
    answers = model.answers([(question, lambda: False) for question in questions])
    next(answers)
    answers.close()
    assert threading.active_count() == before
    assert isinstance(model.ask(questions[0]), Answer)


def _full(model: Any, monkeypatch: pytest.MonkeyPatch, most_rows: int) -> list[int]:
    """Let the language model run out of memory with more rows; returns the rows of all passes."""
    import torch

    from inference.medversa.language import LanguageModel

    rows, logits = list[int](), LanguageModel.logits

    def limited(self: Any, ids: Any, *others: Any, **named: Any) -> Any:
        rows.append(len(ids))
        if len(ids) > most_rows:
            raise torch.OutOfMemoryError("too little")
        return logits(self, ids, *others, **named)

    monkeypatch.setattr(LanguageModel, "logits", limited)
    return rows


def test_without_room_for_several_they_are_answered_one_by_one(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    questions = [_question(number, do_sample=False, min_length=6, max_new_tokens=6) for number in range(3)]
    alone = [model.ask(question) for question in questions]
    rows = _full(model, monkeypatch, most_rows=1)
    together = _together(model, questions)
    assert all(_same(together[number], answer) for number, answer in enumerate(alone))
    assert (rows[0], set(rows[1:])) == (3, {1})
    assert "no room for several questions at once" in caplog.text


def test_one_question_for_which_there_is_no_room_is_told_so(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _full(model, monkeypatch, most_rows=0)
    with pytest.raises(EngineUnavailable, match="out of memory"):
        model.ask(_question(0))
    assert all(isinstance(answer, EngineUnavailable) for answer in _together(model, _mixed()[:2]).values())


def test_so_many_go_together_as_memory_has_room_for(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.medversa import model as module

    questions = [_question(number, do_sample=False, min_length=6, max_new_tokens=6) for number in range(3)]
    rows = _full(model, monkeypatch, most_rows=8)
    one = model._past_bytes(model._start(questions[0], lambda: False, {}))
    monkeypatch.setattr(module, "free_bytes", lambda device: 2 * (2 * one + one // 2))
    assert set(_together(model, questions)) == {0, 1, 2}
    assert set(rows) == {1, 2}


def test_pictures_that_several_questions_are_about_are_looked_at_once(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Question] = []
    look = type(model)._look

    def noting(self: Any, question: Question) -> Any:
        looked.append(question)
        return look(self, question)

    monkeypatch.setattr(type(model), "_look", noting)
    first = _question(0, "segmentation", do_sample=False)
    again = dataclasses.replace(first, task="classification", prompt="heart")
    for at_once in (8, 1):
        looked.clear()
        monkeypatch.setattr(model, "_loaded", dataclasses.replace(model._loaded, together=at_once))
        assert len(_together(model, [first, again, _question(1)])) == 3
        assert len(looked) == 2


def test_the_random_numbers_of_the_process_stay_where_they_were(model: Any) -> None:
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    _together(model, _mixed()[:2])
    assert torch.equal(torch.get_rng_state(), before)
