"""From the names and shapes of a checkpoint to those of the network: sizes, groups, low-rank parts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import ConfigurationError
from inference.medversa.network import Sizes

Shapes = Mapping[str, tuple[int, ...]]

_LLAMA = "llama_model.base_model.model."
_SECOND_NAMES = {
    "embed_tokens.weight": f"{_LLAMA}model.embed_tokens.weight",
    "embed_states.weight": f"{_LLAMA}lm_head.0.weight",
}
"""The original registers both tensors twice, and a safetensors file keeps the second name only."""
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$|relative_position_index$|^text2seg_[23]d_ln\.")
_LORA = re.compile(r"\.lora_([AB])(\.default)?\.weight$")
NEWER = (
    "visual_encoder_2d_vqa.", "ln_vision_2d_vqa.", "llama_proj_2d_vqa.",
    "model_sam_2d.", "text2sam_2d.", "text2sam_2d_bn.",
)  # fmt: skip
"""Groups of newer checkpoints: known, listed, not used."""
_SWIN_RENAMED = (
    ("attention.self.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)
"""Names of the checkpoint, and of transformers since 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one tensor of the network comes from: a key, and the two low-rank factors to be merged into it."""

    key: str
    lora_a: str | None = None
    lora_b: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``sources`` by the network's names; ``unused`` are groups of newer checkpoints that were seen."""

    sources: Mapping[str, Source]
    unused: tuple[str, ...]


def layout(shapes: Shapes, wanted: Shapes) -> Layout:
    """Find every tensor of the network in a checkpoint.

    Raises
    ------
    ConfigurationError
        Lists the keys that are missing, that nobody knows, and whose shapes do not fit.
    """
    named = _named(shapes, wanted)
    weights = {name: key for name, key in named.items() if not _LORA.search(name)}
    factors = {name: key for name, key in named.items() if _LORA.search(name)}
    unused = tuple(prefix.rstrip(".") for prefix in NEWER if any(key.startswith(prefix) for key in shapes))
    homeless = [key for name, key in factors.items() if f"{_LORA.sub('', name)}.weight" not in weights]
    faults = _listed("missing", sorted(wanted.keys() - weights.keys()))
    faults += _listed("unexpected", sorted([weights[name] for name in weights.keys() - wanted.keys()] + homeless))
    faults += _listed(
        "of another shape", [key for key in weights if key in wanted and shapes[weights[key]] != wanted[key]]
    )
    if faults:
        raise ConfigurationError("the checkpoint does not fit: " + "; ".join(faults))
    return Layout(sources={name: _source(name, key, factors) for name, key in weights.items()}, unused=unused)


def _named(shapes: Shapes, wanted: Collection[str]) -> dict[str, str]:
    """Return key by the network's name, without what is computed and what is not used."""
    found: dict[str, str] = {}
    for key in sorted(shapes, key=lambda key: key in _SECOND_NAMES):  # the first registration wins
        if not _COMPUTED.search(key) and not key.startswith(NEWER):
            found.setdefault(_name(_SECOND_NAMES.get(key, key), wanted), key)
    return found


def _name(key: str, wanted: Collection[str]) -> str:
    if key.startswith(_LLAMA):
        inner = key.removeprefix(_LLAMA).replace("lm_head.0.", "lm_head.").replace(".base_layer.", ".")
        return f"llama_model.{inner}"
    if key.startswith("visual_encoder_2d.") and key not in wanted:
        for old, new in _SWIN_RENAMED:
            if f".{old}" in key:
                return key.replace(old, new)
    return key


def _source(name: str, key: str, factors: Mapping[str, str]) -> Source:
    stem = name.removesuffix(".weight")
    parts = {
        match.group(1): factors[other]
        for other in factors
        if (match := _LORA.search(other)) and _LORA.sub("", other) == stem
    }
    if len(parts) == 1:
        raise ConfigurationError(f"the checkpoint does not fit: {key} has one of two low-rank factors")
    return Source(key=key, lora_a=parts.get("A"), lora_b=parts.get("B"))


def _listed(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    shown = ", ".join(keys[:12])
    return [f"{len(keys)} {what}: {shown}" + (", …" if len(keys) > 12 else "")]


def sizes(shapes: Shapes, base: Mapping[str, Any]) -> Sizes:
    """Read the sizes from the checkpoint's shapes and the base model's ``config.json``.

    Raises
    ------
    ConfigurationError
        The language model or the image encoder is not there, or the base model is another one.
    """
    known = {_SECOND_NAMES.get(key, key): shape for key, shape in shapes.items()}
    try:
        return _sizes(known, base)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ConfigurationError(f"not a MedVersa checkpoint: {error} is not in it") from error


def _sizes(shapes: Shapes, base: Mapping[str, Any]) -> Sizes:
    vocabulary, hidden = shapes[f"{_LLAMA}model.embed_tokens.weight"]
    first = f"{_LLAMA}model.layers.0."
    if int(base.get("hidden_size", hidden)) != hidden:
        raise ConfigurationError(
            f"the base model has hidden_size {base['hidden_size']}, the checkpoint {hidden}: it is not its base model"
        )
    frequencies = shapes.get(f"{first}self_attn.rotary_emb.inv_freq")
    heads = int(base["num_attention_heads"]) if frequencies is None else hidden // (2 * frequencies[0])
    stages = range(1 + max(_numbers(shapes, r"visual_encoder_2d\.encoder\.layers\.(\d+)\.")))
    depths = [1 + max(_numbers(shapes, rf"visual_encoder_2d\.encoder\.layers\.{i}\.blocks\.(\d+)\.")) for i in stages]
    tables = [_bias_table(shapes, stage) for stage in stages]
    return Sizes(
        hidden=hidden,
        intermediate=_shape(shapes, first, "mlp.gate_proj")[0],
        layers=1 + max(_numbers(shapes, re.escape(_LLAMA) + r"model\.layers\.(\d+)\.")),
        heads=heads,
        key_value_heads=_shape(shapes, first, "self_attn.k_proj")[0] // (hidden // heads),
        vocabulary=vocabulary,
        positions=int(base.get("max_position_embeddings", 4096)),
        rms_norm_eps=float(base.get("rms_norm_eps", 1e-5)),
        rope_theta=float(base.get("rope_theta", 10000.0)),
        eos_token_id=int(base.get("eos_token_id", 2)),
        swin_width=shapes["visual_encoder_2d.embeddings.patch_embeddings.projection.weight"][0],
        swin_depths=tuple(depths),
        swin_heads=tuple(table[1] for table in tables),
        swin_window=(round(tables[0][0] ** 0.5) + 1) // 2,
        has_volumes=any(key.startswith("visual_encoder_3d.") for key in shapes),
        has_image_masks=any(key.startswith("model_seg_2d.") for key in shapes),
        has_boxes=any(key.startswith("text_det.") for key in shapes),
    )


def _shape(shapes: Shapes, prefix: str, name: str) -> tuple[int, ...]:
    wrapped = f"{prefix}{name}.base_layer.weight"
    return shapes[wrapped] if wrapped in shapes else shapes[f"{prefix}{name}.weight"]


def _numbers(shapes: Shapes, pattern: str) -> set[int]:
    return {int(match.group(1)) for key in shapes if (match := re.match(pattern, key))}


def _bias_table(shapes: Shapes, stage: int) -> tuple[int, ...]:
    prefix = f"visual_encoder_2d.encoder.layers.{stage}.blocks.0."
    return next(
        s for key, s in shapes.items() if key.startswith(prefix) and key.endswith("relative_position_bias_table")
    )
