"""From pictures and CT volumes to what MedVersa was trained on; no torch, no torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

IMAGE_SIZE = 224
VOLUME_SHAPE = (192, 192, 64)
"""Along x, y and z."""
WINDOW_HU = (-200.0, 300.0)
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def image_input(picture: Bytes) -> Floats:
    """Return ``(3, 224, 224)`` of an RGB picture ``(rows, columns, 3)``; the aspect ratio is not kept."""
    resized = Image.fromarray(picture).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    scaled = np.asarray(resized, np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - _MEAN) / _STD).transpose(2, 0, 1))


def volume_input(voxels: npt.NDArray[Any]) -> Floats:
    """Return ``(1, 64, 192, 192)``, i.e. channel, z, x, y, of a CT in HU ``(z, y, x)``."""
    array = voxels.transpose(2, 1, 0)
    window = np.clip(array, *WINDOW_HU)
    moved = _resized(window, VOLUME_SHAPE).transpose(2, 0, 1).astype(np.float64)
    body = moved[moved > moved.mean()]
    # A constant volume has no voxel above its mean, and nothing to scale by.
    mean, std = (body.mean(), body.std(ddof=1)) if body.size > 1 else (moved.mean(), 0.0)
    scaled: Floats = ((moved - mean) / (std or 1.0)).astype(np.float32)
    return scaled[None]


def volume_mask(mask: npt.NDArray[np.bool_], shape: tuple[int, int, int]) -> Bytes:
    """Return a mask ``(64, 192, 192)`` ``(z, x, y)`` of the network on an array ``(z, y, x)``."""
    back = mask.transpose(1, 2, 0).astype(np.uint8)
    return np.ascontiguousarray(_resized(back, (shape[2], shape[1], shape[0])).transpose(2, 1, 0))


def _resized(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the nearest voxels; outermost centres stay outermost."""
    factors = [to / own for to, own in zip(shape, array.shape, strict=True)]
    resized: npt.NDArray[Any] = ndimage.zoom(array, factors, order=0)  # type: ignore[attr-defined]
    return resized


def image_mask(mask: npt.NDArray[np.bool_], shape: tuple[int, int]) -> Bytes:
    """Return the largest 8-connected component of a mask ``(224, 224)`` on a picture of ``(rows, columns)``.

    Holes stay holes. Nearest neighbour: pixel ``i`` of the picture is ``floor(i / (size / 224))`` of the mask.
    """
    kept = largest_component(mask)
    rows, columns = (np.minimum(np.arange(n) * (1 / (n / IMAGE_SIZE)), IMAGE_SIZE - 1).astype(int) for n in shape)
    return kept[np.ix_(rows, columns)].astype(np.uint8)


def largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest 8-connected component; nothing of nothing."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))  # type: ignore[attr-defined]
    if not count:
        return mask
    found: npt.NDArray[np.bool_] = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return found
