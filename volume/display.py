"""An image as a person sees it: grey through its window, MONOCHROME1 inverted. For looking, not for measuring."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domain.image import Image, VoiLut
from domain.instance import Header
from volume.image_format import MOST_BYTES
from volume.images import read_image

Picture = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

TRIMMED = (0.5, 99.5)
"""Percentiles that become black and white where the header names no window."""
WHOLE = (0.0, 100.0)


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
    grey = np.rint(255 * _share(image, np.asarray(values, np.float64), percentiles)).astype(np.uint8)
    if image.padding_value is not None:
        grey[values == image.padding_value] = 0
    return np.repeat(grey[:, :, None], 3, axis=2)


def _share(image: Image, values: Values, percentiles: tuple[float, float]) -> Values:
    """Return how bright each value is, 0 to 1."""
    is_inverse = image.photometric_interpretation == "MONOCHROME1"
    if image.voi_lut is not None:
        share = _looked_up(values, image.voi_lut)
    elif image.window is not None:
        share = _windowed(values, image.window, image.window_function)
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


def _windowed(values: Values, window: tuple[float, float], function: str) -> Values:
    """Apply VOILUTFunction (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
    centre, width = window
    if function == "SIGMOID":
        sigmoid: Values = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return sigmoid
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, math.ulp(1.0))
    linear: Values = ((values - centre) / width + 0.5).clip(0, 1)
    return linear
