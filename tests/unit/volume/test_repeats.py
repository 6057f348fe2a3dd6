"""Images that came twice under different UIDs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import copied, ct_series, headers_of, save
from pydicom.dataset import Dataset

from domain.errors import StorageError
from domain.series import RefusalCode, Stack
from volume.assembly import assemble
from volume.grouping import group
from volume.repeats import group_stored


def regrouped(series: list[Dataset], folder: Path) -> tuple[tuple[Stack, ...], tuple[Stack, ...], dict[str, Path]]:
    """Return the stacks by headers, the stacks by headers and pixels, and the files."""
    headers = headers_of(series)
    paths = {str(ds.SOPInstanceUID): path for ds, path in zip(series, save(series, folder), strict=True)}
    return group(headers), group_stored(headers, paths), paths


def test_an_image_that_came_twice_is_left_out_and_the_lower_number_kept(tmp_path: Path) -> None:
    series = ct_series(voxels=np.random.default_rng(1).integers(-900, 900, (6, 16, 20)).astype(np.int16))
    before, after, paths = regrouped(copied([series[3]], first_number=40) + series, tmp_path)
    assert [stack.refusal and stack.refusal.code for stack in before] == [RefusalCode.DUPLICATE_POSITION]
    (stack,) = after
    assert stack.refusal is None
    assert [h.instance_number for h in stack.headers] == [1, 2, 3, 4, 5, 6]
    assert assemble(stack, paths).grid.shape == (6, 16, 20)


def test_a_whole_series_that_came_twice_is_one_volume(tmp_path: Path) -> None:
    series = ct_series(5)
    before, after, _ = regrouped(series + copied(series, first_number=6), tmp_path)
    assert [stack.refusal and stack.refusal.code for stack in before] == [RefusalCode.AMBIGUOUS_STACK]
    assert [[h.instance_number for h in stack.headers] for stack in after] == [[1, 2, 3, 4, 5]]
    assert after[0].refusal is None


def test_phases_are_found_once_a_repeated_image_is_out_of_the_way(tmp_path: Path) -> None:
    first = ct_series(8)
    second = copied(first[:6], first_number=9)
    for ds in second:
        ds.AcquisitionNumber = 2
    repeated = copied([first[7]], first_number=20)  # where only the first phase has a slice
    before, after, _ = regrouped(first + second + repeated, tmp_path)
    assert len(before) == 1
    assert [stack.name for stack in after] == ["axial, acquisition 1", "axial, acquisition 2"]
    assert [stack.refusal for stack in after] == [None, None]


def another_pixel(ds: Dataset) -> None:
    ds.PixelData = b"\x07\x00" + ds.PixelData[2:]


def another_intercept(ds: Dataset) -> None:
    ds.RescaleIntercept = "-1"


def another_place(ds: Dataset) -> None:
    ds.ImagePositionPatient = [-9.9, *ds.ImagePositionPatient[1:]]


def colour(ds: Dataset) -> None:
    ds.PhotometricInterpretation = "RGB"


def with_lut(ds: Dataset) -> None:
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.ModalityLUTSequence = [Dataset()]


@pytest.mark.parametrize("change", [another_pixel, another_intercept, another_place, colour, with_lut])
def test_images_that_differ_stay_refused(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    series = ct_series(5)
    repeated = copied([series[2]], first_number=9)
    change(repeated[0])
    before, after, _ = regrouped(series + repeated, tmp_path)
    assert before[0].refusal is not None
    assert after == before


def test_other_series_are_grouped_by_headers_alone() -> None:
    whole = headers_of(ct_series(4))
    assert group_stored(whole, {}) == group(whole)
    holed = headers_of([ds for ds in ct_series(6) if ds.InstanceNumber != 3])
    assert group_stored(holed, {}) == group(holed)


def test_a_lost_file_is_not_taken_for_a_repetition() -> None:
    series = ct_series(4)
    with pytest.raises(StorageError):
        group_stored(headers_of(series + copied([series[1]], first_number=9)), {})


def test_what_is_left_over_is_judged_like_any_series(tmp_path: Path) -> None:
    series = ct_series(8)
    for ds in series[5:]:
        ds.ConvolutionKernel = "B70f"
    before, after, _ = regrouped(series + copied([series[1]], first_number=20), tmp_path)
    assert [stack.refusal and stack.refusal.code for stack in before] == [RefusalCode.DUPLICATE_POSITION]
    assert [stack.refusal and stack.refusal.code for stack in after] == [RefusalCode.AMBIGUOUS_STACK]
    assert len(after[0].headers) == 8


def test_modality_tables_are_not_compared(tmp_path: Path) -> None:
    series = ct_series(5)
    for ds in series:
        with_lut(ds)
        del ds.RescaleType
    before, after, _ = regrouped(series + copied([series[2]], first_number=9), tmp_path)
    assert [stack.refusal and stack.refusal.code for stack in before] == [RefusalCode.DUPLICATE_POSITION]
    assert after == before


def test_an_image_that_cannot_be_decoded_is_not_taken_for_a_repetition(tmp_path: Path) -> None:
    series = ct_series(5)
    series += copied([series[2]], first_number=9)
    before, _, paths = regrouped(series, tmp_path)
    damaged = paths[str(series[2].SOPInstanceUID)]
    damaged.write_bytes(damaged.read_bytes()[:-50])
    assert group_stored(headers_of(series), paths) == before
