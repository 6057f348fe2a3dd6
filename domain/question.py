"""A question to a model about pictures or a volume, and its answer: what a request by HTTP carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from domain.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is written; the defaults are those of the public interface."""

    num_beams: int = 1
    do_sample: bool = True
    min_length: int = 1
    """New tokens before the end-of-text token may come."""
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    temperature: float = 0.1
    max_new_tokens: int = 450
    seed: int | None = None
    """The same seed, prompt and images give the same answer; ``None``: another each time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What is asked, about either pictures or one volume.

    Attributes
    ----------
    modality
        ``cxr``, ``derm`` or ``ct``.
    task
        ``report generation``, ``classification``, ``detection`` or ``segmentation``.
    context
        Lines like ``Age:70.``; not in ``repr``, as they may describe a patient.
    pictures
        RGB, uint8, ``(rows, columns, 3)`` each; ``<img0>`` in a prompt is the first.
    """

    modality: str
    task: str
    prompt: str = field(repr=False)
    context: str = field(default="", repr=False)
    pictures: tuple[npt.NDArray[np.uint8], ...] = ()
    volume: Volume | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a model said and drew.

    Attributes
    ----------
    picture_masks
        For every mask that the text announces, in its order, a 0/1 array on each picture's own grid.
    volume_masks
        For every mask that the text announces a 0/1 array ``(slices, rows, columns)`` on the volume's grid.
    boxes
        For every box that the text announces x1, y1, x2, y2 as fractions of width and height, within 0 and 1.
    """

    text: str = field(repr=False)
    picture_masks: tuple[tuple[npt.NDArray[np.uint8], ...], ...] = ()
    volume_masks: tuple[npt.NDArray[np.uint8], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()


class Withdrawn(Exception):
    """Nobody waits for this answer any more."""


@runtime_checkable
class Answering(Protocol):
    """An engine that also takes questions."""

    def ask(self, question: Question, cancelled: Callable[[], bool] = ...) -> Answer:
        """Answer one question; ``cancelled`` is asked now and then.

        Blocking and not thread-safe: the caller holds the device.

        Raises
        ------
        NotApplicable
            The engine cannot look at what was sent.
        EngineUnavailable
            Out of memory, or the device is gone. Retryable.
        EngineFailed
            The model cannot do this.
        Withdrawn
            ``cancelled`` said so.
        """
        ...


@runtime_checkable
class AnsweringTogether(Answering, Protocol):
    """One that answers several questions in less time than one after the other."""

    @property
    def most_together(self) -> int:
        """Return how many questions are worth asking at once; 1: it answers one after the other."""
        ...

    def answers(
        self, asked: Sequence[tuple[Question, Callable[[], bool]]]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        """Answer questions, each given with its ``cancelled``; yield each answer when it is there, by its number.

        Every answer is the one that ``ask`` gives; what ``ask`` would raise is yielded. Blocking, as ``ask``.
        """
        ...
