"""Puts a checkpoint into a network."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from domain.errors import ConfigurationError, EngineFailed, EngineUnavailable
from inference.checkpoints import folder_of
from inference.device import Placement, placement
from inference.medversa.checkpoint import Checkpoint, open_checkpoint, read_json
from inference.medversa.language import LanguageModel, even_widths
from inference.medversa.layout import Source, layout, sizes
from inference.medversa.memory import check_memory, free_bytes, needed_bytes
from inference.medversa.network import Network
from inference.medversa.prompt import Tokens
from inference.medversa.quantised import BITS, is_quantised, quantised, require_bitsandbytes
from inference.medversa.settings import MedVersaSettings

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LANGUAGE = "llama_model."
_LORA_ALPHA = 16
_LEAST_ROWS_ON_CPU = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A network ready to run."""

    network: Network
    tokens: Tokens
    place: Placement
    longest_prefix: int
    """``max_txt_len`` of the checkpoint: tokens that the images may take."""
    together: int
    """Questions that are worth answering at once."""
    unused: tuple[str, ...]
    """Groups of newer checkpoints that were seen and are not used."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.place.device


def load(settings: MedVersaSettings) -> Loaded:
    """Read checkpoint and tokenizer.

    Raises
    ------
    ConfigurationError
        Files are missing, or the checkpoint does not fit: every key at fault is listed.
    OutOfDeviceMemory
        The device has too little memory.
    EngineUnavailable
        The device is not there.
    """
    checkpoint = open_checkpoint(folder_of(settings.weights))
    base_name = settings.base_model or str(checkpoint.config.get("llama_model", ""))
    if not base_name:
        raise ConfigurationError("config.json names no llama_model; set engines.medversa.base_model")
    base = folder_of(base_name, checkpoint.path.parent)
    found = sizes(checkpoint.shapes, read_json(base / "config.json"))
    tokens = Tokens(base / "tokenizer.model", found.vocabulary)
    place = _place(settings)
    device = place.device
    precision = _precision(settings.precision, device)
    network = Network(found)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    bits = BITS.get(settings.precision, 0)
    if bits:
        require_bitsandbytes()
    weights = sum(_size(name, value, precision, bits) for name, value in network.state_dict().items())
    check_memory(needed_bytes(weights, has_volumes=found.has_volumes), free_bytes(place), device)
    plan = layout(checkpoint.shapes, wanted)
    alpha = float(checkpoint.config.get("lora_alpha", _LORA_ALPHA))
    for name, source in plan.sources.items():
        dtype = precision if name.startswith(_LANGUAGE) else torch.float32
        value = merged(checkpoint, source, alpha)
        if bits and is_quantised(name, value):
            _replace(network, name, quantised(value, bits, device, precision))
        else:
            _put(network, name, value.to(device, dtype))
    network.to(device).eval().requires_grad_(False)
    together = _joined(network.llama_model, settings, device)
    log.info(
        "medversa loaded",
        extra={
            "device": str(device), "precision": str(precision), "together": together, "unused": plan.unused
        },
    )  # fmt: skip
    return Loaded(
        network=network,
        tokens=tokens,
        place=place,
        longest_prefix=int(checkpoint.config.get("max_txt_len", 256)),
        together=together,
        unused=plan.unused,
    )


def _joined(model: LanguageModel, settings: MedVersaSettings, device: torch.device) -> int:
    """Let the model make passes for several answers where no answer changes by it; return for how many."""
    # Packed matrices are multiplied by what else is there; random numbers of other devices are not kept apart.
    if settings.batch == 1 or settings.precision in BITS or device.type not in ("cpu", "cuda"):
        return 1
    widths = even_widths(model)
    # Empty rows cost a GPU nothing. On a CPU every answer that is written alone would pay for more than one.
    if not widths or (device.type == "cpu" and widths[0] > _LEAST_ROWS_ON_CPU):
        log.info("answers are written one by one: this device rounds by the number of rows")
        return 1
    model.widths = widths
    return settings.batch


def merged(checkpoint: Checkpoint, source: Source, alpha: float) -> Tensor:
    """Return a weight in float32 with its low-rank part added, not rounded in between."""
    weight = checkpoint.read(source.key).to(torch.float32)
    if source.lora_a is None or source.lora_b is None:
        return weight
    down, up = (checkpoint.read(key).to(torch.float32) for key in (source.lora_a, source.lora_b))
    return weight + (alpha / down.shape[0]) * (up @ down)


def _put(network: Network, name: str, value: Tensor) -> None:
    """Replace a parameter: its old one may be without memory, or of another dtype."""
    path, _, last = name.rpartition(".")
    setattr(network.get_submodule(path), last, nn.Parameter(value, requires_grad=False))


def _replace(network: Network, name: str, layer: nn.Module) -> None:
    """Replace the layer that a weight belongs to."""
    path, _, last = name.rpartition(".")[0].rpartition(".")
    setattr(network.get_submodule(path), last, layer)


def _size(name: str, value: Tensor, precision: torch.dtype, bits: int) -> int:
    if bits and is_quantised(name, value):
        return int(value.numel() * (bits + 1) / 8)  # with the scales
    return int(value.numel() * (precision.itemsize if name.startswith(_LANGUAGE) else 4))


def _place(settings: MedVersaSettings) -> Placement:
    """Return where it computes; its precision is that of the language model alone, and chosen apart."""
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {"device": device, "precision": "fp32", "threads": settings.threads, "vram_gb": settings.vram_gb}
    try:
        return placement(chosen)
    except EngineFailed as error:
        raise ConfigurationError(f"engines.medversa.device: {error}") from None
    except EngineUnavailable as error:
        raise EngineUnavailable(f"engines.medversa.device: {error}") from None


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name == "auto" or name in BITS:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]
