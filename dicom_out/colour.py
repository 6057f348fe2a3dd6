"""Recommended display colours as CIELab (PS3.3 C.10.7.1.1)."""

from __future__ import annotations

import numpy as np

# An ICC profile connection space has the white point D50, but DCMTK, dcmqi, dcmjs and highdicom all compute with that
# of sRGB itself. As they do, so that a viewer shows the colour that was meant.
_TO_XYZ_D65 = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE_D65 = np.array([0.950456, 1.0, 1.088754])


def cielab(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return Recommended Display CIELab Value (0062,000D) of an sRGB colour: L*, a*, b* scaled to 16 bits."""
    value = np.asarray(rgb, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = (_TO_XYZ_D65 @ linear) / _WHITE_D65
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, a, b = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    scaled = np.array([lightness * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255])
    first, second, third = np.clip(np.rint(scaled), 0, 65535).astype(int).tolist()
    return first, second, third
