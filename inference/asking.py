"""A question on its way to an engine: alone, or with others that the engine answers at the same time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.context import StudyContext
from domain.engine import Case, Engine
from domain.errors import EngineUnavailable, GatewayError
from domain.question import Answer, Answering, AnsweringTogether, Question
from inference.predict_request import InvalidRequest

log = logging.getLogger(__name__)


class Engines(Protocol):
    """What of ``inference.registry.Registry`` is needed here."""

    def engine(self, name: str) -> Engine: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asking:
    """Work for the desk. Implements ``inference.desk.Joint``.

    Attributes
    ----------
    engine
        The engine's name; the first question to it loads the weights.
    """

    registry: Engines
    engine: str
    question: Question
    context: StudyContext

    @property
    def kind(self) -> object:
        """Return what equals that of questions that may go with this one.

        Volumes go alone: their encoder takes more time and memory than all words of the answer.
        """
        return None if self.question.volume is not None else (Asking, self.engine)

    def most(self) -> int:
        """See ``Joint.most``."""
        engine = self._loaded()
        return engine.most_together if isinstance(engine, AnsweringTogether) else 1

    def together(
        self, works: Sequence[tuple[Asking, Callable[[], bool]]]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        """See ``Joint.together``."""
        engine = self._loaded()
        if isinstance(engine, AnsweringTogether):
            yield from engine.answers([(work.question, is_gone) for work, is_gone in works])
            return
        for number, (work, is_gone) in enumerate(works):
            try:
                yield number, work._answered(engine, is_gone)
            except Exception as error:
                yield number, error

    def _loaded(self) -> Engine:
        try:
            return self.registry.engine(self.engine)
        except GatewayError as error:
            log.warning("engine cannot be loaded", extra={"engine": self.engine, "error": type(error).__name__})
            raise EngineUnavailable(str(error)) from error

    def _answered(self, engine: Engine, is_gone: Callable[[], bool]) -> Answer:
        if isinstance(engine, Answering):
            return engine.ask(self.question, is_gone)
        if self.question.task != "segmentation" or self.question.volume is None:
            raise InvalidRequest(400, [f"engine: {self.engine} does segmentation of ct only"])
        findings = engine.run(Case(volume=self.question.volume, context=self.context))
        said = "; ".join(f"{m.segment}: {m.label} {m.value:.4g} {m.unit.value}" for m in findings.measurements)
        masks = () if findings.labels is None else ((findings.labels > 0).astype("uint8"),)
        return Answer(text=findings.narrative or said, volume_masks=masks)
