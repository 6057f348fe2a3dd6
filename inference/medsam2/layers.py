"""Layers on tokens: several in a row as one, computed in float64 before anything is rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

Tokens: TypeAlias = torch.Tensor
"""Shape ``(tokens, channels)``; the tokens of a picture lie row by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where layers compute, and whether oneDNN adds their biases itself."""

    device: torch.device
    dtype: torch.dtype
    fused: bool

    @property
    def exact(self) -> Place:
        """The same device in float32."""
        return Place(device=self.device, dtype=torch.float32, fused=False)

    def put(self, value: torch.Tensor) -> torch.Tensor:
        """Return a tensor of its own here, as it is stored in memory."""
        return value.detach().to(self.device, self.dtype, copy=True).contiguous()


def place_of(device: torch.device, dtype: torch.dtype) -> Place:
    """Return the place of a device and an arithmetic."""
    return Place(device=device, dtype=dtype, fused=fuses_bias(device, dtype))


def fuses_bias(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether oneDNN can add biases itself, by trying.

    In bfloat16 PyTorch's own linear layer writes the bias to every row of the result before it multiplies: a twelfth
    of all CPU time. The operation is the one that ``torch.compile`` uses, and not promised to stay.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return False
    one = torch.ones((1, 1), dtype=dtype)
    try:
        return bool(fused_linear(one, one[0], one) == 2 == fused_linear(one, None, one, onto=one))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def fused_linear(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    tokens: torch.Tensor,
    then: str = "none",
    how: str = "",
    onto: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return a linear layer's result by oneDNN, with an activation after it or added to ``onto``."""
    compute = torch.ops.mkldnn._linear_pointwise
    result: torch.Tensor = (
        compute(tokens, weight, bias, then, [], how)
        if onto is None
        else compute.binary(tokens, onto, weight, bias, "add")
    )
    return result


class Linear:
    """A linear layer, of weights in float64."""

    def __init__(self, place: Place, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = place.put(weight)
        self.bias = None if bias is None else place.put(bias)
        self._fused = place.fused

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the result."""
        if self._fused:
            return fused_linear(self.weight, self.bias, tokens)
        result: torch.Tensor = F.linear(tokens, self.weight, self.bias)
        return result

    def onto(self, base: Tokens, tokens: Tokens) -> Tokens:
        """Return ``base`` and the result."""
        if self._fused:
            return fused_linear(self.weight, self.bias, tokens, onto=base)
        return base + self(tokens)

    def relu(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the result, what is below 0 made 0."""
        if self._fused:
            return fused_linear(self.weight, self.bias, tokens, "relu")
        return F.linear(tokens, self.weight, self.bias).relu_()

    def gelu(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the exact GELU of the result."""
        if self._fused:
            return fused_linear(self.weight, self.bias, tokens, "gelu", "none")
        result: torch.Tensor = F.gelu(F.linear(tokens, self.weight, self.bias))
        return result


class Norm:
    """A layer norm over the channels of tokens."""

    def __init__(self, place: Place, given: Any, shift: torch.Tensor | None = None) -> None:
        """Take over a module's; ``shift`` is added to what comes out."""
        self._weight = place.put(given.weight)
        self._bias = place.put(given.bias if shift is None else given.bias + shift)
        self._eps = given.eps

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the tokens normed."""
        result: torch.Tensor = F.layer_norm(tokens, self._weight.shape, self._weight, self._bias, self._eps)
        return result


def weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a linear layer's weight and bias in float64."""
    return layer.weight.detach().double(), layer.bias.detach().double()


def taken(place: Place, layer: Any) -> Linear:
    """Return a module's linear layer."""
    return Linear(place, *weights(layer))


def stacked(place: Place, *layers: Any) -> Linear:
    """Return one layer with the results of several, one behind the other."""
    pairs = [weights(layer) for layer in layers]
    return Linear(place, torch.cat([weight for weight, _ in pairs]), torch.cat([bias for _, bias in pairs]))


def in_a_row(outer: Any, inner: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of one layer in place of two in a row, in float64."""
    (weight, bias), (first, offset) = weights(outer), weights(inner)
    return weight @ first, weight @ offset + bias
