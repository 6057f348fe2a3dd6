"""The engine ``medversa``: organs of CT by prompts on a route, and questions by request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from domain.codes import MILLILITRE
from domain.engine import Case, EngineManifest
from domain.errors import ConfigurationError, EngineFailed, EngineUnavailable, NotApplicable
from domain.findings import Findings, Measurement, SegmentDescription
from domain.question import Answer, Answering, AnsweringTogether, Question, Sampling
from domain.volume import Volume
from inference.context import context_used
from inference.manifest import read_declaration
from inference.measures import VOLUME
from inference.medversa.images import image_findings, modality_of, tasks_of
from inference.medversa.settings import MedVersaSettings, settings_from
from inference.medversa.words import asked_segments, sections

if TYPE_CHECKING:
    from inference.medversa.loading import Loaded

log = logging.getLogger(__name__)

MOST_TOKENS = 450
_OPTIONS = frozenset({"modality", "task", "prompt", "context", "max_new_tokens"})


class MedVersaEngine:
    """Implements ``domain.ports.Engine`` and ``domain.question.Answering``.

    Parameters
    ----------
    opened
        Loads the checkpoint; called once.
    prompts
        Default prompts by modality and task; ``None``: the manifest's.
    """

    def __init__(
        self,
        manifest: EngineManifest,
        opened: Callable[[], Answering],
        prompts: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.manifest = manifest
        self._prompts = _declared_prompts() if prompts is None else prompts
        self._opened = opened
        self._model: Answering | None = None

    def load(self) -> None:
        """Read the weights.

        Raises
        ------
        EngineFailed
            The checkpoint does not fit; the message lists what is missing or unexpected.
        EngineUnavailable
            Too little memory, or no such device.
        """
        try:
            self._model = self._opened()
        except ConfigurationError as error:
            raise EngineFailed(str(error)) from error

    @property
    def most_together(self) -> int:
        """See ``AnsweringTogether.most_together``."""
        return self._model.most_together if isinstance(self._model, AnsweringTogether) else 1

    def ask(self, question: Question, cancelled: Callable[[], bool] = lambda: False) -> Answer:
        """See ``Answering.ask``."""
        return _only(self.answers([(question, cancelled)]))

    def answers(
        self, asked: Sequence[tuple[Question, Callable[[], bool]]]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        """See ``AnsweringTogether.answers``."""
        model = self._model
        if model is None:
            raise EngineUnavailable("The model is not loaded.")
        fit = [number for number, (question, _) in enumerate(asked) if _is_in_hounsfield_units(question)]
        for number in sorted({*range(len(asked))} - {*fit}):
            yield number, NotApplicable("The values are not in Hounsfield units.")
        if isinstance(model, AnsweringTogether):
            for place, answer in model.answers([asked[number] for number in fit]):
                yield fit[place], answer
            return
        for number in fit:
            yield number, _tried(model, *asked[number])

    def run(self, case: Case) -> Findings:
        """Do what the route's options say on a CT, a radiograph or a photograph.

        ``prompt`` may hold several prompts, one a sentence, each naming one structure of the manifest. They lie in
        one label map: where two claim a voxel the earlier one has it. The text is written greedily, so that the same
        series gives the same result.
        """
        unknown = sorted(case.options.keys() - _OPTIONS)
        if unknown:
            raise EngineFailed(f"The route's options have no meaning for this engine: {', '.join(unknown)}.")
        modality = modality_of(case) if case.images else "ct"
        question = Question(
            modality=modality,
            task=str(case.options.get("task", "segmentation")),
            prompt=str(case.options.get("prompt", "")),
            context=context_used(str(case.options.get("context", "")), case.context, modality),
            sampling=Sampling(do_sample=False, max_new_tokens=_tokens(case.options)),
        )
        return self._on_images(question, case) if case.images else self._on_volume(question, case)

    def _ask_all(self, case: Case, questions: Sequence[Question]) -> list[Answer]:
        """Return the answers to questions about one case, of which the first fault is raised."""
        answers: dict[int, Answer | Exception] = {}

        def going_on() -> bool:
            if case.progress is not None:
                case.progress(len(answers) / len(questions))  # raises where nobody wants the case any more
            return False

        for number, answer in self.answers([(question, going_on) for question in questions]):
            answers[number] = answer
        return [_only([(number, answers[number])]) for number in range(len(questions))]

    def _on_images(self, question: Question, case: Case) -> Findings:
        return image_findings(
            question,
            case,
            tasks_of(case, question.modality),
            prompts=self._prompts.get(question.modality, {}),
            segments=self.manifest.segments,
            ask=lambda questions: self._ask_all(case, questions),
        )

    def _on_volume(self, question: Question, case: Case) -> Findings:
        question = replace(question, volume=case.the_volume())
        prompt = question.prompt or self._prompts.get("ct", {}).get(question.task, "")
        if not prompt:
            raise EngineFailed(f"The route's options name no prompt, and {question.task} of ct has none.")
        question = replace(question, prompt=prompt)
        if question.task == "segmentation":
            return self._organs(question, case)
        (answer,) = self._ask_all(case, [question])
        text, impression = sections(answer.text)
        return Findings(labels=None, narrative=text, impression=impression)

    def _organs(self, question: Question, case: Case) -> Findings:
        volume = case.the_volume()
        asked = asked_segments(question.prompt, self.manifest.segments)
        labels = np.zeros(volume.grid.shape, np.uint8)
        segments, texts = [], []
        answers = self._ask_all(case, [replace(question, prompt=prompt) for prompt, _ in asked])
        for (_, segment), answer in zip(asked, answers, strict=True):
            if not answer.volume_masks:
                # It was asked for a mask and wrote only words: no statement that the organ is absent.
                texts.append(f"{segment.label}: no mask was drawn.")
                continue
            segments.append(segment)
            labels[np.any(answer.volume_masks, axis=0) & (labels == 0)] = len(segments)
        if not segments:
            raise NotApplicable("The model drew no mask for any prompt of the route.")
        return Findings(
            labels=labels,
            segments=tuple(segments),
            measurements=tuple(_volume(labels, number, s, volume) for number, s in enumerate(segments, start=1)),
            narrative=" ".join(texts),
        )


def make(manifest: EngineManifest, settings: Mapping[str, object]) -> MedVersaEngine:
    """Return the engine for ``[engines.medversa]``.

    Raises
    ------
    EngineFailed
        The licence is not accepted, or a setting is faulty.
    """
    try:
        chosen = settings_from(settings)
    except ConfigurationError as error:
        raise EngineFailed(str(error)) from error
    return MedVersaEngine(manifest, lambda: _opened(chosen))


def _opened(settings: MedVersaSettings) -> Answering:
    # Here, not above: the engine's own logic is tested without torch.
    from inference.device import OutOfDeviceMemory
    from inference.medversa.loading import load
    from inference.medversa.model import MedVersa

    def on_cpu() -> Loaded:
        return load(replace(settings, device="cpu"))

    if not settings.cpu_fallback:
        return MedVersa(load(settings), settings.orientation)
    try:
        loaded = load(settings)
    except OutOfDeviceMemory:
        log.warning("the device has no room for the weights, loading them on the CPU")
        loaded = on_cpu()
    return MedVersa(loaded, settings.orientation, on_cpu)


def _declared_prompts() -> Mapping[str, Mapping[str, str]]:
    return read_declaration(Path(__file__).with_name("manifest.toml")).prompts


def _tokens(options: Mapping[str, object]) -> int:
    given = options.get("max_new_tokens", MOST_TOKENS)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise EngineFailed("The route's option max_new_tokens is no number from 1.")
    return given


def _only(answers: Iterable[tuple[int, Answer | Exception]]) -> Answer:
    ((_, answer),) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def _tried(model: Answering, question: Question, cancelled: Callable[[], bool]) -> Answer | Exception:
    try:
        return model.ask(question, cancelled)
    except Exception as error:
        return error


def _is_in_hounsfield_units(question: Question) -> bool:
    return question.volume is None or question.volume.unit == "HU"


def _volume(labels: npt.NDArray[np.uint8], number: int, segment: SegmentDescription, volume: Volume) -> Measurement:
    return Measurement(
        segment=segment.key,
        concept=VOLUME,
        value=int(np.count_nonzero(labels == number)) * volume.grid.voxel_volume_ml,
        unit=MILLILITRE,
        label="Volume",
    )
