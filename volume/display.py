"""An image as a person sees it: grey through its window, MONOCHROME1 inverted. For looking, not for measuring."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domain.image import Image
from domain.instance import Header
from domain.voi import Voi, VoiLut, VoiWindow
from domain.volume import Volume
from volume.image_format import MOST_BYTES
from volume.images import read_image

Picture = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

TRIMMED = (0.5, 99.5)
"""Percentiles that become black and white where the header names no window."""
WHOLE = (0.0, 100.0)
_EXACT = "LINEAR_EXACT"
_NEARLY = 1 / 255
_LEAST_GREY = 0.01
"""Of a slice's pixels."""


def read_picture(header: Header, path: Path, frame: int = 1, *, most_bytes: int = MOST_BYTES) -> Picture:
    """Return one frame of a file for display; shape ``(rows, columns, 3)``. Only the frame asked for is decoded.

    Parameters
    ----------
    frame
        From 1, as DICOM counts (PS3.3 C.7.6.6).

    Raises
    ------
    AssemblyError, StorageError
        As ``volume.images.read_image``.
    """
    return displayed(read_image(header, path, frame=frame, most_bytes=most_bytes))


def displayed(image: Image, frame: int = 0, *, percentiles: tuple[float, float] = TRIMMED) -> Picture:
    """Return one frame for display; shape ``(rows, columns, 3)``, RGB.

    Grey goes through the image's first VOI LUT, else its first window (PS3.3 C.11.2), else from one to the other of
    ``percentiles``; MONOCHROME1 is inverted afterwards, since its window too is about stored values (C.7.6.3.1.2).
    Padding is black.

    Parameters
    ----------
    frame
        From 0.
    """
    values = image.pixels[frame]
    if image.is_colour:
        return np.ascontiguousarray(values, np.uint8)
    is_inverse = image.photometric_interpretation == "MONOCHROME1"
    share = brightness(np.asarray(values, np.float64), image.voi, is_inverse=is_inverse, percentiles=percentiles)
    grey = np.rint(255 * share).astype(np.uint8)
    if image.padding_value is not None:
        grey[values == image.padding_value] = 0
    return np.repeat(grey[:, :, None], 3, axis=2)


def volume_brightness(volume: Volume) -> Callable[[Values], Values]:
    """Return what makes brightness, 0 to 1, of any voxels of a volume: one picture shows its slices alike.

    It is the way in which the source wants all slices shown, else from one to the other of percentiles of the middle
    slice: windows that differ from slice to slice, as in MR, hold for one slice each. A window in which that slice
    shows next to nothing is passed over: such headers are seen.
    """
    middle = volume.grid.shape[0] // 2
    known = np.asarray(volume.voxels[middle], np.float64)
    is_inverse = volume.photometric_interpretation == "MONOCHROME1"
    if len(volume.voi) == 1:
        shown = partial(brightness, voi=volume.voi[0], is_inverse=is_inverse)
        if _tells(shown(known)):
            return shown
    low, high = np.percentile(known, TRIMMED)
    between = Voi(windows=(VoiWindow(centre=(low + high) / 2, width=float(high - low) or 1e-6),), function=_EXACT)
    return partial(brightness, voi=between, is_inverse=is_inverse)


def _tells(share: Values) -> bool:
    """Tell whether enough of a slice is neither black nor white."""
    return float(((share > _NEARLY) & (share < 1 - _NEARLY)).mean()) >= _LEAST_GREY


def brightness(values: Values, voi: Voi, *, is_inverse: bool, percentiles: tuple[float, float] = TRIMMED) -> Values:
    """Return how bright each value is, 0 to 1: by the first table, else the first window, else by ``percentiles``.

    Parameters
    ----------
    is_inverse
        Low values are bright: MONOCHROME1.
    """
    if voi.luts:
        share = _looked_up(values, voi.luts[0])
    elif voi.windows:
        share = windowed(values, voi.windows[0], voi.function)
    else:
        # Inverted first, so that an image and its inverse give the same picture to the last bit.
        return _stretched(-values if is_inverse else values, percentiles)
    return 1 - share if is_inverse else share


def _stretched(values: Values, percentiles: tuple[float, float]) -> Values:
    low, high = np.percentile(values, percentiles)
    share: Values = ((values - low) / (float(high - low) or math.inf)).clip(0, 1)
    return share


def _looked_up(values: Values, lut: VoiLut) -> Values:
    table = lut.table.astype(np.float64)
    index = (values - lut.first).clip(0, len(table) - 1).astype(np.int64)
    share: Values = (table[index] - table.min()) / (float(np.ptp(table)) or math.inf)
    return share


def windowed(values: Values, window: VoiWindow, function: str) -> Values:
    """Return how bright each value is, by VOILUTFunction (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
    centre, width = window.centre, window.width
    if function == "SIGMOID":
        sigmoid: Values = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return sigmoid
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, math.ulp(1.0))
    linear: Values = ((values - centre) / width + 0.5).clip(0, 1)
    return linear
