"""MedVersa on pictures and volumes: questions, and their answers."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from domain.errors import EngineFailed, EngineUnavailable, GatewayError
from domain.question import Answer, Question, Sampling, Withdrawn
from inference.device import OutOfDeviceMemory, bounded, empty_cache, is_full
from inference.medversa.generation import generate, states
from inference.medversa.loading import Loaded
from inference.medversa.memory import free_bytes
from inference.medversa.orientation import turned
from inference.medversa.preprocess import Bytes, image_input, image_mask, volume_input, volume_mask
from inference.medversa.settings import Orientation
from inference.medversa.writers import Ended, side_by_side

log = logging.getLogger(__name__)

Asked = tuple[Question, Callable[[], bool]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told(Answer):
    """An answer with its tokens, stop included."""

    ids: tuple[int, ...] = field(default=(), repr=False)


class MedVersa:
    """A loaded checkpoint. Not thread-safe: the caller holds the device.

    Parameters
    ----------
    spare
        Loads it once more, for the CPU: for a question that the device has no room for. ``None``: that fails.
    """

    def __init__(
        self, loaded: Loaded, orientation: Orientation = "LPS", spare: Callable[[], Loaded] | None = None
    ) -> None:
        self._loaded = loaded
        self._network = loaded.network
        self._orientation = orientation
        self._spare = spare

    @property
    def most_together(self) -> int:
        """See ``AnsweringTogether.most_together``."""
        return self._loaded.together

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
        answer: Told | Exception
        ((_, answer),) = self.answers([(question, cancelled)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answers(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Told | Exception]]:
        """See ``AnsweringTogether.answers``."""
        with bounded(self._loaded.place):
            for number, answer in self._answers(asked):
                is_out = isinstance(answer, OutOfDeviceMemory)
                yield number, self._stood_in_for(asked[number], answer) if is_out else answer

    def _stood_in_for(self, asked: Asked, fault: Told | Exception) -> Told | Exception:
        """Return the CPU's answer where it may stand in for a full device."""
        if self._spare is None or self._loaded.place.device.type == "cpu":
            return fault
        log.warning("out of memory, again on the CPU", extra={"device": self._loaded.place.device.type})
        try:
            ((_, answer),) = MedVersa(self._spare(), self._orientation).answers([asked])
        except GatewayError as error:
            return error
        return answer

    @torch.inference_mode()
    def _answers(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Told | Exception]]:
        """Answer several questions.

        Pictures or a volume that several questions are about are encoded once. Questions that have no room in memory
        beside each other are asked one after the other.
        """
        seen: _Pictures = {}
        left = list(range(len(asked)))
        while left:
            begun, failed, left = self._begin(asked, left, seen)
            yield from failed.items()
            again = []
            for number, answer in self._written(asked, begun):
                if len(begun) > 1 and isinstance(answer, EngineUnavailable):
                    again.append(number)
                else:
                    yield number, answer
            for number in again:
                log.warning("no room for several questions at once", extra={"questions": len(begun)})
                yield from self._alone(asked, number, seen)

    def _alone(self, asked: Sequence[Asked], number: int, seen: _Pictures) -> Iterator[tuple[int, Told | Exception]]:
        begun, failed, _ = self._begin(asked, [number], seen)
        yield from failed.items()
        yield from self._written(asked, begun)

    def _begin(
        self, asked: Sequence[Asked], numbers: Sequence[int], seen: _Pictures
    ) -> tuple[dict[int, _Begun], dict[int, Exception], list[int]]:
        """Look and read for as many questions as go together; return them, what failed, and who is left."""
        begun: dict[int, _Begun] = {}
        failed: dict[int, Exception] = {}
        room = free_bytes(self._loaded.place) // 2
        for place, number in enumerate(numbers):
            if len(begun) == self.most_together:
                return begun, failed, [*numbers[place:]]
            try:
                start = self._start(*asked[number], seen)
            except Exception as error:
                if begun and is_full(error):
                    return begun, failed, [*numbers[place:]]
                failed[number] = self._told_fault(error)
                continue
            room -= self._past_bytes(start)
            if begun and room < 0:
                return begun, failed, [*numbers[place:]]
            begun[number] = start
        return begun, failed, []

    def _start(self, question: Question, cancelled: Callable[[], bool], seen: _Pictures) -> _Begun:
        if cancelled():
            raise Withdrawn
        key = tuple(map(id, question.pictures)) if question.volume is None else (id(question.volume),)
        if key not in seen:
            seen[key] = self._look(question)
        embeddings = self._embeddings(question, seen[key])
        room = self._network.sizes.positions - embeddings.shape[1]
        sampling = replace(question.sampling, max_new_tokens=min(question.sampling.max_new_tokens, room))
        return _Begun(seen=seen[key], embeddings=embeddings, sampling=sampling)

    def _past_bytes(self, begun: _Begun) -> int:
        """Return how much the keys and values of an answer may take."""
        sizes, tokens = self._network.sizes, begun.embeddings.shape[1] + begun.sampling.max_new_tokens
        width = sizes.hidden // sizes.heads * sizes.key_value_heads
        values = 2 * sizes.layers * width * tokens * begun.sampling.num_beams
        return int(values * begun.embeddings.element_size())

    def _written(self, asked: Sequence[Asked], begun: dict[int, _Begun]) -> Iterator[tuple[int, Told | Exception]]:
        works = {number: self._writing(start, asked[number][1]) for number, start in begun.items()}
        for number, ended in side_by_side(works, self._network.llama_model, self._loaded.device):
            yield number, self._told(asked[number][0], begun[number], ended)

    def _writing(self, begun: _Begun, cancelled: Callable[[], bool]) -> Callable[[], list[int]]:
        stops = self._loaded.tokens.stops
        return lambda: generate(self._network, begun.embeddings, begun.sampling, stops, cancelled)

    def _told(self, question: Question, begun: _Begun, ended: Ended[list[int]]) -> Told | Exception:
        """Return the answer that was written, with what its tokens announce."""
        try:
            return self._drawn(question, begun.seen, begun.embeddings, ended.result())
        except Exception as error:
            return self._told_fault(error)

    def _told_fault(self, error: Exception) -> Exception:
        if not is_full(error):
            return error
        # Frames of the traceback hold tensors: without them the memory can be given back.
        traceback.clear_frames(error.__traceback__)
        empty_cache(self._loaded.device)
        return OutOfDeviceMemory("The device ran out of memory on this question.")

    def _drawn(self, question: Question, seen: _Seen, embeddings: Tensor, ids: list[int]) -> Told:
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
        return torch.from_numpy(values).to(self._loaded.device).to(torch.bfloat16).to(torch.float32)

    def _embeddings(self, question: Question, seen: _Seen) -> Tensor:
        prompt = self._loaded.tokens.prompt(
            images=len(seen.soft),
            task=question.task,
            context=question.context,
            prompt=question.prompt,
            longest_prefix=self._loaded.longest_prefix,
        )
        ids = torch.tensor([*prompt.prefix_ids, *prompt.prompt_ids], device=self._loaded.device)
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
class _Begun:
    """A question that was looked at and read, and how its answer is to be written."""

    seen: _Seen
    embeddings: Tensor
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """What the encoders made of pictures or a volume."""

    soft: Tensor
    images: Tensor | None = None
    levels: list[Tensor] | None = None


_Pictures = dict[tuple[int, ...], _Seen]
"""What was seen already, by the identities of the arrays."""


def _mask(logits: Tensor) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (torch.sigmoid(logits) >= 0.5).cpu().numpy()
    return found
