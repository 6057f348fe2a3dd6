"""Display colours as CIELab in the profile connection space (PS3.3 C.10.7.1.1)."""

from __future__ import annotations

import numpy as np

_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""Linear sRGB to XYZ of the D50 white point of an ICC profile connection space (Bradford-adapted)."""
_WHITE_D50 = np.array([0.96422, 1.0, 0.82521])


def cielab(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return Recommended Display CIELab Value (0062,000D) of an sRGB colour: L*, a*, b* scaled to 16 bits."""
    value = np.asarray(rgb, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = (_TO_XYZ @ linear) / _WHITE_D50
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, a, b = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    scaled = np.array([lightness * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255])
    first, second, third = np.clip(np.rint(scaled), 0, 65535).astype(int).tolist()
    return first, second, third
