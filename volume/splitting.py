"""Attributes that may tell several stacks of one series apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from domain.instance import Header

Raw = tuple[str, ...]
"""Names of the attributes of a header that are looked at."""
Shape = Callable[[Any], Hashable]
"""Makes one value of what a header says; of several attributes it takes a tuple."""
Label = Callable[[Any, Sequence[Any]], str]
"""Words for one value, given all values in order."""


@dataclass(frozen=True, slots=True)
class Splitter:
    """One attribute, or a few that belong together.

    ``never_mixed``: images that differ in it show different things even where their positions do not collide, so a
    stack that holds two values of it and cannot be split is refused.
    """

    raw: Raw
    shape: Shape
    label: Label
    what: str
    never_mixed: bool = False

    def key(self, header: Header) -> Hashable:
        """Return the value of one header."""
        return self.shape(attrgetter(*self.raw)(header))

    def keys(self, headers: Iterable[Header]) -> list[Hashable]:
        """Return the values of several headers, in order."""
        said = list(map(attrgetter(*self.raw), headers))
        shaped = {value: self.shape(value) for value in set(said)}
        if len(shaped) == 1:  # as nearly always: all slices of a series say the same
            return [*shaped.values()] * len(said)
        return [shaped[value] for value in said]


def _number(what: str, unit: str = "") -> Label:
    def label(value: Any, values: Sequence[Any]) -> str:
        return f"without {what}" if value is None else f"{what} {value:g}{unit}"

    return label


def _text(what: str) -> Label:
    def label(value: Any, values: Sequence[Any]) -> str:
        return f"{what} {value}" if value else f"without {what}"

    return label


def _ordinal(what: str) -> Label:
    """Number the values: for UIDs, times and free text, which may identify a patient."""

    def label(value: Any, values: Sequence[Any]) -> str:
        return f"{what} {values.index(value) + 1}"

    return label


def _tokens(value: Any, values: Sequence[Any]) -> str:
    """Name the words of ImageType that not all values share."""
    shared = set(values[0]).intersection(*map(set, values[1:]))
    return "image type " + (" ".join(word for word in value if word not in shared) or "plain")


_COMPONENTS = {
    "M": "magnitude", "MAGNITUDE": "magnitude", "P": "phase", "PHASE": "phase", "PHASE MAP": "phase",
    "R": "real", "REAL": "real", "I": "imaginary", "IMAGINARY": "imaginary",
    "W": "water", "WATER": "water", "F": "fat", "FAT": "fat",
    "IP": "in phase", "IN_PHASE": "in phase", "OP": "out of phase", "OUT_PHASE": "out of phase",
    "OPP_PHASE": "out of phase", "ADC": "ADC",
}  # fmt: skip


def _component(said: tuple[tuple[str, ...], str | None]) -> str:
    """Return what part of the signal an MR image shows, by the defined terms of ImageType from value 3 on."""
    image_type, complex_component = said
    words = (*image_type[2:], complex_component)
    found = dict.fromkeys(_COMPONENTS[word] for word in words if word in _COMPONENTS)
    return " ".join(found)


def _as_said(value: Hashable) -> Hashable:
    return value


def _rounded(digits: int) -> Shape:
    def shape(value: float | tuple[float, ...] | None) -> Hashable:
        if isinstance(value, tuple):
            return tuple(round(number, digits) for number in value)
        return None if value is None else round(value, digits)

    return shape


SPLITTERS: tuple[Splitter, ...] = (
    Splitter(
        ("image_type", "complex_component"),
        _component,
        lambda value, _: value or "other images",
        "ImageType",
        never_mixed=True,
    ),
    Splitter(("echo_time_ms",), _rounded(2), _number("echo time", " ms"), "EchoTime", never_mixed=True),
    Splitter(("echo_number",), _as_said, _number("echo"), "EchoNumbers", never_mixed=True),
    Splitter(("inversion_time_ms",), _rounded(0), _number("inversion time", " ms"), "InversionTime", True),
    Splitter(("diffusion_b_value",), _rounded(0), _number("b-value"), "DiffusionBValue", never_mixed=True),
    Splitter(("diffusion_direction",), _rounded(3), _ordinal("diffusion direction"), "DiffusionGradientOrientation"),
    Splitter(("convolution_kernel",), _as_said, _text("kernel"), "ConvolutionKernel", never_mixed=True),
    Splitter(("temporal_position",), _as_said, _number("temporal position"), "TemporalPositionIdentifier"),
    Splitter(("trigger_time_ms",), _rounded(0), _number("trigger time", " ms"), "TriggerTime"),
    Splitter(("frame_reference_time_ms",), _rounded(0), _number("frame time", " ms"), "FrameReferenceTime"),
    Splitter(("image_type",), _as_said, _tokens, "ImageType"),
    Splitter(("kvp",), _as_said, _number("tube voltage", " kV"), "KVP"),
    Splitter(("flip_angle_deg",), _rounded(1), _number("flip angle", " degrees"), "FlipAngle"),
    Splitter(("rows", "columns"), _as_said, lambda value, _: f"matrix {value[0]}x{value[1]}", "Rows and Columns"),
    Splitter(("pixel_spacing_mm",), _rounded(4), _ordinal("field of view"), "PixelSpacing"),
    Splitter(("slice_thickness_mm",), _rounded(2), _number("slice thickness", " mm"), "SliceThickness"),
    Splitter(
        ("contrast_bolus_agent",),
        lambda value: value is None,
        lambda value, _: "without contrast agent" if value else "with contrast agent",
        "ContrastBolusAgent",
    ),
    Splitter(("frame_of_reference_uid",), _as_said, _ordinal("frame of reference"), "FrameOfReferenceUID"),
    Splitter(("acquisition_number",), _as_said, _number("acquisition"), "AcquisitionNumber"),
    Splitter(("acquisition_time",), _as_said, _ordinal("acquisition time"), "AcquisitionTime"),
)
"""In the order in which they are tried: what is seen in the image first, bookkeeping last."""
