"""MedSAM2's way through a stack: prompt, then forward to the end and, apart from that, backward to the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from inference.medsam2.bank import Bank, Left
from inference.medsam2.decoder import Drawn
from inference.medsam2.network import Features, Network

LARGEST_HOLE = 8
"""Pixels of the 128 x 128 logits; ``fill_hole_area`` of the original."""
_FILLED = 0.1
_OBJECT = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlicePrompt:
    """What was drawn for one object on one slice: points, or a mask.

    Attributes
    ----------
    points
        Shape ``(n, 2)``, x and y as fractions of the slice's width and height.
    labels
        1 inside the object, 0 outside, 2 and 3 the two corners of a box, which come first.
    mask
        Shape ``(rows, columns)`` of the slice.
    """

    points: npt.NDArray[np.float64]
    labels: tuple[int, ...]
    mask: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracked:
    """One object on one slice."""

    object: int
    slice: int
    logits: torch.Tensor
    """Shape ``(size / 4, size / 4)``, float32; above 0 is the object."""
    score: float
    """Above 0: the object is there."""


class Track:
    """One object: its prompted slices, and what it remembers in the direction in which it is followed."""

    def __init__(
        self, network: Network, features: Features, slices: int, prompts: Mapping[int, SlicePrompt], *, fill: bool
    ) -> None:
        self._network = network
        self._features = features
        self._slices = slices
        self._fill = fill
        self.first, self.last = min(prompts), max(prompts)
        self._prompted: dict[int, Drawn] = {}
        self._left: dict[int, Left] = {}
        self._session = self._new_session()
        for index, prompt in sorted(prompts.items()):
            self._prompt(index, prompt)
        self._bank = self._new_bank(reverse=False)

    def turn(self) -> None:
        """Forget everything but the prompted slices: the two directions share no memories."""
        del self._bank  # before there is another: they are large
        self._bank = self._new_bank(reverse=True)

    def step(self, index: int) -> tuple[torch.Tensor, float]:
        """Return logits and object score of a slice; prompted slices keep what the prompt gave."""
        found = self._prompted.get(index)
        if found is not None:
            return found.logits, found.score
        onward = 0 < index < self._slices - 1
        found = self._network.following(self._features.shared(index), self._bank, index, onward=onward)
        return without_small_holes(found.logits) if self._fill else found.logits, found.score

    def _new_bank(self, *, reverse: bool) -> Bank:
        bank: Bank = self._network.following.bank(self._slices, self._left, reverse=reverse)
        return bank

    def _new_session(self) -> Any:
        parameter = self._network.no_object_pointer
        session = Sam2VideoInferenceSession(
            inference_device=parameter.device, inference_state_device=parameter.device, dtype=parameter.dtype
        )
        session.processed_frames = dict.fromkeys(range(self._slices))  # their number counts; features hold the rest
        session.cache = self._features
        session.obj_id_to_idx(_OBJECT)
        return session

    def _prompt(self, index: int, prompt: SlicePrompt) -> None:
        session, size = self._session, self._network.image_size
        if prompt.mask is None:
            points = torch.from_numpy(prompt.points * size).float()[None, None]
            labels = torch.tensor(prompt.labels, dtype=torch.int32)[None, None]
            session.add_point_inputs(0, index, {"point_coords": points, "point_labels": labels})
        else:
            session.add_mask_inputs(0, index, resized_mask(prompt.mask, size)[None, None])
        session.obj_with_new_inputs = [_OBJECT]
        self._network(session, frame_idx=index, run_mem_encoder=False)
        if prompt.mask is not None:
            self._point_at_mask(index)
        self._remember(index)

    def _point_at_mask(self, index: int) -> None:
        """Make the object pointer of a mask prompt from the single-mask output, as the original does.

        transformers takes the best of three masks there, which shows in later slices (1.2e-3 instead of 2.5e-4).
        """
        network, features = self._network, self._features.get_vision_features(index)["vision_feats"]
        *fine, coarse = (
            level.permute(1, 2, 0).reshape(1, -1, *size)
            for level, size in zip(features, network.backbone_feature_sizes, strict=True)
        )
        mask = self._session.mask_inputs_per_obj[0][index]
        found = network._single_frame_forward(
            input_masks=network.mask_downsample(mask), image_embeddings=[*fine, coarse], multimask_output=False
        )
        if bool(mask.any()):
            self._session.output_dict_per_obj[0]["cond_frame_outputs"][index]["object_pointer"] = found.object_pointer

    def _remember(self, index: int) -> None:
        """Make the memory of a prompted slice as the original does: from its small logits, enlarged and binarised.

        transformers takes the full-size mask instead, which differs for a mask prompt by 3e-2 in later slices.
        """
        given = self._session.output_dict_per_obj[0]["cond_frame_outputs"].pop(index)
        logits, pointer = given["pred_masks"][0, 0].float(), given["object_pointer"].flatten()
        if self._fill:
            logits = without_small_holes(logits)
        found = Drawn(logits=logits, score=float(given["object_score_logits"]), pointer=pointer)
        features = self._features.get_vision_features(index)["vision_feats"]
        self._prompted[index], self._left[index] = found, self._network.following.drawn(features, found)


def track(
    network: Network,
    features: Features,
    slices: int,
    objects: Sequence[Mapping[int, SlicePrompt]],
    *,
    stop_after_empty: int = 0,
    fill: bool = False,
) -> Iterator[Tracked]:
    """Follow each object from its first prompted slice to both ends of the stack.

    Objects do not know of each other. The slices come in the order in which they are computed: every slice is encoded
    once for all objects and both directions (``shared_slices`` tells which ones ``features`` must keep).

    Parameters
    ----------
    stop_after_empty
        An object is followed no further in a direction after so many slices without it, counted beyond its
        prompted slices; 0: to the end.
    fill
        Fill holes of at most ``LARGEST_HOLE`` pixels in the small logits, as the original does on a GPU.
    """
    tracks = [Track(network, features, slices, prompts, fill=fill) for prompts in objects]
    for reverse in (False, True):
        if reverse:
            for item in tracks:
                item.turn()
        empty = [0] * len(tracks)
        firsts = [item.first for item in tracks]
        order = range(max(firsts) - 1, -1, -1) if reverse else range(min(firsts), slices)
        for index in order:
            for number, item in enumerate(tracks):
                begun = index < item.first if reverse else index >= item.first
                if not begun or (stop_after_empty and empty[number] >= stop_after_empty):
                    continue
                logits, score = item.step(index)
                drawn = item.first <= index <= item.last
                empty[number] = 0 if drawn or bool((logits > 0).any()) else empty[number] + 1
                yield Tracked(object=number, slice=index, logits=logits, score=score)


def shared_slices(objects: Sequence[Mapping[int, SlicePrompt]]) -> range:
    """Return the slices that are looked at more than once: those between the first prompted slices, and prompted."""
    prompted = [index for prompts in objects for index in prompts]
    return range(min(prompted), max(prompted) + 1)


def resized_mask(mask: npt.NDArray[np.bool_], size: int) -> torch.Tensor:
    """Return a prompt mask at the network's size: bilinear with antialiasing, then at least 0.5."""
    given = torch.from_numpy(mask.astype(np.float32))
    if mask.shape == (size, size):
        return given
    smooth = F.interpolate(given[None, None], (size, size), mode="bilinear", align_corners=False, antialias=True)
    result: torch.Tensor = (smooth[0, 0] >= 0.5).float()
    return result


def at_size(logits: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Return logits at the slice's size."""
    result: torch.Tensor = F.interpolate(
        logits[None, None].float(), shape, mode="bilinear", align_corners=False
    )[0, 0]  # fmt: skip
    return result


def without_small_holes(logits: torch.Tensor) -> torch.Tensor:
    """Return logits whose background components of at most ``LARGEST_HOLE`` pixels are made object."""
    numbers, count = ndimage.label((logits <= 0).cpu().numpy(), structure=np.ones((3, 3)))  # type: ignore[attr-defined]
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    small = sizes <= LARGEST_HOLE
    small[0] = False
    return torch.where(torch.from_numpy(small[numbers]).to(logits.device), _FILLED, logits)
