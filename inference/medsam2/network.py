"""The network: transformers' ``Sam2VideoModel`` in MedSAM2's configuration, and the image features of a stack."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import torch
from transformers import Sam2VideoConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoPromptEncoderConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel

from domain.errors import EngineFailed
from inference.medsam2.checkpoint import EXPECTED, Tensors
from inference.medsam2.economy import economised
from inference.medsam2.following import Shared

IMAGE_SIZE = 512
_NAMED = 3
"""So many of the tensors at fault are named."""

Network = Any
"""``Sam2VideoModel``; the core is checked without transformers."""


def configuration(image_size: int = IMAGE_SIZE, **backbone: object) -> Any:
    """Return SAM 2.1 Hiera-Tiny's configuration at MedSAM2's image size (sam2.1_hiera_t512.yaml)."""
    sizes = [image_size // stride for stride in (4, 8, 16)]
    return Sam2VideoConfig(
        image_size=image_size,
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(image_size=[image_size, image_size], **backbone),
            backbone_feature_sizes=[[size, size] for size in sizes],
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=image_size),
        memory_attention_rope_feat_sizes=[sizes[-1], sizes[-1]],
        enable_temporal_pos_encoding_for_object_pointers=True,
        enable_occlusion_spatial_embedding=True,
    )


def network_of(tensors: Tensors) -> Network:
    """Return the network with these weights (transformers' names), on the CPU in float32.

    Raises
    ------
    EngineFailed
        A tensor is missing, unknown or has another shape; says which and what was expected.
    """
    network = Sam2VideoModel(configuration())
    faults = _faults(network.state_dict(), tensors)
    if faults:
        named = "; ".join(faults[:_NAMED])
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise EngineFailed(f"The weights do not fit MedSAM2: {named}{more}. {EXPECTED}")
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=True)
    return network.eval().requires_grad_(False)


def _faults(wanted: Tensors, found: Tensors) -> list[str]:
    missing = [f"{name} is missing" for name in wanted if name not in found]
    unknown = [f"{name} is unknown" for name in found if name not in wanted]
    shapes = [
        f"{name} has the shape {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    return [*shapes, *missing, *unknown]


def placed(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """Return a loaded network where it is to compute; call it once."""
    return economised(network, device, dtype)


class Features:
    """Image features of a stack, computed once for each slice, whatever the directions and objects.

    Stands in for the cache of transformers' video session.

    Parameters
    ----------
    image
        Returns a slice as the network takes it, shape ``(3, size, size)``.
    keep
        Slices that both directions need; of the others, only the last one is kept.
    """

    def __init__(
        self, network: Network, image: Callable[[int], torch.Tensor], keep: Container[int] = range(0)
    ) -> None:
        self._network = network
        self._image = image
        self._keep = keep
        self._kept: dict[int, dict[str, Any]] = {}
        self._last: tuple[int, dict[str, Any]] | None = None
        self._position: list[torch.Tensor] = []
        self._shared: tuple[int, Shared] | None = None
        self.encoded = 0
        """How often the image encoder ran."""

    def get_vision_features(self, index: int) -> dict[str, Any]:
        """Return the features of a slice, as the session asks for them."""
        if index in self._kept:
            return self._kept[index]
        if self._last is None or self._last[0] != index:
            self._last = index, self._encode(index)
        if index in self._keep:
            self._kept[index] = self._last[1]
        return self._last[1]

    def shared(self, index: int) -> Shared:
        """Return what else all objects share of a slice; of the last one only, since it is large."""
        if self._shared is None or self._shared[0] != index:
            seen = self.get_vision_features(index)
            self._shared = index, self._network.following.look(seen["vision_feats"], seen["vision_pos_embeds"])
        return self._shared[1]

    def _encode(self, index: int) -> dict[str, Any]:
        self.encoded += 1
        output = self._network.get_image_features(self._image(index).unsqueeze(0), return_dict=True)
        if not self._position:  # depends on the image size only
            self._position = [level.to(output.fpn_hidden_states[0].dtype) for level in output.fpn_position_encoding]
        return {"vision_feats": list(output.fpn_hidden_states), "vision_pos_embeds": self._position}
