"""MedSAM2's golden vectors (tests/golden), its filled checkpoint, and a small network for what needs no vectors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from programs import module_at
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel

from inference.device import Placement
from inference.medsam2.checkpoint import read_weights, renamed
from inference.medsam2.network import Features, Network, configuration, network_of, placed
from inference.medsam2.tracker import SlicePrompt, Tracked, track
from inference.medsam2.windowing import Windowed

FOLDER = Path(__file__).parent / "golden"
KEYS = FOLDER / "medsam2_keys.tsv"
CPU = Placement(device=torch.device("cpu"), dtype=torch.float32, threads=1)


@cache
def fill() -> Any:
    """Return the module that makes checkpoints and inputs from their recipes."""
    return module_at(FOLDER / "fill.py")


@cache
def vectors() -> dict[str, Any]:
    """Return all arrays by name."""
    with np.load(FOLDER / "medsam2.npz") as archive:
        return dict(archive)


@cache
def meta() -> dict[str, Any]:
    """Return what describes the arrays."""
    found: dict[str, Any] = json.loads(str(vectors()["meta"]))
    return found


def case(name: str) -> dict[str, Any]:
    """Return one case of the vectors."""
    found: dict[str, Any] = next(item for item in meta()["cases"] if item["name"] == name)
    return found


_kept = tempfile.TemporaryDirectory(prefix="voxgate-golden-")


@cache
def checkpoint() -> Path:
    """Return a file in the published format, with every tensor filled by the recipe; made once a session."""
    path = Path(_kept.name) / "MedSAM2_golden.pt"
    fill().write_medsam2(str(path), str(KEYS), meta()["seed"])
    return path


@cache
def golden_network() -> Network:
    """Return the network with the filled checkpoint."""
    return placed(network_of(read_weights(checkpoint())), CPU.device, CPU.dtype)


def absent_network() -> Network:
    """Return the network of the case in which the object is absent from some slices."""
    prefix, arrays = "absent.override.rows.", vectors()
    keys = [name[len(prefix) :] for name in arrays if name.startswith(prefix)]
    overrides = {key: (arrays[prefix + key], arrays[f"absent.override.values.{key}"]) for key in keys}
    filled = fill().make_checkpoint(str(KEYS), meta()["seed"], overrides)
    return placed(network_of(renamed(fill().as_torch(filled, str(KEYS)))), CPU.device, CPU.dtype)


@cache
def volume(name: str = "") -> Any:
    """Return the input volume of a case, checked by its hash."""
    recipe = case(name).get("volume") if name else None
    made = fill().hu_volume(**(recipe or meta()["volume"]))
    assert fill().sha(made) == meta()["sha256"][f"{name}.volume_int16" if recipe else "volume_int16"]
    return made


@cache
def features(name: str = "") -> Features:
    """Return the image features of a case's volume in float32; every slice is kept for other cases."""
    return features_of(golden_network(), volume(name))


def features_of(network: Network, voxels: Any) -> Features:
    """Return the image features of a volume through the vectors' window."""
    seen, kind = Windowed(voxels, tuple(meta()["window"])), network.no_object_pointer.dtype
    return Features(
        network, lambda k: torch.from_numpy(seen.image(k, network.image_size)).to(kind), range(len(voxels))
    )


def drawn(name: str) -> list[dict[int, SlicePrompt]]:
    """Return the prompts of a case."""
    chosen = case(name)
    rows, columns = volume(name).shape[1:]
    if chosen["kind"] == "mask":
        mask = fill().ellipse_mask(rows, columns, *chosen["ellipse"]).astype(bool)
        return [{chosen["key"]: SlicePrompt(points=np.zeros((0, 2)), labels=(), mask=mask)}]
    corners = [np.array(box, float).reshape(2, 2) / (columns, rows) for box in chosen["boxes"]]
    return [{chosen["key"]: SlicePrompt(points=pair, labels=(2, 3))} for pair in corners]


@cache
def followed(name: str) -> list[Tracked]:
    """Return what comes out of a case in float32: all slices, or the prompted one where the case says so."""
    return followed_by(golden_network(), features(name if "volume" in case(name) else ""), name)


def followed_by(network: Network, seen: Features, name: str) -> list[Tracked]:
    """Return what comes out of a case with another network."""
    chosen = case(name)
    with torch.inference_mode():
        found = track(network, seen, len(volume(name)), drawn(name))
        return list(found) if chosen["full"] else [next(found) for _ in chosen["boxes"]]


@contextmanager
def counted_encodings(network: Network) -> Iterator[list[int]]:
    """Yield a list that grows by one entry whenever the image encoder of ``network`` runs."""
    calls: list[int] = []
    handle = network.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        yield calls
    finally:
        handle.remove()


@cache
def small_network() -> Network:
    """Return a network of MedSAM2's make at 64 pixels with random weights; a slice takes some 20 ms."""
    return placed(random_network(), CPU.device, CPU.dtype)


def random_network(there: float = 6.0) -> Network:
    """Return transformers' own network, small and with random weights; ``there`` goes into the object's score."""
    torch.manual_seed(7)
    network = (
        Sam2VideoModel(configuration(64, blocks_per_stage=[1, 1, 2, 1], global_attention_blocks=[3]))
        .eval()
        .requires_grad_(False)
    )
    for name, value in network.named_parameters():
        if value.ndim > 1:
            value.normal_(0, 0.1 if "embed" in name else float(np.prod(value.shape[1:])) ** -0.5)
    network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(there)
    return network
