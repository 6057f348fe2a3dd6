"""The network: image encoders, language model, and the heads that read its tokens. Shapes are in the docstrings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, SwinConfig, SwinModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from inference.medversa import unet2d, unet3d
from inference.medversa.language import LanguageModel
from inference.medversa.preprocess import IMAGE_SIZE

_GROUPS = 16
_DETECTION_WIDTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What differs between checkpoints, and which heads they have."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    positions: int
    rms_norm_eps: float
    rope_theta: float
    eos_token_id: int
    swin_width: int
    swin_depths: tuple[int, ...]
    swin_heads: tuple[int, ...]
    swin_window: int
    has_volumes: bool
    has_image_masks: bool
    has_boxes: bool


class Network(nn.Module):
    """MedVersa. Encoders and heads compute in float32, the language model in the precision of its weights.

    Built without values: ``loading`` puts the checkpoint's in. The attributes have the checkpoint's names.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.visual_encoder_2d = SwinModel(_swin_config(sizes), add_pooling_layer=False)
        width = sizes.swin_width << (len(sizes.swin_depths) - 1)
        self.ln_vision_2d = nn.LayerNorm(width)
        self.llama_proj_2d = nn.Linear(width, sizes.hidden)
        if sizes.has_volumes:
            deepest = unet3d.CHANNELS[-1]
            self.visual_encoder_3d = unet3d.UNet3d()
            self.ln_vision_3d = nn.LayerNorm(deepest)
            self.llama_proj_3d = nn.Linear(deepest, sizes.hidden)
            self.text2seg_3d = nn.Sequential(nn.LayerNorm(sizes.hidden), nn.Linear(sizes.hidden, deepest))
            self.text2seg_3d_gn = nn.GroupNorm(_GROUPS, deepest)
        if sizes.has_image_masks:
            self.model_seg_2d = unet2d.UNet2d()
            self.text2seg_2d = nn.Sequential(nn.LayerNorm(sizes.hidden), nn.Linear(sizes.hidden, unet2d.BOTTLENECK))
            self.text2seg_2d_gn = nn.GroupNorm(_GROUPS, unet2d.BOTTLENECK)
        if sizes.has_boxes:
            self.text_det = nn.Sequential(
                nn.LayerNorm(sizes.hidden),
                nn.Linear(sizes.hidden, _DETECTION_WIDTH),
                nn.ReLU(),
                nn.LayerNorm(_DETECTION_WIDTH),
                nn.Linear(_DETECTION_WIDTH, 4),
            )
        self.llama_model = _language_model(sizes)

    def image_tokens(self, images: Tensor) -> Tensor:
        """Return soft tokens ``(n, 9, hidden)`` of images ``(n, 3, 224, 224)``."""
        features = self.visual_encoder_2d(images).last_hidden_state
        side = round(features.shape[1] ** 0.5)
        grid = features.transpose(1, 2).unflatten(2, (side, side))
        pooled = functional.adaptive_avg_pool2d(grid, 3).flatten(2).transpose(1, 2)
        tokens: Tensor = self.llama_proj_2d(self.ln_vision_2d(pooled))
        return tokens

    def volume_features(self, volume: Tensor) -> list[Tensor]:
        """Return the five feature levels of a volume ``(1, 1, 64, 192, 192)``; used by tokens and masks."""
        return self.visual_encoder_3d.encode(volume)

    def volume_tokens(self, levels: list[Tensor]) -> Tensor:
        """Return soft tokens ``(1, 9, hidden)`` of a volume's features."""
        pooled = functional.adaptive_avg_pool3d(levels[-1], (1, 3, 3)).flatten(2).transpose(1, 2)
        tokens: Tensor = self.llama_proj_3d(self.ln_vision_3d(pooled))
        return tokens

    def embeddings(self, ids: Tensor, soft: Tensor, places: Tensor) -> Tensor:
        """Return input embeddings ``(1, length, hidden)`` of ids, with soft tokens at their places.

        Soft tokens are rounded to bfloat16 whatever the precision, as they were in training.
        """
        table = self.llama_model.get_input_embeddings()
        embedded: Tensor = table(ids[None]).clone()
        embedded[0, places] = soft.reshape(-1, soft.shape[-1]).to(torch.bfloat16).to(embedded.dtype)
        return embedded

    def image_mask(self, image: Tensor, state: Tensor) -> Tensor:
        """Return logits ``(224, 224)`` for one image ``(3, 224, 224)`` and one state ``(hidden,)``."""
        levels = self.model_seg_2d.encode(image[None])
        condition = self.text2seg_2d(state[None])[..., None, None]
        levels[-1] = self.text2seg_2d_gn(levels[-1] + condition)
        return self.model_seg_2d.decode(levels)[0, 0]

    def volume_mask(self, levels: list[Tensor], state: Tensor) -> Tensor:
        """Return logits ``(64, 192, 192)`` for a volume's features and one state ``(hidden,)``."""
        condition = self.text2seg_3d(state[None])[..., None, None, None]
        conditioned = [*levels[:-1], self.text2seg_3d_gn(levels[-1] + condition)]
        return self.visual_encoder_3d.decode(conditioned)[0, 0]

    def box(self, state: Tensor) -> Tensor:
        """Return x1, y1, x2, y2 as fractions of width and height for one state ``(hidden,)``."""
        box: Tensor = self.text_det(state)
        return box


def _swin_config(sizes: Sizes) -> SwinConfig:
    return SwinConfig(
        image_size=IMAGE_SIZE,
        patch_size=4,
        embed_dim=sizes.swin_width,
        depths=list(sizes.swin_depths),
        num_heads=list(sizes.swin_heads),
        window_size=sizes.swin_window,
    )


def _language_model(sizes: Sizes) -> LanguageModel:
    """Return the language model without memory for its weights: they are taken over as they are read."""
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        max_position_embeddings=sizes.positions,
        rms_norm_eps=sizes.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        bos_token_id=1,
        eos_token_id=sizes.eos_token_id,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LanguageModel(config)
    # Its tables of frequencies are computed, not loaded, and stay in float32: bfloat16 costs 4e-3 in the states.
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    return model
