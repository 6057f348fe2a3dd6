"""From counts or activity to the standardised uptake value by body weight, or why not (PS3.3 C.8.9.1, C.8.9.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.instance import Header

_SLACK_S = 1.0
"""Times are written to whole seconds by some devices."""
_LONGEST_S = 24 * 3600.0
"""No tracer in use is imaged later than this after its injection; a larger distance is a wrong date."""


@dataclass(frozen=True, slots=True)
class SuvScale:
    """What voxels must be multiplied by for SUVbw in g/ml; or, where there is no factor, the reason."""

    factor: float | None
    reason: str = ""


def seconds_between(start: str, end: str) -> float | None:
    """Return the seconds from one ``YYYYMMDDHHMMSS.FFFFFF`` to another; ``None`` where one cannot be read.

    One with an offset from UTC is not read: the other is local time of a zone that nobody tells.
    """
    first, second = _moment(start), _moment(end)
    return None if first is None or second is None else (second - first).total_seconds()


def _moment(text: str) -> datetime | None:
    whole, _, fraction = text.strip().replace(":", "").partition(".")
    if not (whole.isdigit() and len(whole) in (12, 14) and (fraction or "0").isdigit()):
        return None
    try:
        return datetime.strptime(f"{whole:0<14}.{fraction[:6] or '0'}", "%Y%m%d%H%M%S.%f")
    except ValueError:
        return None


def suv_scale(headers: Sequence[Header]) -> SuvScale:
    """Return the factor by which the rescaled values of a PET stack become SUVbw.

    Where the slices disagree, or one thing is missing or implausible, there is none: a guessed SUV looks like a
    right one.
    """
    units = {header.units for header in headers}
    if units == {"GML"}:
        return _already_suv(headers)
    philips = {header.philips_suv_factor for header in headers}
    if units == {"CNTS"} and len(philips) == 1 and (known := philips.pop()) and known > 0:
        return SuvScale(known)
    per_count = {header.philips_activity_factor for header in headers}
    if units == {"CNTS"} and len(per_count) == 1 and (activity := per_count.pop()) and activity > 0:
        scale = _from_activity(headers)
        return SuvScale(scale.factor and scale.factor * activity, scale.reason)
    if units != {"BQML"}:
        return SuvScale(None, "Units are not BQML (or GML, or CNTS with the maker's own factor)")
    return _from_activity(headers)


def _already_suv(headers: Sequence[Header]) -> SuvScale:
    if {header.suv_type or "BW" for header in headers} == {"BW"}:
        return SuvScale(1.0)
    return SuvScale(None, "SUVType is not BW")


def _from_activity(headers: Sequence[Header]) -> SuvScale:
    first = headers[0]
    if any(_dose_facts(header) != _dose_facts(first) for header in headers):
        return SuvScale(None, "dose, weight, decay correction or times differ between the slices")
    fault = _fault(headers)
    if fault:
        return SuvScale(None, fault)
    # _fault has seen to it that all of these are known and positive.
    weight_g = 1000 * (first.patient_weight_kg or math.nan)
    decayed_s = 0.0 if first.decay_correction == "ADMIN" else first.injection_to_series_s or 0.0
    left_bq = (first.injected_dose_bq or math.nan) * 2 ** (-decayed_s / (first.half_life_s or math.nan))
    return SuvScale(weight_g / left_bq)


def _dose_facts(header: Header) -> tuple[object, ...]:
    return (
        header.decay_correction,
        header.corrected_image,
        header.patient_weight_kg,
        header.injected_dose_bq,
        header.half_life_s,
        header.injection_to_series_s,
    )


def _fault(headers: Sequence[Header]) -> str:
    first = headers[0]
    for name, value in (
        ("PatientWeight", first.patient_weight_kg),
        ("RadionuclideTotalDose", first.injected_dose_bq),
        ("RadionuclideHalfLife", first.half_life_s),
    ):
        if value is None or value <= 0:
            return f"{name} is missing, not positive or not the same throughout"
    if not {"ATTN", "DECY"} <= set(first.corrected_image):
        return "CorrectedImage does not name attenuation and decay"
    if first.decay_correction == "ADMIN":
        return ""
    if first.decay_correction != "START":
        return "DecayCorrection is neither START nor ADMIN"
    elapsed = first.injection_to_series_s
    if elapsed is None or not 0 <= elapsed <= _LONGEST_S:
        return "the time from injection to SeriesTime is missing, negative or above a day"
    acquired = [header.series_to_acquisition_s for header in headers]
    if any(after is None or after < -_SLACK_S for after in acquired):
        return "SeriesTime is later than an AcquisitionTime, so it is not the time that decay was corrected to"
    return ""
