"""How the source wants a volume shown is carried along, slice by slice where slices differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enhanced import enhanced
from factories import ct_series, headers_of, mr_series, save
from irregular import phantom
from pydicom.dataset import Dataset
from transfer_syntaxes import as_big_endian

from domain.series import Resample
from domain.voi import Voi, VoiWindow
from domain.volume import Volume
from volume.assembly import assemble
from volume.digest import read_header
from volume.display import volume_brightness
from volume.frames import with_frames
from volume.grouping import group
from volume.header import header_of
from volume.header_json import header_from_json, header_to_json


def volume_of(series: Sequence[Dataset], folder: Path, allowed: Sequence[Resample] = ()) -> Volume:
    """Return the one volume in some instances, whose headers went through the index on their way."""
    paths = save(series, folder)
    headers = [read_header(path) for path in paths]
    for ds, header in zip(series, headers, strict=True):
        known = replace(header_of(ds, header.transfer_syntax_uid), patient=None)
        assert header_from_json(header_to_json(header)) == known == replace(header, patient=None)
    (stack,) = group([header_from_json(header_to_json(header)) for header in headers])
    by_uid = {header.sop_instance_uid: path for header, path in zip(headers, paths, strict=True)}
    return assemble(stack, by_uid, allowed)


def table(values: Sequence[int], *, first: int, explanation: str = "") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, 16])
    item.add_new("LUTData", "US", list(values))
    item.LUTExplanation = explanation
    return item


def test_all_windows_are_carried_with_what_they_are_for(tmp_path: Path) -> None:
    series = ct_series(4)
    for ds in series:
        ds.WindowCenter, ds.WindowWidth = ["40", "-600", "7"], ["400", "1500.5", "0"]
        ds.WindowCenterWidthExplanation = ["ABDOMEN", "LUNG", "NOTHING"]
        ds.VOILUTFunction = "LINEAR_EXACT"
    volume = volume_of(series, tmp_path)
    abdomen = VoiWindow(centre=40, width=400, explanation="ABDOMEN")
    lung = VoiWindow(centre=-600, width=1500.5, explanation="LUNG")
    assert volume.voi == (Voi(windows=(abdomen, lung), function="LINEAR_EXACT"),)
    assert volume.voi_of(0) is volume.voi_of(3)


def test_a_source_that_says_nothing_gives_nothing(tmp_path: Path) -> None:
    series = ct_series(3)
    series[0].WindowCenter, series[0].WindowWidth = "", ""
    volume = volume_of(series, tmp_path)
    assert volume.voi == ()
    assert not volume.voi_of(1).is_said


def test_slices_that_differ_have_their_own_in_the_order_of_the_volume(tmp_path: Path) -> None:
    series = mr_series(4)
    for k, ds in enumerate(series):
        ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = str(100 + k), str(50 + k), "SIGMOID"
    volume = volume_of(series[::-1], tmp_path)
    assert [volume.voi_of(k).windows[0].centre for k in range(4)] == [100, 101, 102, 103]
    assert {voi.function for voi in volume.voi} == {"SIGMOID"}


def test_a_resampled_volume_has_the_windows_of_the_nearest_slices(tmp_path: Path) -> None:
    series = phantom([0, 2, 4, 6, 9, 12, 15, 18]).series
    for k, ds in enumerate(series):
        ds.WindowCenter, ds.WindowWidth = str(k), "400"
    volume = volume_of(series, tmp_path, tuple(Resample))
    centres = [volume.voi_of(k).windows[0].centre for k in range(volume.grid.shape[0])]
    assert len(centres) == 10
    assert (centres[0], centres[-1]) == (0, 7)
    assert centres == sorted(centres)


@pytest.mark.parametrize("is_shared", [True, False])
def test_windows_of_enhanced_images_are_those_of_their_functional_groups(tmp_path: Path, is_shared: bool) -> None:
    ds = enhanced(ct_series(3))
    shared = ds.SharedFunctionalGroupsSequence
    for k, holder in enumerate(shared if is_shared else ds.PerFrameFunctionalGroupsSequence):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = [str(k), "50"], ["400", "80"]
        window.WindowCenterWidthExplanation, window.VOILUTFunction = ["BODY", "BRAIN"], "SIGMOID"
        holder.FrameVOILUTSequence = [window]
    volume = volume_of([ds], tmp_path)
    body, brain = volume.voi_of(2).windows
    assert (body.centre, body.explanation, brain.explanation) == (0 if is_shared else 2, "BODY", "BRAIN")
    assert (len(volume.voi), volume.voi_of(2).function) == (1 if is_shared else 3, "SIGMOID")


def test_tables_are_carried_and_begin_below_zero_where_values_do(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        ds.VOILUTSequence = [
            table([0, 100, 200], first=-1000, explanation="SOFT"), table([5, 6], first=7),
        ]  # fmt: skip
    (voi,) = volume_of(series, tmp_path).voi
    soft, plain = voi.luts
    assert (soft.first, soft.explanation, soft.table.tolist()) == (-1000, "SOFT", [0, 100, 200])
    assert (plain.first, plain.table.tolist()) == (7, [5, 6])
    assert not soft.table.flags.writeable
    series[1].VOILUTSequence[1].LUTData = [5, 7]
    volume = volume_of(series, tmp_path)
    assert [volume.voi_of(k).luts[1].table.tolist() for k in range(3)] == [[5, 6], [5, 7], [5, 6]]


def test_a_damaged_table_does_not_cost_the_volume(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        ds.WindowCenter, ds.WindowWidth = "40", "400"
        ds.VOILUTSequence = [Dataset()]
    (voi,) = volume_of(series, tmp_path).voi
    assert (len(voi.windows), voi.luts) == (1, ())


def test_headers_of_older_versions_have_no_windows() -> None:
    (header,) = with_frames(headers_of(ct_series(1)))
    assert (header.window_centres, header.window_widths, header.has_voi_lut_sequence) == ((), (), False)


def test_a_picture_of_a_volume_goes_by_the_window_of_all_its_slices(tmp_path: Path) -> None:
    voxels = np.broadcast_to(np.arange(0, 320, dtype=np.int16).reshape(16, 20), (3, 16, 20))
    series = ct_series(voxels=voxels)
    for ds in series:
        ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = "100", "100", "LINEAR_EXACT"
    bright = volume_brightness(volume_of(series, tmp_path))
    assert bright(np.array([50.0, 100.0, 125.0, 150.0])).tolist() == [0, 0.5, 0.75, 1]
    for ds in series:
        ds.PhotometricInterpretation = "MONOCHROME1"
    inverse = volume_brightness(volume_of(series, tmp_path))
    assert inverse(np.array([50.0, 100.0, 125.0, 150.0])).tolist() == [1, 0.5, 0.25, 0]


@pytest.mark.parametrize(("centre", "width"), [("5000", "10"), ("differs", "100")])
def test_a_window_of_one_slice_or_that_shows_nothing_is_passed_over(tmp_path: Path, centre: str, width: str) -> None:
    voxels = np.broadcast_to(np.arange(0, 320, dtype=np.int16).reshape(16, 20), (3, 16, 20))
    series = ct_series(voxels=voxels)
    for k, ds in enumerate(series):
        ds.WindowCenter, ds.WindowWidth = str(k) if centre == "differs" else centre, width
    low, middle, high = volume_brightness(volume_of(series, tmp_path))(np.array([0.0, 160.0, 319.0]))
    assert (low, high) == (0, 1)
    assert 0.4 < middle < 0.6


def test_a_table_in_big_endian_words_is_the_same(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        item = table([], first=0)
        item.LUTDescriptor = [3, 0, 16]
        item.add_new("LUTData", "OW", np.array([1, 256, 700], ">u2").tobytes())
        ds.VOILUTSequence = [item]
        as_big_endian(ds)
    (voi,) = volume_of(series, tmp_path).voi
    assert voi.luts[0].table.tolist() == [1, 256, 700]
