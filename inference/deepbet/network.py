"""The two networks of deepbet (Fisch et al., Comput. Biol. Med. 2024): the head's inside roughly, then in detail.

Written anew from the published input specification; of the package only the TorchScript files are used.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage

from inference.weights import WeightsPackage

FloatGrid = npt.NDArray[np.float32]
BoolGrid = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Network = Callable[[torch.Tensor], torch.Tensor]
"""From (1, 1, x, y, z) to the probabilities (1, 2, x, y, z) of outside and inside."""

ROUGH_VOXELS = 128
FINE_VOXELS = 256
"""Along every axis: both networks see a cube, whatever the voxels' shape."""
WINDOW = (0.005, 0.995)
"""Quantiles that become 0 and 1."""
MEAN, SPREAD = 0.449, 0.226
"""What the networks' input has, as in their training."""
THRESHOLD = 0.5
IN_BOX = 0.02
"""A plane belongs to the box when more than this share of it is inside."""
MARGIN = 0.1
"""Of the box's size, on each side."""
ANY_NEIGHBOUR = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """Both networks on one device. Not thread-safe."""

    rough: Network
    fine: Network
    device: torch.device

    def probabilities(self, ras: FloatGrid) -> tuple[FloatGrid, Box] | None:
        """Return how surely each voxel of a box lies inside the skull, and the box; ``None`` where nothing does.

        Parameters
        ----------
        ras
            Shape (x, y, z), ascending to the patient's right, front and head. Finite.
        """
        with torch.inference_mode():
            return self._probabilities(torch.from_numpy(ras).to(self.device))

    def _probabilities(self, ras: torch.Tensor) -> tuple[FloatGrid, Box] | None:
        small = _resized(ras, (ROUGH_VOXELS,) * 3)
        low, high = (float(small.quantile(share)) for share in WINDOW)
        if not high > low:
            return None
        inside = self._run(self.rough, small, low, high) > THRESHOLD
        box = box_around(largest_piece(inside.cpu().numpy()), (ras.shape[0], ras.shape[1], ras.shape[2]))
        if box is None:
            return None
        part = ras[box]
        fine = self._run(self.fine, _resized(part, (FINE_VOXELS,) * 3), low, high)
        found: FloatGrid = _resized(fine, tuple(part.shape)).float().cpu().numpy()
        return found, box

    def _run(self, network: Network, image: torch.Tensor, low: float, high: float) -> torch.Tensor:
        scaled = ((image - low) / (high - low)).clamp(0, 1)
        scaled = (scaled - scaled.mean()) / scaled.std() * SPREAD + MEAN
        return network(scaled[None, None])[0, 1]


def _resized(image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return F.interpolate(image[None, None], shape, mode="nearest-exact")[0, 0]


def largest_piece(mask: BoolGrid) -> BoolGrid:
    """Return the largest piece of a mask; pieces that touch at a corner are one."""
    labels, count = ndimage.label(mask, ANY_NEIGHBOUR)  # type: ignore[attr-defined]
    if count < 2:
        return mask
    largest: BoolGrid = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return largest


def box_around(mask: BoolGrid, shape: tuple[int, int, int]) -> Box | None:
    """Return the box around a rough mask, with a margin, in the indices of a finer grid over the same space."""
    sides = []
    for axis, length in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(mask.mean(axis=others, dtype=np.float64) > IN_BOX)
        if not used.size:
            return None
        scale = np.float32(length) / np.float32(mask.shape[axis])
        first, behind = int(used[0]), int(used[-1]) + 1
        centre = float(np.round(scale * np.float32((first + behind) / 2)))
        size = float(np.round((1 + 2 * np.float32(MARGIN)) * (scale * np.float32(behind - first))))
        sides.append(slice(max(0, int(centre - size / 2)), min(length, int(centre + size / 2))))
    return sides[0], sides[1], sides[2]


def load_networks(package: WeightsPackage, folder: Path, device: torch.device) -> Networks:
    """Return the networks on ``device``.

    Raises
    ------
    WeightsRefused
        A file is not the pinned one. TorchScript is a program: no other is ever loaded.
    """
    rough, fine = (_network(package.read(name, folder), device) for name in ("bbox_model.pt", "model.pt"))
    return Networks(rough, fine, device)


def _network(content: bytes, device: torch.device) -> Network:
    with warnings.catch_warnings():
        # PyTorch would like programs to be exported anew; these are what the authors published.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded: Any = torch.jit.load(io.BytesIO(content), map_location=device)  # untyped
    loaded.eval()
    network: Network = loaded
    return network
