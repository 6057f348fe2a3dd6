"""MedVersa on pictures and volumes: one question, one answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from domain.errors import EngineFailed
from domain.question import Answer, Question
from inference.device import OutOfDeviceMemory, computing
from inference.medversa.generation import generate, states
from inference.medversa.loading import Loaded
from inference.medversa.orientation import turned
from inference.medversa.preprocess import Bytes, image_input, image_mask, volume_input, volume_mask
from inference.medversa.settings import Orientation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told(Answer):
    """An answer with its tokens, stop included."""

    ids: tuple[int, ...] = field(default=(), repr=False)


class MedVersa:
    """A loaded checkpoint. Not thread-safe: the caller holds the device.

    Parameters
    ----------
    spare
        Loads it once more, for the CPU: for what the device has no room for. ``None``: that fails.
    """

    def __init__(
        self, loaded: Loaded, orientation: Orientation = "LPS", spare: Callable[[], Loaded] | None = None
    ) -> None:
        self._loaded = loaded
        self._network = loaded.network
        self._orientation = orientation
        self._spare = spare

    def ask(self, question: Question, cancelled: Callable[[], bool] = lambda: False) -> Told:
        """Answer one question; ``cancelled`` is asked between tokens.

        Raises
        ------
        EngineFailed
            The checkpoint has no part for this, or prompt and answer are longer than the model's memory.
        OutOfDeviceMemory
            The device ran out of memory, and nothing stands in for it.
        Withdrawn
            ``cancelled`` said so.
        """
        try:
            with computing(self._loaded.place):
                return self._ask(question, cancelled)
        except OutOfDeviceMemory:
            if self._spare is None or self._loaded.place.device.type == "cpu":
                raise
            log.warning("out of memory, again on the CPU", extra={"device": self._loaded.place.device.type})
        other = MedVersa(self._spare(), self._orientation)
        return other.ask(question, cancelled)

    def _ask(self, question: Question, cancelled: Callable[[], bool]) -> Told:
        seen = self._look(question)
        embeddings = self._embeddings(question, seen)
        room = self._network.sizes.positions - embeddings.shape[1]
        sampling = replace(question.sampling, max_new_tokens=min(question.sampling.max_new_tokens, room))
        ids = generate(self._network, embeddings, sampling, self._loaded.tokens.stops, cancelled)
        text = self._loaded.tokens.answer(ids)
        read = self._states(embeddings, ids)
        return Told(
            text=text,
            ids=tuple(ids),
            picture_masks=self._picture_masks(question, seen, read(self._loaded.tokens.seg2d)),
            volume_masks=self._volume_masks(question, seen, read(self._loaded.tokens.seg3d)),
            boxes=self._boxes(read(self._loaded.tokens.det)),
        )

    def _look(self, question: Question) -> _Seen:
        """Encode what was sent."""
        network = self._network
        if question.volume is not None:
            if not network.sizes.has_volumes:
                raise EngineFailed("This checkpoint has no encoder for volumes.")
            array = turned(question.volume.grid, self._orientation).to_model(question.volume.voxels)
            levels = network.volume_features(self._input(volume_input(array))[None])
            return _Seen(soft=network.volume_tokens(levels), levels=levels)
        images = torch.stack([self._input(image_input(picture)) for picture in question.pictures])
        return _Seen(soft=network.image_tokens(images), images=images)

    def _input(self, values: npt.NDArray[np.float32]) -> Tensor:
        """Return values rounded to bfloat16, in which the encoders were fed, as float32 on the device."""
        return torch.from_numpy(values).to(self._loaded.place.device).to(torch.bfloat16).to(torch.float32)

    def _embeddings(self, question: Question, seen: _Seen) -> Tensor:
        prompt = self._loaded.tokens.prompt(
            images=len(seen.soft),
            task=question.task,
            context=question.context,
            prompt=question.prompt,
            longest_prefix=self._loaded.longest_prefix,
        )
        ids = torch.tensor([*prompt.prefix_ids, *prompt.prompt_ids], device=self._loaded.place.device)
        if len(ids) >= self._network.sizes.positions:
            raise EngineFailed(
                f"The prompt has {len(ids)} tokens; the model takes fewer than {self._network.sizes.positions}."
            )
        return self._network.embeddings(ids, seen.soft, torch.tensor(prompt.image_places, device=ids.device))

    def _states(self, embeddings: Tensor, ids: Sequence[int]) -> Callable[[int], list[Tensor]]:
        """Return a function that gives the states of a special token, one for each time it was said."""
        tokens = self._loaded.tokens
        if not {tokens.seg2d, tokens.seg3d, tokens.det} & set(ids):
            return lambda token: []
        read = states(self._network, embeddings, ids)[embeddings.shape[1] :]
        return lambda token: [read[place] for place, said in enumerate(ids) if said == token]

    def _picture_masks(self, question: Question, seen: _Seen, said: list[Tensor]) -> tuple[tuple[Bytes, ...], ...]:
        if seen.images is None or not self._network.sizes.has_image_masks:
            return ()
        return tuple(
            tuple(
                image_mask(_mask(self._network.image_mask(image, state)), picture.shape[:2])
                for image, picture in zip(seen.images, question.pictures, strict=True)
            )
            for state in said
        )

    def _volume_masks(self, question: Question, seen: _Seen, said: list[Tensor]) -> tuple[Bytes, ...]:
        if seen.levels is None or question.volume is None:
            return ()
        turn = turned(question.volume.grid, self._orientation)
        shape = turn.to_model(question.volume.voxels).shape
        drawn = (volume_mask(_mask(self._network.volume_mask(seen.levels, state)), shape) for state in said)
        return tuple(np.ascontiguousarray(turn.to_source(mask)) for mask in drawn)

    def _boxes(self, said: list[Tensor]) -> tuple[tuple[float, float, float, float], ...]:
        if not self._network.sizes.has_boxes:
            return ()
        found = [self._network.box(state).clamp(0, 1).tolist() for state in said]
        return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """What the encoders made of pictures or a volume."""

    soft: Tensor
    images: Tensor | None = None
    levels: list[Tensor] | None = None


def _mask(logits: Tensor) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (torch.sigmoid(logits) >= 0.5).cpu().numpy()
    return found
