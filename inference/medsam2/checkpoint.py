"""MedSAM2's weights: the published checkpoint's names, and the ones that transformers gives the same tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from domain.errors import EngineFailed

Tensors = Mapping[str, torch.Tensor]

EXPECTED = (
    "Expected is a SAM 2.1 Hiera-Tiny checkpoint of MedSAM2, e.g. MedSAM2_latest.pt: a torch file that holds "
    '{"model": 471 tensors}, or what `voxgate weights convert` makes of it.'
)
_FORMAT = "voxgate-medsam2-1"

_HEADS = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|object_pointer_proj)"
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
         "prompt_encoder.shared_embedding.positional_embedding"),
        (r"^sam_prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
        (r"^sam_prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
        (r"^sam_prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
        (r"^sam_prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
        (r"^sam_prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^sam_mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
        (r"^sam_mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
        (r"^sam_mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (rf"{_HEADS}\.layers\.0\.", r"\1.proj_in."),
        (rf"{_HEADS}\.layers\.1\.", r"\1.layers.0."),
        (rf"{_HEADS}\.layers\.2\.", r"\1.proj_out."),
        (r"mlp\.layers\.0\.", "mlp.proj_in."),
        (r"mlp\.layers\.1\.", "mlp.proj_out."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
        (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
        (r"dwconv\.", "depthwise_conv."),
        (r"pwconv(\d)\.", r"pointwise_conv\1."),
        (r"\.gamma$", ".scale"),
        (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
        (r"\bnorm(\d?)\.", r"layer_norm\1."),
        (r"\bnorm_final_attn\.", "layer_norm_final_attn."),
        (r"\bout_proj\.", "o_proj."),
    )
)  # fmt: skip
_DOWNSAMPLER = re.compile(r"mask_downsampler\.encoder\.(\d+)\.")
_POINT = re.compile(r"sam_prompt_encoder\.point_embeddings\.(\d)\.weight")
_IMAGE_EMBEDDING = "shared_image_embedding.positional_embedding"
_PROMPT_EMBEDDING = "prompt_encoder.shared_embedding.positional_embedding"
_POINT_EMBEDDING = "prompt_encoder.point_embed.weight"


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a published checkpoint, or of a converted one, under transformers' names.

    Nothing in the file is executed (``weights_only``).

    Raises
    ------
    EngineFailed
        The file holds something else; says what was expected.
    """
    tensors = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if any(name.startswith("image_encoder.") for name in tensors):
        return renamed(tensors)
    return dict(tensors)


def convert(source: Path, target: Path) -> int:
    """Write a published checkpoint as safetensors under transformers' names; return the number of tensors.

    Raises
    ------
    EngineFailed
        ``source`` is not a MedSAM2 checkpoint.
    """
    from inference.medsam2.network import network_of

    tensors = read_weights(source)
    network_of(tensors)  # strict: a file that does not fit is refused before anything is written
    temporary = target.with_name(f".{target.name}.tmp")
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, temporary, {"format": _FORMAT})
    temporary.replace(target)
    return len(tensors)


def renamed(original: Tensors) -> dict[str, torch.Tensor]:
    """Return the tensors of a published checkpoint under transformers' names."""
    points = {int(found[1]): value for name, value in original.items() if (found := _POINT.fullmatch(name))}
    tensors = {_renamed(name): value for name, value in original.items() if not _POINT.fullmatch(name)}
    if len(points) == 4:
        tensors[_POINT_EMBEDDING] = torch.cat([points[number] for number in range(4)])
    if _PROMPT_EMBEDDING in tensors:
        tensors[_IMAGE_EMBEDDING] = tensors[_PROMPT_EMBEDDING]
    return tensors


def _renamed(name: str) -> str:
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return _DOWNSAMPLER.sub(_downsampler, name)


def _downsampler(found: re.Match[str]) -> str:
    """Return the place of a layer that the original counts through: convolution, normalisation, activation."""
    layer, kind = divmod(int(found[1]), 3)
    return f"mask_downsampler.layers.{layer}.{('conv', 'layer_norm')[kind]}."


def _torch_file(path: Path) -> Tensors:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken zip, a pickle that would run code, an old format: torch names no base class
        raise EngineFailed(f"The weights cannot be read as a torch file of tensors. {EXPECTED}") from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise EngineFailed(f'The weights are a torch file without a table "model". {EXPECTED}')
    return tensors


def _safetensors(path: Path) -> Tensors:
    try:
        tensors: Tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise EngineFailed(f"The weights cannot be read as safetensors. {EXPECTED}") from error
    return tensors
