from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import headers_of, pet_series, save
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from domain.instance import Header
from volume.assembly import assemble
from volume.digest import inspect
from volume.grouping import group
from volume.header import header_of
from volume.header_json import header_from_json, header_to_json
from volume.pet import seconds_between, suv_scale

HALF_LIFE_S = 6586.2
LEFT = 2 ** (-3600 / HALF_LIFE_S)
FACTOR = 70_000 / (4e8 * LEFT)


def with_each(change: Callable[[Dataset], object]) -> list[Header]:
    series = pet_series()
    for ds in series:
        change(ds)
    return headers_of(series)


def setting(**values: object) -> list[Header]:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return with_each(change)


def isotope(**values: object) -> list[Header]:
    return with_each(lambda ds: ds.RadiopharmaceuticalInformationSequence[0].update(values))


def test_a_pet_becomes_becquerel_by_the_slope_of_each_slice(tmp_path: Path) -> None:
    series = pet_series(3)
    paths = {ds.SOPInstanceUID: path for ds, path in zip(series, save(series, tmp_path), strict=True)}
    (stack,) = group(headers_of(series))
    volume = assemble(stack, paths)
    for k, plane in enumerate(volume.voxels):
        np.testing.assert_allclose(plane, (-1000 + k + 1) * (1.5 + k))
    assert volume.unit == "BQML"  # Units, whatever RescaleType says
    assert volume.suv_body_weight_factor == pytest.approx(FACTOR)


def test_the_factor_is_the_same_from_file_bytes_and_from_the_index(tmp_path: Path) -> None:
    (ds, *_) = pet_series()
    header, _ = inspect(save([ds], tmp_path)[0])
    assert header == header_of(ds, str(ds.file_meta.TransferSyntaxUID))
    assert header_from_json(header_to_json(header)) == replace(header, patient=None)
    assert suv_scale([header]).factor == pytest.approx(FACTOR)


def test_no_date_or_time_of_the_injection_is_kept() -> None:
    (header, *_) = headers_of(pet_series())
    text = header_to_json(header)
    assert header.injection_to_series_s == 3600
    assert "090000" not in text
    assert "20240102" not in text


def test_decay_corrected_to_the_injection_needs_no_times() -> None:
    headers = [replace(h, injection_to_series_s=None) for h in setting(DecayCorrection="ADMIN")]
    assert suv_scale(headers).factor == pytest.approx(70_000 / 4e8)


def test_the_date_and_time_of_the_injection_go_before_its_time() -> None:
    headers = isotope(RadiopharmaceuticalStartDateTime="20240102080000.00")
    assert suv_scale(headers).factor == pytest.approx(70_000 / (4e8 * 2 ** (-7200 / HALF_LIFE_S)))


def test_values_that_are_suv_already_have_the_factor_one() -> None:
    assert suv_scale(setting(Units="GML")).factor == 1.0
    assert suv_scale(setting(Units="GML", SUVType="BW")).factor == 1.0
    assert suv_scale(setting(Units="GML", SUVType="LBM")).factor is None


def test_counts_of_one_maker_have_its_own_factors() -> None:
    def privately(element: int, value: str) -> Callable[[Dataset], None]:
        def change(ds: Dataset) -> None:
            ds.Units = "CNTS"
            ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(element, "DS", value)

        return change

    assert suv_scale(with_each(privately(0x00, "0.0007"))).factor == pytest.approx(0.0007)
    assert suv_scale(with_each(privately(0x09, "2.5"))).factor == pytest.approx(2.5 * FACTOR)
    assert suv_scale(with_each(privately(0x00, "0"))).factor is None


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (setting(Units="CNTS"), "Units"),
        (setting(PatientWeight=""), "PatientWeight"),
        (setting(PatientWeight="0"), "PatientWeight"),
        (isotope(RadionuclideTotalDose=""), "RadionuclideTotalDose"),
        (isotope(RadionuclideHalfLife="0"), "RadionuclideHalfLife"),
        (setting(DecayCorrection="NONE"), "DecayCorrection"),
        (setting(CorrectedImage=["DECY"]), "CorrectedImage"),
        (isotope(RadiopharmaceuticalStartTime="110000"), "time from injection"),
        (isotope(RadiopharmaceuticalStartDateTime="20231225080000"), "time from injection"),
        (isotope(RadiopharmaceuticalStartDateTime="20240102080000.00-0500"), "time from injection"),
        (setting(SeriesTime="120000"), "SeriesTime is later"),
        (setting(AcquisitionTime=""), "SeriesTime is later"),
    ],
)
def test_what_leaves_doubt_gives_no_factor_and_says_so(headers: list[Header], said: str) -> None:
    scale = suv_scale(headers)
    assert scale.factor is None
    assert said in scale.reason


def test_two_tracers_give_no_factor(tmp_path: Path) -> None:
    series = pet_series()
    for ds in series:
        (other,) = pet_series(1, dose_bq=1e8)
        ds.RadiopharmaceuticalInformationSequence.append(other.RadiopharmaceuticalInformationSequence[0])
    assert suv_scale(headers_of(series)).factor is None
    header, _ = inspect(save(series, tmp_path)[0])
    assert header == headers_of(series)[0]


def test_slices_of_two_patients_doses_give_no_factor() -> None:
    headers = headers_of([*pet_series(2), *pet_series(2, dose_bq=3e8)])
    assert "differ between" in suv_scale(headers).reason


@given(seconds=st.integers(0, 86_399))
def test_seconds_count_over_the_day(seconds: int) -> None:
    clock = f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
    assert seconds_between("20240102000000", f"20240102{clock}.250000") == seconds + 0.25


@pytest.mark.parametrize("text", ["", "20240102", "20241302101010", "20240102101010+0100", "20240102 101010"])
def test_what_is_no_moment_gives_no_distance(text: str) -> None:
    assert seconds_between(text, "20240102101010") is None
