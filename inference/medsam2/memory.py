"""A slice in the light of what an object left on others: transformers' ``Sam2VideoMemoryAttention``.

The same numbers by a shorter way. What does not depend on the object is computed once for all of them; what a slice
leaves behind is projected once, when it is left, and not again for each later slice; projections in a row are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

from inference.medsam2.bank import Bank
from inference.medsam2.layers import Linear, Norm, Place, Tokens, in_a_row, stacked, taken, weights

_ROWS = 256
"""So many tokens ask all keys at a time: the answers to more do not stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked:
    """A slice as far as the object does not matter: after the first attention to itself."""

    tokens: Tokens
    query: Tokens


class MemoryAttention:
    """The layers, with the weights of a network that is on the CPU in float32."""

    def __init__(self, network: Any, place: Place) -> None:
        given = network.memory_attention
        cos, sin = (part[0, :, ::2] for part in given.rotary_emb(torch.ones(1), given.position_ids))
        turn = torch.complex(cos, sin)
        attentions = [layer.cross_attn_image for layer in given.layers]
        self._place = place
        self._turn = turn.to(place.device)
        self._layers = [_Layer(layer, self._turn, place) for layer in given.layers]
        self._norm = Norm(place, given.layer_norm)
        self.pointer_keys = stacked(place, *(attention.k_proj for attention in attentions))
        self._memory_keys = Linear(place, self.pointer_keys.weight)
        self.ages = _ages(network, attentions, turn, place)
        """What place and age of a memory add to its keys; shape ``(layers, ages, tokens, channels)``."""
        self._pointer_age = weights(network.temporal_positional_encoding_projection_layer)
        self.tokens, self.channels = len(turn), network.mem_dim
        self.reach = network.num_maskmem - 1
        """So many slices back there are memories."""
        self.pointers = network.config.max_object_pointers_in_encoder
        """From so many slices back on there are no pointers any more."""
        # Values may be projected after they are summed, since shares sum to 1: a quarter of the width. In bfloat16
        # PyTorch's own attention is far ahead of its parts, but wants values as wide as keys.
        self._narrow = place.device.type == "cpu" and place.dtype == torch.float32
        values = [in_a_row(attention.o_proj, attention.v_proj) for attention in attentions]
        self._after = [Linear(place, *pair) for pair in values]
        self._values = Linear(place, torch.cat([w for w, _ in values]), torch.cat([b for _, b in values]))
        self._rooms: dict[str, torch.Tensor] = {}

    def look(self, features: Tokens, positions: Tokens) -> Looked:
        """Return what all objects share of a slice."""
        first = self._layers[0]
        tokens = first.itself((features + 0.1 * positions).contiguous())
        return Looked(tokens=tokens, query=first.query(tokens))

    def __call__(self, seen: Looked, bank: Bank, index: int) -> Tokens:
        """Return the tokens of slice ``index`` in the light of what ``bank`` holds."""
        tokens, query = seen.tokens, seen.query
        bank.turn_to(index)
        for number, layer in enumerate(self._layers):
            if number:
                tokens = layer.itself(tokens)
                query = layer.query(tokens)
            tokens = layer.forward(self._recalled(number, tokens, query, bank))
        return self._norm(tokens)

    def keys(self, memory: Tokens) -> torch.Tensor:
        """Return a memory's keys but for what its age adds; shape ``(layers, tokens, channels)``."""
        given = memory.to(self._place.dtype)
        result = self._memory_keys(given).unflatten(-1, (len(self._layers), -1)).transpose(0, 1).contiguous()
        turn_in_place(result, self._turn)
        return result

    def values(self, memory: Tokens) -> torch.Tensor:
        """Return what is recalled of tokens; shape ``(layers, tokens, channels)``, or for all layers ``(1, …)``."""
        given = memory.to(self._place.dtype)
        if self._narrow:
            return given[None]
        return self._values(given).unflatten(-1, (len(self._layers), -1)).transpose(0, 1)

    def pointer_ages(self, slices: int) -> Tokens:
        """Return what is added to a pointer's parts for each distance."""
        distances = torch.arange(slices) / max(min(slices, self.pointers) - 1, 1)
        weight, bias = self._pointer_age
        return self._place.put(F.linear(get_1d_sine_pe(distances, weight.shape[1]).double(), weight, bias))

    def room(self, name: str, rows: int, columns: int) -> Tokens:
        """Return memory to write to, one object after the other: to ask for it anew costs as much as to fill it."""
        found = self._rooms.get(name)
        if found is None or found.numel() < rows * columns:
            found = torch.empty(rows * columns, dtype=self._place.dtype, device=self._place.device)
            self._rooms[name] = found
        return found[: rows * columns].view(rows, columns)

    def _recalled(self, number: int, tokens: Tokens, query: Tokens, bank: Bank) -> Tokens:
        keys, values = bank.keys(number), bank.values(number)
        if self._narrow:
            return self._after[number].onto(tokens, self._in_blocks(query, keys, values))
        return tokens + F.scaled_dot_product_attention(query[None, None], keys[None, None], values[None, None])[0, 0]

    def _in_blocks(self, query: Tokens, keys: Tokens, values: Tokens) -> Tokens:
        query = query * query.shape[-1] ** -0.5
        result = query.new_empty((len(query), values.shape[-1]))
        for asking, answer in zip(query.split(_ROWS), result.split(_ROWS), strict=True):
            shares = self.room("shares", len(asking), len(keys))
            torch.mm(asking, keys.T, out=shares)
            torch.softmax(shares, -1, out=shares)
            torch.mm(shares, values, out=answer)
        return result


class _Layer:
    """What a layer does with a slice itself, before and after it is held against memories."""

    def __init__(self, given: Any, turn: torch.Tensor, place: Place) -> None:
        own = given.self_attn
        self._turn = turn
        self._norms = [Norm(place, norm) for norm in (given.layer_norm1, given.layer_norm2, given.layer_norm3)]
        self._own_pair = stacked(place, own.q_proj, own.k_proj)
        # One head: as above, values may be projected after they are summed
        self._own_after = Linear(place, *in_a_row(own.o_proj, own.v_proj))
        self._query = taken(place, given.cross_attn_image.q_proj)
        self._wide, self._back = taken(place, given.linear1), taken(place, given.linear2)

    def itself(self, tokens: Tokens) -> Tokens:
        normed = self._norms[0](tokens)
        pair = self._own_pair(normed).unflatten(-1, (2, -1)).transpose(0, 1)
        turn_in_place(pair, self._turn)
        found = F.scaled_dot_product_attention(pair[:1, None], pair[1:, None], normed[None, None])[0, 0]
        return self._own_after.onto(tokens, found)

    def query(self, tokens: Tokens) -> Tokens:
        result = self._query(self._norms[1](tokens))
        turn_in_place(result, self._turn)
        return result

    def forward(self, tokens: Tokens) -> Tokens:
        return self._back.onto(tokens, self._wide.relu(self._norms[2](tokens)))


def turn_in_place(tokens: torch.Tensor, turn: torch.Tensor) -> None:
    """Turn pairs of channels by one complex factor for each token and pair; shape ``(…, tokens, channels)``."""
    pairs = tokens.float().unflatten(-1, (-1, 2))
    torch.view_as_complex(pairs).mul_(turn)
    if tokens.dtype != torch.float32:
        tokens.copy_(pairs.flatten(-2))


def _ages(network: Any, attentions: list[Any], turn: torch.Tensor, place: Place) -> torch.Tensor:
    """Return what place and age add to keys: projection and turn are linear, so whatever the memory holds."""
    shape = (1, network.mem_dim, *network.backbone_feature_sizes[-1])
    places = network.memory_encoder.position_encoding(shape, torch.device("cpu"), torch.float32)
    ages = network.memory_temporal_positional_encoding.detach()[:, 0]
    where = (places.flatten(2).transpose(1, 2) + ages).double()
    result = torch.stack([F.linear(where, *weights(attention.k_proj)).float() for attention in attentions])
    turn_in_place(result, turn)
    return place.put(result)
