"""Whatever happens to one slice of a regular series on its way is noticed; what is no fault is let pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import copied, ct_series, headers_of, moved
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from transfer_syntaxes import stored

from domain.errors import AssemblyError
from domain.series import Stack
from domain.volume import Volume
from volume.assembly import assemble
from volume.geometry import geometry
from volume.grouping import group


@st.composite
def series(draw: st.DrawFn) -> list[Dataset]:
    """Return a regular series in any direction, with any spacing and origin."""
    turn = np.array(draw(st.tuples(*(st.floats(-1, 1) for _ in range(4))).filter(lambda q: np.linalg.norm(q) > 0.1)))
    w, x, y, z = turn / np.linalg.norm(turn)
    row = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    column = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return ct_series(
        draw(st.integers(4, 9)),
        spacing_mm=draw(st.floats(0.4, 8.0)),
        origin_mm=draw(st.tuples(*(st.floats(-900, 900) for _ in range(3)))),
        orientation=(*row, *column),
    )


def is_refused(datasets: list[Dataset]) -> bool:
    try:
        geometry(Stack(name="", headers=tuple(headers_of(datasets))))
    except AssemblyError:
        return True
    return False


@settings(max_examples=20, deadline=None)
@given(datasets=series(), data=st.data())
def test_one_slice_more_less_or_elsewhere_is_always_noticed(datasets: list[Dataset], data: st.DataObject) -> None:
    assert not is_refused(datasets)
    inner = data.draw(st.integers(1, len(datasets) - 2))  # without an end nothing is missing that could be seen
    assert is_refused([*datasets, *copied(datasets[inner : inner + 1])])
    assert is_refused([ds for k, ds in enumerate(datasets) if k != inner])
    direction = np.array(data.draw(st.tuples(*(st.floats(-1, 1) for _ in range(3)))))
    if np.linalg.norm(direction) < 0.1:
        direction = np.array([0.0, 1.0, 0.0])
    offsets = np.zeros((len(datasets), 3))
    offsets[inner] = direction / np.linalg.norm(direction)
    assert is_refused(moved(datasets, offsets))


def volume_of(datasets: list[Dataset], folder: Path) -> Volume:
    (stack,) = group(headers_of(datasets))
    return assemble(stack, stored(datasets, folder))


@pytest.mark.parametrize(
    ("position", "orientation"),
    [
        ("HFP", (-1, 0, 0, 0, -1, 0)),
        ("FFS", (1, 0, 0, 0, 1, 0)),
        ("FFDR", (0, -1, 0, 1, 0, 0)),
    ],
)
def test_lying_on_the_belly_or_the_side_is_in_the_affine(
    position: str, orientation: tuple[float, ...], tmp_path: Path
) -> None:
    datasets = ct_series(4, orientation=orientation)
    for ds in datasets:
        ds.PatientPosition = position
    grid = volume_of(datasets, tmp_path).grid
    np.testing.assert_allclose(grid.affine[:3, 2] / 0.8, orientation[:3])
    np.testing.assert_allclose(grid.affine[:3, 1] / 0.7, orientation[3:])
    assert np.linalg.det(grid.affine[:3, [2, 1, 0]]) > 0


def test_a_ct_that_calls_its_modality_other_is_still_a_volume_in_hu_and_says_other(tmp_path: Path) -> None:
    datasets = ct_series(4)
    for ds in datasets:
        ds.Modality = "OT"
    (stack,) = group(headers_of(datasets))
    assert stack.headers[0].modality == "OT"  # so that routes for CT do not take it
    assert volume_of(datasets, tmp_path).unit == "HU"


def test_a_scale_slope_in_private_attributes_changes_no_value(tmp_path: Path) -> None:
    datasets = ct_series(3, voxels=np.full((3, 16, 20), 100, np.int16))
    for ds in datasets:
        ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.5)
        ds.RescaleSlope = "2"
    assert (volume_of(datasets, tmp_path).voxels == 200).all()
