"""Tokens per second of MedVersa with 1, 2, 4 and 8 answers written at the same time, and the memory.

The weights are random and made here: nothing is fetched. ``7b`` has the sizes of the published checkpoint and needs
14 GB of disk and 17 GB of memory while it is written.

    python tests/benchmarks/medversa_speed.py --size mid --precision bf16
    python tests/benchmarks/medversa_speed.py --size 7b --device cuda --tokens 128 --folder /tmp/medversa-7b
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medversa_checkpoint import original_name, pieces, write_tokenizer
from safetensors.torch import save_file

from domain.question import Question, Sampling
from inference.medversa.loading import load
from inference.medversa.model import MedVersa
from inference.medversa.network import Network, Sizes
from inference.medversa.settings import MedVersaSettings

BATCHES = (1, 2, 4, 8)
LLAMA_PIECES = 32000
LANGUAGE: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": 64, "intermediate": 128, "layers": 2, "heads": 2},
    "mid": {"hidden": 1536, "intermediate": 4096, "layers": 16, "heads": 12},
    "7b": {"hidden": 4096, "intermediate": 11008, "layers": 32, "heads": 32},
}
SMALL_SWIN: dict[str, Any] = {"swin_width": 16, "swin_depths": (1, 1, 1, 1), "swin_heads": (1, 2, 4, 8)}
SWIN_BASE: dict[str, Any] = {"swin_width": 128, "swin_depths": (2, 2, 18, 2), "swin_heads": (4, 8, 16, 32)}


def sizes(name: str) -> Sizes:
    """Return the sizes of a whole model, or of one with a small encoder of pictures and none of volumes."""
    whole = name == "7b"
    count = len(pieces()) if name == "tiny" else LLAMA_PIECES
    return Sizes(
        **LANGUAGE[name], **(SWIN_BASE if whole else SMALL_SWIN), key_value_heads=LANGUAGE[name]["heads"],
        vocabulary=count + 5, positions=4096, rms_norm_eps=1e-5, rope_theta=10000.0, eos_token_id=2, swin_window=7,
        has_volumes=whole, has_image_masks=True, has_boxes=True,
    )  # fmt: skip


def write(folder: Path, wanted: Sizes) -> None:
    """Write a checkpoint of random weights as the original's, in bfloat16."""
    torch.manual_seed(1)
    values = {}
    for key, value in Network(wanted).state_dict().items():
        if key.startswith("llama_model."):
            spread = 0.0 if "norm" in key else 0.02
            value = torch.full(value.shape, 1.0) if "norm" in key else torch.randn(value.shape).mul_(spread)
        values[original_name(key)] = value.to(torch.bfloat16).contiguous()
    (folder / "llama").mkdir(parents=True)
    save_file(values, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"llama_model": "llama"}))
    base = {"hidden_size": wanted.hidden, "num_attention_heads": wanted.heads, "max_position_embeddings": 4096}
    (folder / "llama" / "config.json").write_text(json.dumps(base))
    write_tokenizer(folder / "llama" / "tokenizer.model", least=wanted.vocabulary - 5)


def questions(count: int, tokens: int) -> list[Question]:
    """Return questions whose answers have ``tokens`` tokens, and whose prompts differ."""
    random = np.random.default_rng(2)
    return [
        Question(
            modality="cxr",
            task="report generation",
            prompt=f"How would you characterize the findings from <img0>? {'Indication: cough. ' * number}",
            pictures=(random.integers(0, 255, (512, 400 + number, 3)).astype(np.uint8),),
            sampling=Sampling(do_sample=False, min_length=tokens, max_new_tokens=tokens),
        )
        for number in range(count)
    ]


def peak_gb(device: torch.device) -> float:
    """Return the most memory that was held: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / 1e9)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


def measured(model: MedVersa, asked: Sequence[Question]) -> tuple[list[tuple[int, ...]], float, float]:
    """Return the ids of the answers, and the seconds on the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    found = dict(model.answers([(question, lambda: False) for question in asked]))
    taken = time.perf_counter() - clock, time.process_time() - cpu
    answers = [found[number] for number in range(len(asked))]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [answer.ids for answer in answers if not isinstance(answer, Exception)], *taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(LANGUAGE), default="mid")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--tokens", type=int, default=48, help="of each answer")
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts")
    parser.add_argument("--folder", type=Path, help="keeps the checkpoint, or takes the one that is there")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "medversa"
        if not (folder / "model.safetensors").exists():
            write(folder, sizes(given.size))
        began = time.perf_counter()
        loaded = load(MedVersaSettings(weights=str(folder), device=given.device, precision=given.precision))
    model, taken = MedVersa(loaded), time.perf_counter() - began
    count = sum(value.numel() for value in loaded.network.state_dict().values()) / 1e9
    print(
        f"{count:.2f} billion parameters, {loaded.network.llama_model.dtype}, {loaded.device}, {taken:.0f} s to load;"
    )
    widths = loaded.network.llama_model.widths
    print(f"rows with equal bits: {widths or 'none'}; {loaded.together} answers at a time")
    asked = questions(max(BATCHES), given.tokens)
    measured(model, asked[:1])  # warms up
    alone = [measured(model, [question])[0][0] for question in asked]
    print(f"{'at once':>8}{'tokens/s':>10}{'x':>6}{'ms CPU/token':>14}{'peak GB':>9}  ids as alone")
    first = 0.0
    for batch in BATCHES:
        runs = [measured(model, asked[:batch]) for _ in range(given.rounds)]
        ids, tokens = runs[0][0], sum(map(len, runs[0][0]))
        rate = tokens / min(clock for _, clock, _ in runs)
        first = first or rate
        cost = min(cpu for _, _, cpu in runs) / tokens * 1e3
        same = "yes" if ids == alone[:batch] else "NO"
        print(f"{batch:>8}{rate:>10.1f}{rate / first:>6.2f}{cost:>14.1f}{peak_gb(loaded.device):>9.2f}  {same}")


if __name__ == "__main__":
    main()
