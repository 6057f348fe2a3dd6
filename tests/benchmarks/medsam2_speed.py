"""CPU seconds of MedSAM2 here and in PyPI's ``sam2``, in one run; the argument is the number of slices (32).

Prints the ratio to ``sam2``'s fp32 for each precision, and what three objects cost against one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from medsam2_golden import checkpoint, fill
from sam2_oracle import follow, predictor

from inference.medsam2.checkpoint import read_weights
from inference.medsam2.network import Features, network_of, placed
from inference.medsam2.tracker import SlicePrompt, shared_slices, track
from inference.medsam2.windowing import Windowed

SLICES = int(sys.argv[1]) if len(sys.argv) > 1 else 32
SHAPE = (SLICES, 512, 512)
BOX = [210.0, 190.0, 330.0, 320.0]


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ours(dtype: torch.dtype, seen: Windowed, objects: int = 1) -> Callable[[], object]:
    network = placed(network_of(read_weights(checkpoint())), torch.device("cpu"), dtype)
    corners = np.array(BOX).reshape(2, 2) / 512
    prompts = [{SLICES // 2: SlicePrompt(points=corners, labels=(2, 3))}] * objects

    def work() -> None:
        features = Features(
            network, lambda k: torch.from_numpy(seen.image(k, 512)).to(dtype), shared_slices(prompts)
        )  # fmt: skip
        list(track(network, features, SLICES, prompts))

    return work


def theirs(seen: Windowed, *, bf16: bool) -> Callable[[], object]:
    model = predictor(checkpoint())

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            list(follow(model, lambda k: seen.image(k, 512), SHAPE, SLICES // 2, BOX))

    return work


def main() -> None:
    """Measure in turn and print a table."""
    torch.set_num_threads(1)
    voxels = fill().hu_volume(5, SHAPE, [[SLICES / 2, 255, 270, SLICES / 3, 65, 60, 110]])
    seen = Windowed(voxels, (-160.0, 240.0))
    rows = {
        "sam2 fp32": theirs(seen, bf16=False),
        "here fp32": ours(torch.float32, seen),
        "sam2 bf16 (autocast)": theirs(seen, bf16=True),
        "here bf16": ours(torch.bfloat16, seen),
        "here fp32, 3 objects": ours(torch.float32, seen, 3),
        "here bf16, 3 objects": ours(torch.bfloat16, seen, 3),
    }
    with torch.inference_mode():
        taken = {name: timed(work) for name, work in rows.items()}
    for name, seconds in taken.items():
        print(f"{name:<24}{seconds:8.1f} s  {seconds / taken['sam2 fp32']:.2f} of sam2 fp32")
    print(f"bf16 of sam2's bf16: {taken['here bf16'] / taken['sam2 bf16 (autocast)']:.2f}")
    for kind in ("fp32", "bf16"):
        print(f"three objects of one, {kind}: {taken[f'here {kind}, 3 objects'] / taken[f'here {kind}']:.2f}")


if __name__ == "__main__":
    main()
