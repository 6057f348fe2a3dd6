"""An image or a cine as the network sees it: the grey values or colours that a person looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from domain.errors import EngineFailed
from domain.image import Image
from inference.medsam2.windowing import Windowed
from volume.display import displayed

Bounds = tuple[float, float]
Values = npt.NDArray[Any]


def the_image(images: tuple[Image, ...]) -> Image:
    """Return the one image of a case.

    Raises
    ------
    EngineFailed
        There are several: a mask of the case lies on one.
    """
    if len(images) != 1:
        raise EngineFailed('The engine works on one image or cine at a time; its route must not say unit = "study".')
    return images[0]


def windowed_frames(image: Image, bounds: Bounds | None) -> Windowed:
    """Return the frames behind one window for all of them, so that none is brighter than the others.

    Parameters
    ----------
    bounds
        Of the values after the Modality LUT, in place of the header's window; ``None``: the published recipe on what
        the header's window shows.
    """
    if bounds is not None and not image.is_colour:
        values, low, high = _upright(image)
        inverted = values is not image.pixels
        return Windowed(values, (low + high - bounds[1], low + high - bounds[0]) if inverted else bounds)
    return Windowed(as_seen(image), bounds)


def as_seen(image: Image) -> Values:
    """Return the frames as a person sees them; of the image's shape.

    Colours are as they are, grey goes through the header's VOI LUT or window, and MONOCHROME1 is inverted. Grey
    without a window keeps its values: to choose one is then left to the network's recipe.
    """
    if image.is_colour:
        return image.pixels
    if not image.voi.is_said:
        return _upright(image)[0]
    seen = np.empty(image.pixels.shape, np.uint8)
    for k in range(len(seen)):
        seen[k] = displayed(image, k)[..., 0]
    return seen


def _upright(image: Image) -> tuple[Values, float, float]:
    """Return grey values of which the higher ones are the brighter ones, with the lowest and the highest."""
    low, high = image.pixels.min(), image.pixels.max()
    if image.photometric_interpretation != "MONOCHROME1":
        return image.pixels, float(low), float(high)
    return np.float32(float(low) + float(high)) - image.pixels.astype(np.float32), float(low), float(high)
