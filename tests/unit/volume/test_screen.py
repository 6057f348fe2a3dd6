"""Windows by modality and tissue, padding, inversion, and look-up tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from enhanced import enhanced
from factories import ct_slice, mr_series, pet_series, save
from looking import photograph, radiograph
from pydicom.dataset import Dataset

from domain.errors import StorageError
from volume.screen import BONE, BRAIN, LUNG, SOFT_TISSUE, Frame, Window, ct_window, read_frame, shown, window_of


def frame_of(dataset: Dataset, folder: Path, number: int | None = None) -> Frame:
    return read_frame(save([dataset], folder)[0], number)


@pytest.mark.parametrize(
    ("hu", "part", "expected"),
    [
        (-800, "CHEST", LUNG),
        (35, "HEAD", BRAIN),
        (35, "ABDOMEN", SOFT_TISSUE),
        (-90, "HEAD", SOFT_TISSUE),
        (700, "HEAD", BONE),
    ],
)
def test_the_window_of_ct_goes_by_the_tissue_that_was_found(
    hu: float, part: str, expected: tuple[float, float], tmp_path: Path
) -> None:
    ds = ct_slice()
    ds.BodyPartExamined = part
    window = ct_window(np.full(50, hu), frame_of(ds, tmp_path))
    assert (window.centre, window.width) == expected


def test_the_window_of_ct_without_a_mask_is_the_headers_or_that_of_soft_tissue(tmp_path: Path) -> None:
    ds = ct_slice()
    assert ct_window(np.zeros(0), frame_of(ds, tmp_path)) == Window(centre=40.0, width=400.0)
    ds.WindowCenter, ds.WindowWidth = ["300", "40"], ["1500", "350"]
    assert ct_window(np.zeros(0), frame_of(ds, tmp_path)) == Window(centre=300, width=1500, function="LINEAR")
    ds.VOILUTFunction = "SIGMOID"
    frame = frame_of(ds, tmp_path)
    sigmoid = 255 / (1 + np.exp(-4 * (frame.values - 300) / 1500))
    np.testing.assert_array_equal(shown(frame, ct_window(np.zeros(0), frame))[..., 0], np.rint(sigmoid))


def test_pet_is_black_on_white_and_mr_is_bright_enough_for_what_was_found(tmp_path: Path) -> None:
    pet = frame_of(pet_series()[0], tmp_path / "pet")
    assert window_of([pet]).inverted
    mr = frame_of(mr_series()[0], tmp_path / "mr")
    values = np.full(mr.values.shape, 100, np.float32)
    values[0] = 1000  # fat, brighter than anything that was found
    bright = Frame(values=values, padding=mr.padding, header=mr.header)
    plain, for_tissue = window_of([bright]), window_of([bright], np.full(40, 100.0))
    assert for_tissue.width < plain.width / 3
    assert 100 < shown(bright, for_tissue)[-1, 0, 0] < 200


def test_both_photometric_interpretations_look_the_same(tmp_path: Path) -> None:
    plain, inverted = (frame_of(radiograph(inverted=x), tmp_path / str(x)) for x in (False, True))
    pictures = [shown(frame, window_of([frame])) for frame in (plain, inverted)]
    inside = (plain.values > 400) & (plain.values < 3900)
    # the window of 2000 / 4000 is about stored values, of which the inverted image has others
    correlation = np.corrcoef(pictures[0][inside][:, 0], pictures[1][inside][:, 0])[0, 1]
    assert correlation > 0.999


def test_a_voi_lut_is_used_and_padding_is_black(tmp_path: Path) -> None:
    ds = radiograph(voi_lut=True)
    frame = frame_of(ds, tmp_path / "lut")
    assert frame.looked_up is not None
    picture = shown(frame, window_of([frame]))
    assert picture[frame.values > 3600].min() > picture[(frame.values > 1000) & (frame.values < 2000)].max()
    ds = ct_slice()
    ds.PixelPaddingValue = -999
    padded = frame_of(ds, tmp_path / "padded")
    assert padded.padding.all()
    assert shown(padded, Window(centre=0, width=4000)).max() == 0


def test_colour_stays_and_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    ds = photograph()
    frame = frame_of(ds, tmp_path)
    assert np.array_equal(shown(frame, None), ds.pixel_array)
    (tmp_path / "damaged.dcm").write_bytes(b"no DICOM")
    with pytest.raises(StorageError):
        read_frame(tmp_path / "damaged.dcm")


def test_a_frame_of_an_enhanced_image_has_its_own_rescale(tmp_path: Path) -> None:
    voxels = np.arange(3 * 16 * 20, dtype=np.int16).reshape(3, 16, 20)
    series = [ct_slice(voxels=voxels[k], position_mm=(0, 0, k)) for k in range(3)]
    frame = frame_of(enhanced(series), tmp_path, 2)
    assert np.array_equal(frame.values, voxels[1])


def test_a_frame_of_an_enhanced_image_has_its_own_window(tmp_path: Path) -> None:
    ds = enhanced([ct_slice(position_mm=(0, 0, k)) for k in range(3)])
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        window = Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = str(k), "0.5", "LINEAR_EXACT"
        group.FrameVOILUTSequence = [window]
    frame = frame_of(ds, tmp_path, 3)
    assert window_of([frame]) == Window(centre=2.0, width=0.5, function="LINEAR_EXACT")
