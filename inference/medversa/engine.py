"""The engine ``medversa``: organs of CT by prompts on a route, and questions by request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from domain.codes import MILLILITRE, Code
from domain.engine import Case, EngineManifest
from domain.errors import ConfigurationError, EngineFailed, EngineUnavailable, NotApplicable
from domain.findings import Findings, Measurement, SegmentDescription
from domain.question import Answer, Answering, Question, Sampling
from domain.volume import Volume
from inference.medversa.settings import MedVersaSettings, settings_from

VOLUME = Code("118565006", "SCT", "Volume")
DEFAULT_PROMPT = "Segment the liver."
MOST_TOKENS = 450
_OPTIONS = frozenset({"task", "prompt", "context", "max_new_tokens"})


class MedVersaEngine:
    """Implements ``domain.ports.Engine`` and ``domain.question.Answering``.

    Parameters
    ----------
    opened
        Loads the checkpoint; called once.
    """

    def __init__(self, manifest: EngineManifest, opened: Callable[[], Answering]) -> None:
        self.manifest = manifest
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

    def ask(self, question: Question, cancelled: Callable[[], bool] = lambda: False) -> Answer:
        """See ``Answering.ask``."""
        if self._model is None:
            raise EngineUnavailable("The model is not loaded.")
        if question.volume is not None and question.volume.unit != "HU":
            raise NotApplicable("The values are not in Hounsfield units.")
        return self._model.ask(question, cancelled)

    def run(self, case: Case) -> Findings:
        """Do what the route's options say on a CT.

        ``prompt`` may hold several prompts, one a sentence, each naming one organ of the manifest. Organs lie in one
        label map: where two claim a voxel the earlier one has it. The text is written greedily, so that the same
        series gives the same result.
        """
        unknown = sorted(case.options.keys() - _OPTIONS)
        if unknown:
            raise EngineFailed(f"The route's options have no meaning for this engine: {', '.join(unknown)}.")
        task = str(case.options.get("task", "segmentation"))
        question = Question(
            modality="ct",
            task=task,
            prompt=str(case.options.get("prompt", DEFAULT_PROMPT)),
            context=str(case.options.get("context", "")),
            volume=case.the_volume(),
            sampling=Sampling(do_sample=False, max_new_tokens=_tokens(case.options)),
        )
        if task == "segmentation":
            return self._organs(question, case.the_volume())
        return Findings(labels=None, narrative=narrative(self.ask(question).text))

    def _organs(self, question: Question, volume: Volume) -> Findings:
        asked = _asked(question.prompt, self.manifest.segments)
        labels = np.zeros(volume.grid.shape, np.uint8)
        segments, texts = [], []
        for prompt, segment in asked:
            answer = self.ask(replace(question, prompt=prompt))
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
    from inference.medversa.loading import load
    from inference.medversa.model import MedVersa

    return MedVersa(load(settings), settings.orientation)


def narrative(text: str) -> str:
    """Return a report with its headings in capitals on lines of their own; nothing is added where it has none."""
    parts = re.split(r"(?i)(?:^|(?<=[.\s]))(findings?|impressions?)\s*:\s*", text)
    if len(parts) < 3:
        return text.strip()
    lines = [parts[0].strip()] if parts[0].strip() else []
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        name = "FINDINGS" if heading.lower().startswith("finding") else "IMPRESSION"
        lines.append(f"{name}: {body.strip()}")
    return "\n".join(lines)


def _tokens(options: Mapping[str, object]) -> int:
    given = options.get("max_new_tokens", MOST_TOKENS)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise EngineFailed("The route's option max_new_tokens is no number from 1.")
    return given


def _asked(prompts: str, known: tuple[SegmentDescription, ...]) -> list[tuple[str, SegmentDescription]]:
    """Return each sentence of the prompts with the one organ that it names."""
    asked: list[tuple[str, SegmentDescription]] = []
    for sentence in re.findall(r"[^.]+\.?", prompts):
        if not sentence.strip():
            continue
        words = sentence.lower()
        named = [segment for segment in known if re.search(rf"\b{segment.label.lower()}s?\b", words)]
        if len(named) != 1 or any(segment == named[0] for _, segment in asked):
            names = ", ".join(segment.label.lower() for segment in known)
            raise EngineFailed(f"Each sentence of the route's prompt must name one organ, each once: {names}.")
        asked.append((sentence.strip(), named[0]))
    return asked


def _volume(labels: npt.NDArray[np.uint8], number: int, segment: SegmentDescription, volume: Volume) -> Measurement:
    return Measurement(
        segment=segment.key,
        concept=VOLUME,
        value=int(np.count_nonzero(labels == number)) * volume.grid.voxel_volume_ml,
        unit=MILLILITRE,
        label="Volume",
    )
