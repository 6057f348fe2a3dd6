"""Attributes that may tell several stacks of one series apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from domain.instance import Header

Key = Callable[[Header], Hashable]
Label = Callable[[Any, Sequence[Any]], str]
"""Words for one value, given all values in order."""


@dataclass(frozen=True, slots=True)
class Splitter:
    """One attribute, or a few that belong together.

    ``never_mixed``: images that differ in it show different things even where their positions do not collide, so a
    stack that holds two values of it and cannot be split is refused.
    """

    key: Key
    label: Label
    what: str
    never_mixed: bool = False


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


def _component(header: Header) -> str:
    """Return what part of the signal an MR image shows, by the defined terms of ImageType from value 3 on."""
    words = (*header.image_type[2:], header.complex_component)
    found = dict.fromkeys(_COMPONENTS[word] for word in words if word in _COMPONENTS)
    return " ".join(found)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


SPLITTERS: tuple[Splitter, ...] = (
    Splitter(_component, lambda value, _: value or "other images", "ImageType", never_mixed=True),
    Splitter(lambda h: _rounded(h.echo_time_ms, 2), _number("echo time", " ms"), "EchoTime", never_mixed=True),
    Splitter(lambda h: h.echo_number, _number("echo"), "EchoNumbers", never_mixed=True),
    Splitter(lambda h: _rounded(h.inversion_time_ms, 0), _number("inversion time", " ms"), "InversionTime", True),
    Splitter(lambda h: _rounded(h.diffusion_b_value, 0), _number("b-value"), "DiffusionBValue", never_mixed=True),
    Splitter(
        lambda h: h.diffusion_direction and tuple(round(x, 3) for x in h.diffusion_direction),
        _ordinal("diffusion direction"),
        "DiffusionGradientOrientation",
    ),
    Splitter(lambda h: h.convolution_kernel, _text("kernel"), "ConvolutionKernel", never_mixed=True),
    Splitter(lambda h: h.temporal_position, _number("temporal position"), "TemporalPositionIdentifier"),
    Splitter(lambda h: _rounded(h.trigger_time_ms, 0), _number("trigger time", " ms"), "TriggerTime"),
    Splitter(lambda h: _rounded(h.frame_reference_time_ms, 0), _number("frame time", " ms"), "FrameReferenceTime"),
    Splitter(lambda h: h.image_type, _tokens, "ImageType"),
    Splitter(lambda h: h.kvp, _number("tube voltage", " kV"), "KVP"),
    Splitter(lambda h: _rounded(h.flip_angle_deg, 1), _number("flip angle", " degrees"), "FlipAngle"),
    Splitter(lambda h: (h.rows, h.columns), lambda value, _: f"matrix {value[0]}x{value[1]}", "Rows and Columns"),
    Splitter(
        lambda h: h.pixel_spacing_mm and tuple(round(x, 4) for x in h.pixel_spacing_mm),
        _ordinal("field of view"),
        "PixelSpacing",
    ),
    Splitter(lambda h: _rounded(h.slice_thickness_mm, 2), _number("slice thickness", " mm"), "SliceThickness"),
    Splitter(
        lambda h: h.contrast_bolus_agent is None,
        lambda value, _: "without contrast agent" if value else "with contrast agent",
        "ContrastBolusAgent",
    ),
    Splitter(lambda h: h.frame_of_reference_uid, _ordinal("frame of reference"), "FrameOfReferenceUID"),
    Splitter(lambda h: h.acquisition_number, _number("acquisition"), "AcquisitionNumber"),
    Splitter(lambda h: h.acquisition_time, _ordinal("acquisition time"), "AcquisitionTime"),
)
"""In the order in which they are tried: what is seen in the image first, bookkeeping last."""
