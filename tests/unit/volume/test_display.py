from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from domain.image import Image, Raster
from domain.voi import Voi, VoiWindow
from volume.display import displayed


def image(
    pixels: npt.NDArray[np.generic],
    photometric: str = "MONOCHROME2",
    window: tuple[float, float] | None = None,
) -> Image:
    frames, rows, columns = pixels.shape[:3]
    return Image(
        pixels=pixels,
        raster=Raster(shape=(frames, rows, columns)),
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        photometric_interpretation=photometric,
        voi=Voi() if window is None else Voi(windows=(VoiWindow(centre=window[0], width=window[1]),)),
    )


RAMP = np.arange(0, 1000, dtype=np.int16).reshape(1, 20, 50)


def test_a_window_maps_its_ends_to_black_and_white() -> None:
    shown = displayed(image(RAMP, window=(500.0, 201.0)))[..., 0].ravel()
    assert shown[399] == 0
    assert shown[600] == 255
    assert shown[500] == pytest.approx(128, abs=1)  # PS3.3 C.11.2.1.2.1: the centre is half a step off
    assert (np.diff(shown.astype(int)) >= 0).all()


def test_inverted_grey_is_the_complement_whatever_the_window() -> None:
    for window in (None, (400.0, 300.0)):
        plain, inverted = (displayed(image(RAMP, kind, window)) for kind in ("MONOCHROME2", "MONOCHROME1"))
        assert np.array_equal(inverted, 255 - plain)


def test_without_a_window_single_outliers_do_not_darken_the_image() -> None:
    values = RAMP.copy()
    values[0, 0, 0] = 32000
    assert displayed(image(values))[10, 25, 0] > 100


def test_one_frame_of_many_is_shown_and_colour_stays() -> None:
    colours = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3)).astype(np.uint8)
    assert np.array_equal(displayed(image(colours, "RGB"), 2), colours[2])


def test_a_constant_image_and_a_window_of_one_value_are_shown() -> None:
    assert displayed(image(np.full((1, 4, 4), 7, np.int16))).max() == 0
    assert set(np.unique(displayed(image(RAMP, window=(500.0, 1.0))))) == {0, 255}
