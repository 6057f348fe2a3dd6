"""Writes the answer, and finds the states of its special tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from domain.question import Sampling, Withdrawn
from inference.medversa.network import Network


class _Stops(StoppingCriteria):
    """Ends an answer at ``###``, in any spelling, and asks between tokens whether somebody still waits."""

    def __init__(self, stops: Sequence[Sequence[int]], cancelled: Callable[[], bool]) -> None:
        self._stops = [list(stop) for stop in stops]
        self._cancelled = cancelled

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        if self._cancelled():
            raise Withdrawn
        rows = input_ids.tolist()
        ended = [any(row[-len(stop) :] == stop for stop in self._stops) for row in rows]
        return torch.tensor(ended, device=input_ids.device)


def generate(
    network: Network,
    embeddings: Tensor,
    sampling: Sampling,
    stops: Sequence[Sequence[int]],
    cancelled: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Return the ids of the answer to embeddings ``(1, length, hidden)``, with the stop, without a leading BOS."""
    sampled = {"temperature": sampling.temperature, "top_p": sampling.top_p} if sampling.do_sample else {}
    beams = {"length_penalty": sampling.length_penalty} if sampling.num_beams > 1 else {}
    config = GenerationConfig(
        num_beams=sampling.num_beams,
        do_sample=sampling.do_sample,
        # Counted from the embeddings' end, as the callers mean it; min_length would count from nothing.
        min_new_tokens=min(sampling.min_length, sampling.max_new_tokens),
        max_new_tokens=sampling.max_new_tokens,
        repetition_penalty=sampling.repetition_penalty,
        bos_token_id=1,
        eos_token_id=network.sizes.eos_token_id,
        pad_token_id=0,
        **sampled,
        **beams,
    )
    criteria = StoppingCriteriaList([_Stops(stops, cancelled)])
    devices = [embeddings.device] if embeddings.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if sampling.seed is None:
            torch.seed()
        else:
            torch.manual_seed(sampling.seed)
        found = network.llama_model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
            generation_config=config,
            stopping_criteria=criteria,
        )
    ids: list[int] = found[0].tolist()
    return _until_stop(ids, stops, network.sizes.eos_token_id)


def _until_stop(ids: list[int], stops: Sequence[Sequence[int]], eos: int) -> list[int]:
    """Cut after the first stop: of several beams, the one that is returned may go on in padding."""
    for end in range(1, len(ids) + 1):
        if ids[end - 1] == eos or any(ids[max(0, end - len(stop)) : end] == list(stop) for stop in stops):
            return ids[:end]
    return ids


def states(network: Network, embeddings: Tensor, ids: Sequence[int]) -> Tensor:
    """Return the last hidden state ``(length + new, hidden)``, in float32, of prompt and answer read once more.

    Row ``length + i`` is the state with token ``i`` of the answer as input: what the heads were trained on. Reading
    the answer again, rather than keeping the states of its writing, gives that row for a last token too, and for the
    beam that won.
    """
    answer = torch.tensor([list(ids)], dtype=torch.long, device=embeddings.device)
    told = network.llama_model.get_input_embeddings()(answer)
    whole = torch.cat([embeddings, told], dim=1)
    out: Tensor = network.llama_model.model(inputs_embeds=whole).last_hidden_state[0]
    return out.to(torch.float32)
