"""The language model: Llama, whose next tokens for several answers are worked out in one pass.

A pass reads every weight once, which is what takes the time; the rows of several answers share it. Each answer keeps
its own past: nothing is padded or masked, and a prompt is read alone. So a row gets the same bits whatever stands
beside it, as long as the device's matrix products do not depend on how many rows they have: that is tried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from inference.medversa.settings import MOST_BATCH

_PASTS = (3, 1, 7, 2, 12, 5, 4, 9)
"""Lengths of what the rows of a trial have behind them."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What an answer asks of the model: the keyword arguments of ``forward``."""

    asked: dict[str, Any] = field(repr=False)

    @property
    def rows(self) -> int:
        """Return how many rows it has in a pass for one more token; 0 where it is a prompt to be read."""
        ids, past = self.asked.get("input_ids"), self.asked.get("past_key_values")
        if ids is None or past is None or not past.get_seq_length() or ids.shape[1] != 1:
            return 0
        return int(ids.shape[0])


class LanguageModel(LlamaForCausalLM):
    """Llama. While somebody makes its passes for several answers it hands its calls over.

    Attributes
    ----------
    widths
        Numbers of rows that a pass may have, ascending, the last one ``MOST_BATCH``; a pass of fewer has empty rows.
        None: every call has a pass of its own.
    """

    hand_over: Callable[[Call], Any] | None = None
    widths: tuple[int, ...] = ()

    @wraps(LlamaForCausalLM.forward)
    def forward(self, **asked: Any) -> Any:
        """See ``LlamaForCausalLM.forward``."""
        if self.hand_over is not None:
            return self.hand_over(Call(asked))
        return super().forward(**asked)

    def answer(self, calls: Sequence[Call]) -> list[Any]:
        """Return what the model says to each call, or the error that it met."""
        found: dict[int, Any] = {}
        joint: list[Call] = []
        for call in calls:
            if not (self.widths and call.rows):
                found |= self._tried([call], self._alone)
                continue
            if joint and sum(other.rows for other in joint) + call.rows > MOST_BATCH:
                found |= self._tried(joint, self._pass)
                joint = []
            joint.append(call)
        if joint:
            found |= self._tried(joint, self._pass)
        return [found[id(call)] for call in calls]

    def _tried(self, calls: Sequence[Call], work: Callable[[Sequence[Call]], list[Any]]) -> dict[int, Any]:
        """Return what each call gets; an error belongs to those who asked, not to who works it out."""
        try:
            said = work(calls)
        except Exception as error:
            said = [error] * len(calls)
        return dict(zip(map(id, calls), said, strict=True))

    def _alone(self, calls: Sequence[Call]) -> list[Any]:
        return [super(LanguageModel, self).forward(**call.asked) for call in calls]

    def _pass(self, calls: Sequence[Call]) -> list[Any]:
        """Return the next token's logits ``(rows, 1, vocabulary)`` of each call, and extend its past."""
        pasts = [call.asked["past_key_values"] for call in calls]
        ids = torch.cat([call.asked["input_ids"][:, 0] for call in calls])
        width = next(width for width in self.widths if width >= len(ids))
        logits = self.logits(ids, [call.rows for call in calls], pasts, width)
        parts = logits[:, None].split([call.rows for call in calls])
        return [
            CausalLMOutputWithPast(logits=part, past_key_values=past) for part, past in zip(parts, pasts, strict=True)
        ]

    def logits(
        self, ids: Tensor, rows: Sequence[int], pasts: Sequence[Any], width: int, layers: int | None = None
    ) -> Tensor:
        """Return the logits ``(rows, vocabulary)`` after ``ids`` ``(rows,)``, of which each past has some rows.

        The rows of the pass are ``width``; the first ``layers`` are gone through, or all.
        """
        empty = width - len(ids)
        places = [place for past, own in zip(pasts, rows, strict=True) for place in [past.get_seq_length()] * own]
        hidden = self.model.embed_tokens(torch.cat([ids, ids.new_zeros(empty)]))
        positions = torch.tensor([*places, *[0] * empty], device=hidden.device)[:, None]
        turned = self.model.rotary_emb(hidden[:, None], position_ids=positions)
        bounds = list(pairwise([0, *torch.tensor(rows).cumsum(0).tolist()]))
        for layer in self.model.layers[:layers]:
            hidden = hidden + _attended(layer.self_attn, layer.input_layernorm(hidden), turned, bounds, pasts)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        found: Tensor = self.lm_head(self.model.norm(hidden))
        return found[: len(ids)]


def _attended(attention: Any, hidden: Tensor, turned: Any, bounds: Sequence[tuple[int, int]], pasts: Any) -> Tensor:
    """Return what the rows ``(rows, width)`` take from their own past, which they join."""
    shape = (len(hidden), 1, -1, attention.head_dim)
    parts = (attention.q_proj(hidden), attention.k_proj(hidden), attention.v_proj(hidden))
    queries, keys, values = (part.view(shape).transpose(1, 2) for part in parts)
    queries, keys = apply_rotary_pos_emb(queries, keys, *turned)
    found = torch.zeros_like(hidden)
    for (begin, end), past in zip(bounds, pasts, strict=True):
        known = past.update(keys[begin:end], values[begin:end], attention.layer_idx)
        seen, _ = sdpa_attention_forward(
            attention, queries[begin:end], *known, None, scaling=attention.scaling, is_causal=False
        )
        found[begin:end] = seen.reshape(end - begin, -1)
    projected: Tensor = attention.o_proj(found)
    return projected


@torch.inference_mode()
def even_widths(model: LanguageModel) -> tuple[int, ...]:
    """Return the numbers of rows with which each row gets the same bits, wherever it stands; none where none do.

    Tried on one layer and the output rows: the others have the same shapes.
    """
    whole = _trial(model, range(MOST_BATCH))
    order = [*range(3, MOST_BATCH), 0, 1, 2]
    if not torch.equal(_trial(model, order), whole[order]):
        return ()
    fewer = (rows for rows in range(1, MOST_BATCH) if torch.equal(_trial(model, range(rows)), whole[:rows]))
    return (*fewer, MOST_BATCH)


def _trial(model: LanguageModel, order: Sequence[int]) -> Tensor:
    """Return the logits of rows with pasts of different lengths, in an order."""
    ids = torch.tensor([17 + number for number in order], device=model.device)
    pasts = [_past(model, number) for number in order]
    return model.logits(ids, [1] * len(order), pasts, len(order), layers=1)


def _past(model: LanguageModel, number: int) -> DynamicCache:
    """Return the past of a row of a trial: the same numbers each time."""
    attention = model.model.layers[0].self_attn
    heads, width = model.config.num_key_value_heads, attention.head_dim
    values = torch.linspace(-1, 1, heads * _PASTS[number] * width + number)[number:]
    part = values.sin().view(1, heads, _PASTS[number], width).to(model.device, model.dtype)
    past = DynamicCache(config=model.config)
    past.update(part, -part, 0)
    return past
