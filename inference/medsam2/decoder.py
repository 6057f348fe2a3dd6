"""The mask of an object on a slice where nothing was drawn: transformers' ``Sam2VideoMaskDecoder`` without a prompt.

The same numbers by a shorter way. The network offers three masks, and its scores tell before which one is taken: only
that one is made. The eight tokens are folded into the projections of the thousand, which are never projected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from inference.medsam2.layers import Linear, Norm, Place, Tokens, taken

_ABSENT = -1024.0
_SCORES, _MASKS = 1, 2
"""The tokens of the scores, and of the first mask; before them that of the object."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fine:
    """The two finer levels of a slice's features; the pixels of a coarser one lie together."""

    half: torch.Tensor
    """Shape ``(tokens, 4, channels)``."""
    quarter: torch.Tensor
    """Shape ``(4 * tokens, 4, channels)``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One object on one slice."""

    logits: torch.Tensor
    """Shape ``(size / 4, size / 4)``, float32."""
    score: float
    """Above 0: the object is there."""
    pointer: torch.Tensor


class MaskDecoder:
    """The decoder, with the weights of a network that is on the CPU in float32.

    All but the enlargement is in float32: what chooses is not rounded, and it takes as long as in bfloat16.
    """

    def __init__(self, network: Any, place: Place) -> None:
        given, exact = network.mask_decoder, place.exact
        nothing = network.prompt_encoder.not_a_point_embed.weight
        tokens = [given.obj_score_token.weight, given.iou_token.weight, given.mask_tokens.weight, nothing, nothing]
        self._place, self._exact = place, exact
        self._side = network.backbone_feature_sizes[-1][0]
        self._tokens = exact.put(torch.cat(tokens))
        self._undrawn = exact.put(network.prompt_encoder.no_mask_embed.weight)
        self._where = exact.put(network.get_image_wide_positional_embeddings()[0].flatten(1).T)
        self._layers = [_TwoWay(layer, exact) for layer in given.transformer.layers]
        self._last = _Asking(given.transformer.final_attn_token_to_image, exact)
        self._norm = Norm(exact, given.transformer.layer_norm_final_attn)
        self._scores, self._there = _Chain(given.iou_prediction_head, exact), _Chain(given.pred_obj_score_head, exact)
        self._pointer, self._no_pointer = (
            _Chain(network.object_pointer_proj, exact),
            exact.put(network.no_object_pointer[0]),
        )
        self._half, self._half_norm = _Enlarging(given.upscale_conv1, place), Norm(place, given.upscale_layer_norm)
        self._quarter = _Enlarging(given.upscale_conv2, place)
        self._masks = [_Chain(mlp, exact) for mlp in given.output_hypernetworks_mlps]

    def fine(self, half: Tokens, quarter: Tokens) -> Fine:
        """Return what all objects share of a slice."""
        side = self._side
        near = half.reshape(side, 2, side, 2, -1).transpose(1, 2).reshape(side * side, 4, -1)
        far = quarter.reshape(side, 2, 2, side, 2, 2, -1).permute(0, 3, 1, 4, 2, 5, 6).reshape(4 * side * side, 4, -1)
        return Fine(half=near + self._half.bias, quarter=far + self._quarter.bias)

    def __call__(self, picture: Tokens, fine: Fine) -> Drawn:
        """Return what is found in the tokens of a slice."""
        picture = picture.float() + self._undrawn
        tokens = self._tokens
        for number, layer in enumerate(self._layers):
            tokens, picture = layer(tokens, picture, self._tokens, self._where, first=number == 0)
        asked = self._last(tokens + self._tokens, picture + self._where, picture)
        tokens = self._norm(tokens + asked)
        score = float(self._there(tokens[0]))
        if score <= 0:
            logits = self._tokens.new_full((4 * self._side, 4 * self._side), _ABSENT)
            return Drawn(logits=logits, score=score, pointer=self._no_pointer)
        # The first of the masks is for several points that were drawn
        best = 1 + int(self._scores(tokens[_SCORES])[1:].sigmoid().argmax())
        token = tokens[_MASKS + best]
        logits = self._mask(picture.to(self._place.dtype), fine, self._masks[best](token))
        return Drawn(logits=logits, score=score, pointer=self._pointer(token))

    def _mask(self, picture: Tokens, fine: Fine, shares: torch.Tensor) -> torch.Tensor:
        half = F.gelu(self._half_norm(self._half(picture).view(fine.half.shape).add_(fine.half)))
        quarter = F.gelu(self._quarter(half.flatten(0, 1)).view(fine.quarter.shape).add_(fine.quarter))
        found = torch.mv(quarter.flatten(0, 1), shares.to(quarter.dtype)).float()
        side = self._side
        return found.view(side, side, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(4 * side, 4 * side)


class _TwoWay:
    """Tokens ask each other and the picture, and the picture asks the tokens."""

    def __init__(self, given: Any, place: Place) -> None:
        self._own = _Asking(given.self_attn, place)
        self._asking = _Asking(given.cross_attn_token_to_image, place)
        self._asked = _Asked(given.cross_attn_image_to_token, place)
        self._forward = _Chain(given.mlp, place)
        self._norms = [Norm(place, getattr(given, f"layer_norm{number}")) for number in (1, 2, 3, 4)]

    def __call__(
        self, tokens: Tokens, picture: Tokens, names: Tokens, where: Tokens, *, first: bool
    ) -> tuple[Tokens, Tokens]:
        if first:
            tokens = self._own(tokens, tokens, tokens)
        else:
            tokens = tokens + self._own(tokens + names, tokens + names, tokens)
        tokens = self._norms[0](tokens)
        placed = picture + where
        tokens = self._norms[1](tokens + self._asking(tokens + names, placed, picture))
        tokens = self._norms[2](tokens + self._forward(tokens))
        return tokens, self._norms[3](picture + self._asked(placed, tokens + names, tokens))


class _Heads:
    """The projections of an attention, head by head; shape ``(heads, channels of a head, channels)``."""

    def __init__(self, given: Any, place: Place) -> None:
        heads = given.num_attention_heads
        self.scale = given.head_dim**-0.5
        self.query, self.key, self.value = (
            place.put(layer.weight.unflatten(0, (heads, -1))) for layer in (given.q_proj, given.k_proj, given.v_proj)
        )
        self.query_bias, self.key_bias, self.value_bias = (
            place.put(layer.bias.view(heads, 1, -1)) for layer in (given.q_proj, given.k_proj, given.v_proj)
        )
        self.after = taken(place, given.o_proj)


class _Asking(_Heads):
    """A few tokens ask many: these are neither projected to keys nor to values."""

    def __call__(self, asking: Tokens, keys: Tokens, values: Tokens) -> Tokens:
        query = asking @ self.query.mT + self.query_bias
        folded = (query * self.scale) @ self.key  # the keys' bias is the same for all of them, and falls out
        shares = (folded.flatten(0, 1) @ keys.T).softmax(-1)
        found = (shares @ values).view(folded.shape) @ self.value.mT + self.value_bias
        return self.after(found.transpose(0, 1).flatten(1))


class _Asked(_Heads):
    """Many tokens ask a few: they are not projected to queries, nor what they get back afterwards."""

    def __init__(self, given: Any, place: Place) -> None:
        super().__init__(given, place)
        weight = self.after.weight.unflatten(1, (given.num_attention_heads, -1))
        self._out = weight.permute(1, 2, 0).contiguous()

    def __call__(self, asking: Tokens, keys: Tokens, values: Tokens) -> Tokens:
        key = (keys @ self.key.mT + self.key_bias) * self.scale
        offset = (key * self.query_bias).sum(-1, keepdim=True)
        scores = ((key @ self.query).flatten(0, 1) @ asking.T).view(*key.shape[:2], -1)
        shares = (scores + offset).softmax(1).flatten(0, 1)
        value = (values @ self.value.mT + self.value_bias) @ self._out
        return torch.addmm(self.after.bias, shares.T, value.flatten(0, 1))


class _Chain:
    """Linear layers in a row, with a ReLU between them."""

    def __init__(self, given: Any, place: Place) -> None:
        self._layers = [taken(place, layer) for layer in (given.proj_in, *given.layers)]
        self._last = taken(place, given.proj_out)

    def __call__(self, token: torch.Tensor) -> torch.Tensor:
        for layer in self._layers:
            token = layer.relu(token)
        return self._last(token)


class _Enlarging:
    """A transposed convolution that makes four pixels of one, but for its bias."""

    def __init__(self, given: Any, place: Place) -> None:
        self._linear = Linear(place, given.weight.permute(2, 3, 1, 0).flatten(0, 2))
        self.bias = place.put(given.bias)

    def __call__(self, tokens: Tokens) -> Tokens:
        return self._linear(tokens)
