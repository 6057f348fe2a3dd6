"""The language model's weights in 8 or 4 bits, by bitsandbytes: less memory, other answers.

Only the matrices of its layers: embeddings, output rows, encoders and heads stay as they are.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from domain.errors import ConfigurationError

BITS = {"int8": 8, "int4": 4}
_BLOCK = 64
_MATRIX = re.compile(r"^llama_model\..*\.layers\.\d+\..*_proj\.weight$")


def require_bitsandbytes() -> None:
    """Raise ``ConfigurationError`` where the package is not installed."""
    if find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            "engines.medversa.precision: int8 and int4 need the package bitsandbytes; pip install bitsandbytes"
        )


def is_quantised(name: str, weight: Tensor) -> bool:
    """Tell whether a weight of the network is one of the language model's matrices, in whole blocks of 64 inputs."""
    return _MATRIX.match(name) is not None and weight.shape[1] % _BLOCK == 0


def quantised(weight: Tensor, bits: int, device: torch.device, compute: torch.dtype) -> nn.Module:
    """Return a linear layer without bias that holds ``weight`` (outputs, inputs) in 8 (LLM.int8) or 4 bits (NF4).

    ``compute`` is the dtype of what goes in and comes out. The weight is packed on its way to ``device``.
    """
    bnb: Any = import_module("bitsandbytes")
    outputs, inputs = weight.shape
    kept = weight.to(torch.float16 if device.type == "cuda" else torch.float32)
    if bits == 8:
        layer = bnb.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(kept, requires_grad=False, has_fp16_weights=False)
    else:
        layer = bnb.nn.Linear4bit(inputs, outputs, bias=False, compute_dtype=compute, quant_type="nf4")
        layer.weight = bnb.nn.Params4bit(kept, requires_grad=False, quant_type="nf4")
    placed: nn.Module = layer.to(device)
    return placed
