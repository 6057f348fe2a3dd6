"""Answers that are written side by side: each by its own code, of which one runs at a time.

A library writes an answer in one call and asks its model for a token now and then. That call gets a thread; where it
asks, the thread waits until somebody has worked out what several of them asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from inference.medversa.language import Call, LanguageModel

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Generic[T]):
    """What came of a piece of writing."""

    values: tuple[T, ...] = ()
    error: BaseException | None = None

    def result(self) -> T:
        """Return what was written, or raise what went wrong."""
        if self.error is not None:
            raise self.error
        (value,) = self.values
        return value


class Writer(Generic[T]):
    """Runs ``work`` while ``resume`` waits for it, and has the random numbers of that work."""

    def __init__(self, work: Callable[[], T], model: LanguageModel, device: torch.device) -> None:
        self._work = work
        self._model = model
        self._cuda = device if device.type == "cuda" else None
        self._numbers: _Numbers | None = None
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._said: Call | Ended[T] = Ended()
        self._reply: Any = None
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)

    def resume(self, reply: object = None) -> Call | Ended[T]:
        """Let it go on, with what it asked for or an error, until it asks again or has ended."""
        self._reply = reply
        with self._own_numbers():
            self._model.hand_over = self._ask
            if self._thread.ident is None:
                self._thread.start()
            else:
                self._go.release()
            self._stands.acquire()
            self._model.hand_over = None
        return self._said

    def end(self) -> None:
        """Have it end where it waits; nobody wants what comes of it."""
        while self._thread.ident is not None and isinstance(self._said, Call):
            self.resume(GeneratorExit())

    def _ask(self, call: Call) -> Any:
        """Wait for what the model says, in the writer's thread."""
        self._said = call
        self._stands.release()
        self._go.acquire()
        reply, self._reply = self._reply, None
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                self._said = Ended(values=(self._work(),))
        except BaseException as error:
            self._said = Ended(error=error)
        finally:
            self._stands.release()

    @contextmanager
    def _own_numbers(self) -> Iterator[None]:
        """Draw from this writer's random numbers: PyTorch has one source for all threads."""
        outer = _Numbers.now(self._cuda)
        if self._numbers is not None:
            self._numbers.restore(self._cuda)
        try:
            yield
        finally:
            self._numbers = _Numbers.now(self._cuda)
            outer.restore(self._cuda)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Where the sources of random numbers stand."""

    cpu: torch.Tensor
    cuda: torch.Tensor | None

    @classmethod
    def now(cls, cuda: torch.device | None) -> _Numbers:
        return cls(torch.get_rng_state(), None if cuda is None else torch.cuda.get_rng_state(cuda))

    def restore(self, cuda: torch.device | None) -> None:
        torch.set_rng_state(self.cpu)
        if cuda is not None and self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, cuda)


def side_by_side(
    works: dict[int, Callable[[], T]], model: LanguageModel, device: torch.device
) -> Iterator[tuple[int, Ended[T]]]:
    """Do the works, and yield what came of each as soon as it has ended, by its key.

    What they ask of ``model`` at the same time is worked out together.
    """
    writers = {key: Writer(work, model, device) for key, work in works.items()}
    replies: dict[int, Any] = dict.fromkeys(writers)
    try:
        while replies:
            calls: dict[int, Call] = {}
            for key, reply in replies.items():
                said = writers[key].resume(reply)
                if isinstance(said, Call):
                    calls[key] = said
                else:
                    del writers[key]
                    yield key, said
            replies = dict(zip(calls, model.answer(list(calls.values())), strict=True))
    finally:
        for writer in writers.values():
            writer.end()
