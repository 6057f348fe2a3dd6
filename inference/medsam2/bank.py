"""What one object remembers of the slices that it was followed through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from inference.medsam2.layers import Tokens

_KEPT = 8
"""Prompted slices whose memories are kept projected, 35 times as large: of a traced contour there may be hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Left:
    """What an object leaves on a slice for others."""

    memory: Tokens
    """64 channels."""
    pointer: torch.Tensor
    """Shape ``(channels,)``."""


class Bank:
    """What one object remembers in one direction, projected for a ``MemoryAttention``.

    Each memory has a place: first the prompted slices', then those of the last slices, in no order, since the
    attention knows none. Of many prompted slices the rest is projected whenever it is looked at, behind the pointers.
    """

    def __init__(self, attention: Any, slices: int, prompted: Mapping[int, Left], *, reverse: bool) -> None:
        self._attention = attention
        self._slices = slices
        self._reverse = reverse
        self._prompted = min(len(prompted), _KEPT)
        self._last: list[int] = []
        """The slices of the places behind the prompted ones'."""
        self._pointers = {index: left.pointer for index, left in prompted.items()}
        self._always = frozenset(prompted)
        memories = [left.memory for left in prompted.values()]
        self._rest = memories[_KEPT:]
        self._keys, self._values = self._room(next(iter(prompted.values())), len(prompted))
        for place, memory in enumerate(memories[:_KEPT]):
            self._put(place, memory)
        self._pointer_ages = attention.pointer_ages(slices)
        self._pointer_keys = torch.empty(0)
        self._end = 0

    def _room(self, left: Left, prompted: int) -> tuple[torch.Tensor, torch.Tensor]:
        attention, places = self._attention, self._prompted + self._attention.reach
        keys, values = attention.keys(left.memory), attention.values(left.memory)
        pointers = prompted + attention.pointers - 1
        parts = pointers * len(left.pointer) // attention.channels
        return (
            keys.new_empty((places, *keys.shape)),
            values.new_empty((len(values), places * attention.tokens + parts, values.shape[-1])),
        )

    def _put(self, place: int, memory: Tokens) -> None:
        tokens = self._attention.tokens
        self._keys[place] = self._attention.keys(memory)
        self._values[:, place * tokens : (place + 1) * tokens] = self._attention.values(memory)

    def add(self, index: int, left: Left) -> None:
        """Remember a slice; the one that is too far away for the next takes its memory with it."""
        gone = [place for place, held in enumerate(self._last) if abs(index - held) >= self._attention.reach]
        if gone:
            self._last[gone[0]] = index
        else:
            self._last.append(index)
        self._put(self._prompted + self._last.index(index), left.memory)
        self._pointers[index] = left.pointer

    def turn_to(self, index: int) -> None:
        """Make ready what slice ``index`` looks at."""
        self._forget(index)
        self._index = index
        sign = -1 if self._reverse else 1
        seen = {held: sign * (index - held) for held in self._pointers if sign * (index - held) >= 0}
        pointers = torch.stack([self._pointers[held].to(self._keys.dtype) for held in seen]).unflatten(
            -1, (-1, self._attention.channels)
        )
        ages = self._pointer_ages[list(seen.values())][:, None]
        keys = self._attention.pointer_keys((pointers + ages).flatten(0, 1))
        self._pointer_keys = keys.unflatten(-1, (self._keys.shape[1], -1)).transpose(0, 1)
        begin = (self._prompted + len(self._last)) * self._attention.tokens
        self._end = begin + len(keys)
        self._values[:, begin : self._end] = self._attention.values(pointers.flatten(0, 1))

    def _forget(self, index: int) -> None:
        """Drop what slice ``index`` is too far away from: where slices between were prompted, more than one."""
        attention, tokens = self._attention, self._attention.tokens
        for held in [held for held in self._last if abs(index - held) > attention.reach]:
            hole, moved = self._prompted + self._last.index(held), self._prompted + len(self._last) - 1
            self._keys[hole] = self._keys[moved]
            here, there = (self._values[:, place * tokens : (place + 1) * tokens] for place in (hole, moved))
            here.copy_(there)
            self._last[hole - self._prompted] = self._last[-1]
            self._last.pop()
        for held in self._pointers.keys() - self._always:
            if abs(index - held) >= attention.pointers:
                del self._pointers[held]

    def keys(self, layer: int) -> Tokens:
        """Return what a layer compares this slice with."""
        tokens, ages = self._attention.tokens, self._attention.ages[layer]
        result: Tokens = self._attention.room("keys", self._end + len(self._rest) * tokens, self._keys.shape[-1])
        distances = [abs(self._index - held) for held in self._last]
        # Prompted slices have an age of their own, the last, however far away they are
        for place, distance in enumerate([0] * self._prompted + distances):
            torch.add(self._keys[place, layer], ages[distance - 1], out=result[place * tokens : (place + 1) * tokens])
        result[(place + 1) * tokens : self._end] = self._pointer_keys[layer]
        for memory, out in zip(self._rest, result[self._end :].split(tokens), strict=False):
            torch.add(self._attention.keys(memory)[layer], ages[-1], out=out)
        return result

    def values(self, layer: int) -> Tokens:
        """Return what a layer recalls of each key."""
        own = min(layer, len(self._values) - 1)
        kept = self._values[own, : self._end]
        return (
            torch.cat([kept, *(self._attention.values(memory)[own] for memory in self._rest)]) if self._rest else kept
        )
