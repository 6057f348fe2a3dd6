"""``[engines.medversa]``: where the checkpoint is, whether its licence is accepted, and how it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from domain.errors import ConfigurationError
from inference.manifest import licence_sentence

LICENCE = "non-commercial research"
LICENCE_SENTENCE = licence_sentence("medversa", LICENCE)

MOST_BATCH = 8
"""Rows of one pass through the language model."""
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"]
Orientation = Literal["LPS", "RAS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MedVersaSettings:
    """What the engine needs to know.

    Attributes
    ----------
    weights
        Folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``, or a name in the hub's cache.
    base_model
        The same for the language model that gives sizes and tokenizer; empty: what ``llama_model`` in the
        checkpoint's ``config.json`` names.
    device
        ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:<number>``; empty: the first GPU, else the CPU.
    threads, vram_gb, cpu_fallback
        As for every engine on PyTorch (``inference.device``).
    precision
        Of the language model. ``auto``: bfloat16 on a GPU, float32 on a CPU. ``int8`` and ``int4``: its matrices in 8
        or 4 bits, where bitsandbytes is installed. Encoders and heads are always float32.
    orientation
        Along which patient axes the array of a CT grows when the model sees it. It is not documented for the
        training data; LPS is how DICOM and SimpleITK order it.
    batch
        Answers that are written at the same time, from 1 to 8.
    """

    weights: str
    base_model: str = ""
    device: str = ""
    precision: Precision = "auto"
    orientation: Orientation = "LPS"
    batch: int = MOST_BATCH
    threads: int | None = None
    vram_gb: float | None = None
    cpu_fallback: bool = False


def settings_from(section: Mapping[str, object]) -> MedVersaSettings:
    """Return the settings of a configuration section.

    Raises
    ------
    ConfigurationError
        The licence is not accepted, or lists every other fault.
    """
    if section.get("accept_license") != LICENCE:
        raise ConfigurationError(LICENCE_SENTENCE)
    precision = str(section.get("precision") or "auto")
    orientation = str(section.get("orientation") or "LPS")
    faults = []
    if not section.get("weights"):
        faults.append("engines.medversa.weights is not set")
    if precision not in get_args(Precision):
        faults.append(f"engines.medversa.precision: one of {', '.join(get_args(Precision))}")
    if orientation not in get_args(Orientation):
        faults.append(f"engines.medversa.orientation: one of {', '.join(get_args(Orientation))}")
    batch = section.get("batch", MOST_BATCH)
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= MOST_BATCH:
        faults.append(f"engines.medversa.batch: a number from 1 to {MOST_BATCH}")
    if faults:
        raise ConfigurationError("\n".join(faults))
    return MedVersaSettings(
        weights=str(section["weights"]),
        base_model=str(section.get("base_model") or ""),
        device=str(section.get("device") or ""),
        precision=cast(Precision, precision),
        orientation=cast(Orientation, orientation),
        batch=cast(int, batch),
        threads=cast("int | None", section.get("threads")),
        vram_gb=cast("float | None", section.get("vram_gb")),
        cpu_fallback=bool(section.get("cpu_fallback")),
    )
