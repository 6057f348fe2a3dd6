"""From stored values to the network's images: window, 8 bits, 512 x 512; exactly as MedSAM2 was trained and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from domain.errors import NotApplicable

SOFT_TISSUE_HU = (-160.0, 240.0)
PERCENTILES = (0.5, 99.5)
"""Of the values above 0: the published recipe for everything that is not CT."""
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_SD = np.array([0.229, 0.224, 0.225], np.float32)

Voxels = npt.NDArray[Any]


class Windowed:
    """A volume, or frames, seen through a window, one slice at a time.

    Values are clipped to the window and spread over 0 to 255 by the smallest and largest clipped value of the whole
    volume, not of the window and not of each slice; then truncated.

    Parameters
    ----------
    voxels
        Shape ``(slices, rows, columns)``; colours have a last axis of 3, and one window for all.
    bounds
        Lower and upper bound, not centre and width; ``None`` takes percentiles of the values above 0 and keeps 0.

    Raises
    ------
    NotApplicable
        Nothing varies inside the window, or nothing is above 0.
    """

    def __init__(self, voxels: Voxels, bounds: tuple[float, float] | None) -> None:
        self._voxels = voxels
        self._keep_zero = bounds is None
        self.bounds = _percentiles(voxels) if bounds is None else bounds
        self._low, self._high = (float(np.clip(float(value), *self.bounds)) for value in (voxels.min(), voxels.max()))
        if not self._low < self._high:
            raise NotApplicable("Every value of the volume is the same inside the window; there is nothing to see.")

    def eight_bit(self, index: int) -> npt.NDArray[np.uint8]:
        """Return a slice as uint8, at its own size."""
        values = self._voxels[index].astype(np.float64)
        spread = (np.clip(values, *self.bounds) - self._low) / (self._high - self._low) * 255
        if self._keep_zero:
            spread[values == 0] = 0
        picture: npt.NDArray[np.uint8] = spread.astype(np.uint8)
        return picture

    def image(self, index: int, size: int) -> npt.NDArray[np.float32]:
        """Return a slice as the network takes it: shape ``(3, size, size)``, grey three times the same picture."""
        return normalised(resized(self.eight_bit(index), size))


def resized(picture: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return a slice at ``size`` x ``size``, bicubic; the aspect ratio is not kept."""
    if picture.shape[:2] == (size, size):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def normalised(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return a picture with ImageNet's mean and deviation taken out."""
    scaled = picture.astype(np.float32) / np.float32(255)
    channels = scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
    result: npt.NDArray[np.float32] = (channels - _MEAN[:, None, None]) / _SD[:, None, None]
    return result


def _percentiles(voxels: Voxels) -> tuple[float, float]:
    # Of colours the brightest channel: grey stored as RGB then looks to the network as grey does.
    brightness = voxels if voxels.ndim == 3 else voxels.max(axis=-1)
    positive = brightness[brightness > 0]
    if positive.size == 0:
        raise NotApplicable("No value of the images is above 0; there is nothing to see.")
    low, high = np.percentile(positive, PERCENTILES)
    return float(low), float(high)
