"""One object followed to the next slice: what it left elsewhere, its mask here, and what it leaves here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from inference.medsam2.bank import Bank, Left
from inference.medsam2.decoder import Drawn, Fine, MaskDecoder
from inference.medsam2.layers import Place, Tokens
from inference.medsam2.memoriser import Memoriser
from inference.medsam2.memory import Looked, MemoryAttention


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """What all objects share of a slice."""

    looked: Looked
    fine: Fine
    picture: Tokens


class Following:
    """Does what transformers' ``Sam2VideoModel`` does for an object on a slice where nothing was drawn."""

    def __init__(self, network: Any, place: Place) -> None:
        self._attention = MemoryAttention(network, place)
        self._decoder = MaskDecoder(network, place)
        self._memoriser = Memoriser(network, place)

    def look(self, features: list[torch.Tensor], positions: list[torch.Tensor]) -> Shared:
        """Return what all objects share of a slice; each level has the shape ``(tokens, 1, channels)``."""
        quarter, half, coarse = (level[:, 0].contiguous() for level in features)
        return Shared(
            looked=self._attention.look(coarse, positions[-1][:, 0]),
            fine=self._decoder.fine(half, quarter),
            picture=self._memoriser.look(coarse),
        )

    def bank(self, slices: int, prompted: Mapping[int, Left], *, reverse: bool) -> Bank:
        """Return what an object remembers when it is only prompted yet."""
        return Bank(self._attention, slices, prompted, reverse=reverse)

    def drawn(self, features: list[torch.Tensor], found: Drawn) -> Left:
        """Return what an object leaves on a slice on which it was drawn."""
        seen = self._memoriser.look(features[-1][:, 0].contiguous())
        memory = self._memoriser(seen, found.logits, there=found.score > 0, drawn=True)
        return Left(memory=memory, pointer=found.pointer)

    def __call__(self, seen: Shared, bank: Bank, index: int, *, onward: bool = True) -> Drawn:
        """Find an object on slice ``index``, and remember it where it is followed onward."""
        found = self._decoder(self._attention(seen.looked, bank, index), seen.fine)
        if onward:
            memory = self._memoriser(seen.picture, found.logits, there=found.score > 0)
            bank.add(index, Left(memory=memory, pointer=found.pointer))
        return found
