"""What the frames of an enhanced image say each for itself (PS3.3 C.7.6.16): functional groups, read and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement

from domain.instance import FrameHeader

SHARED: Final = 0x52009229
PER_FRAME: Final = 0x52009230

Values = Mapping[int, tuple[str, ...]]
Groups = Mapping[int, Values]
"""Values as text by tag, for each frame from 0; the shared ones under -1."""
SHARED_KEY: Final = -1
Texts = Callable[[int, DataElement], tuple[str, ...]]


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no attribute called {keyword}")
    return tag


# In each functional group macro the attributes that are read, with the name in FrameHeader. What a converter did not
# know a macro for stands as it was in the "unassigned" sequences (PS3.3 C.7.6.16.2.25, C.7.6.16.2.26).
_VOI = {
    "WindowCenter": "window_centres",
    "WindowWidth": "window_widths",
    "WindowCenterWidthExplanation": "window_explanations",
    "VOILUTFunction": "voi_lut_function",
}
_LEGACY = {
    "EchoTime": "echo_time_ms",
    "RepetitionTime": "repetition_time_ms",
    "InversionTime": "inversion_time_ms",
    "FlipAngle": "flip_angle_deg",
    "ConvolutionKernel": "convolution_kernel",
    "TriggerTime": "trigger_time_ms",
    "KVP": "kvp",
    "TemporalPositionIdentifier": "temporal_position",
    **_VOI,
}
_FRAME_TYPE = {"FrameType": "image_type"}
_MACROS: dict[str, dict[str, str]] = {
    "PlanePositionSequence": {"ImagePositionPatient": "image_position_mm"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "image_orientation"},
    "PixelMeasuresSequence": {"PixelSpacing": "pixel_spacing_mm", "SliceThickness": "slice_thickness_mm"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "rescale_slope",
        "RescaleIntercept": "rescale_intercept",
        "RescaleType": "rescale_type",
    },
    "FrameVOILUTSequence": _VOI,
    "FrameContentSequence": {
        "StackID": "stack_id",
        "TemporalPositionIndex": "temporal_position",
        "FrameAcquisitionNumber": "acquisition_number",
    },
    "CTImageFrameTypeSequence": _FRAME_TYPE,
    "MRImageFrameTypeSequence": _FRAME_TYPE | {"ComplexImageComponent": "complex_component"},
    "PETFrameTypeSequence": _FRAME_TYPE,
    "MREchoSequence": {"EffectiveEchoTime": "echo_time_ms"},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime": "repetition_time_ms", "FlipAngle": "flip_angle_deg"},
    "MRModifierSequence": {"InversionTimes": "inversion_time_ms"},
    "MRDiffusionSequence": {"DiffusionBValue": "diffusion_b_value"},
    "DiffusionGradientDirectionSequence": {"DiffusionGradientOrientation": "diffusion_direction"},
    "CTReconstructionSequence": {"ConvolutionKernel": "convolution_kernel"},
    "CTXRayDetailsSequence": {"KVP": "kvp"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "trigger_time_ms"},
    "UnassignedSharedConvertedAttributesSequence": _LEGACY,
    "UnassignedPerFrameConvertedAttributesSequence": _LEGACY,
}
_NAMES = {
    _tag(macro): {_tag(keyword): name for keyword, name in attributes.items()}
    for macro, attributes in _MACROS.items()
}
_BY_TAG = {tag: name for attributes in _NAMES.values() for tag, name in attributes.items()}
_COUNTS = {"image_position_mm": 3, "image_orientation": 6, "pixel_spacing_mm": 2, "diffusion_direction": 3}
_TEXTS = frozenset({"rescale_type", "stack_id", "convolution_kernel", "complex_component", "voi_lut_function"})
_SEVERAL = frozenset({"window_centres", "window_widths"})
_WHOLE = frozenset({"temporal_position", "acquisition_number"})

VRS: dict[int, str] = {tag: dictionary_VR(tag) for tag in _BY_TAG}
"""VR of every attribute that is read from functional groups."""


def is_wanted(macro: int, tag: int) -> bool:
    """Tell whether an attribute inside the sequence ``macro`` is read."""
    return tag in _NAMES.get(macro, ())


def groups_of(ds: Dataset, texts: Texts) -> Groups:
    """Return the groups of a parsed dataset; ``texts`` turns a tag and an element into values."""
    shared = ds.get("SharedFunctionalGroupsSequence") or ()
    frames = ds.get("PerFrameFunctionalGroupsSequence") or ()
    items = [*((SHARED_KEY, item) for item in shared), *enumerate(frames)]
    return {key: dict(_walked(item, 0, texts)) for key, item in items}


def _walked(item: Dataset, parent: int, texts: Texts) -> Iterator[tuple[int, tuple[str, ...]]]:
    for element in item:
        if is_wanted(parent, element.tag):
            yield int(element.tag), texts(int(element.tag), element)
        elif element.tag in _NAMES and element.VR == "SQ":
            for inner in element.value:
                yield from _walked(inner, int(element.tag), texts)


def frame_values(values: Values) -> dict[str, Any]:
    """Return what one item of functional groups says, by name of ``FrameHeader``; what it leaves out is left out."""
    found: dict[str, Any] = {}
    for tag, texts in values.items():
        name = _BY_TAG[tag]
        value = _value(name, texts)
        if value is not None:
            found[name] = value
    return found


def _value(name: str, texts: Sequence[str]) -> Any:
    if name in ("image_type", "window_explanations"):
        return tuple(texts) or None
    if name in _TEXTS:
        return (texts[0] or None) if texts else None
    numbers = tuple(number for number in map(_number, texts) if number is not None)
    count = _COUNTS.get(name)
    if name in _SEVERAL:
        return numbers if len(numbers) == len(texts) else None
    if count is not None:
        return numbers if len(numbers) == len(texts) == count else None
    if not numbers:
        return None
    return int(numbers[0]) if name in _WHOLE else numbers[0]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def frames_from(groups: Groups, number_of_frames: int | None) -> tuple[FrameHeader, ...]:
    """Return one header a frame; none where the groups do not cover exactly the frames that there are."""
    count = sum(key != SHARED_KEY for key in groups)
    if not count or count != (number_of_frames or 1):
        return ()
    return tuple(FrameHeader(**frame_values(groups[key])) for key in range(count))


_DEFAULTS = {field.name: field.default for field in fields(FrameHeader)}
_TUPLES = frozenset({"image_type", "window_explanations", *_SEVERAL, *_COUNTS})


def frame_as_json(frame: FrameHeader) -> dict[str, Any]:
    """Return what ``frame`` says, for JSON."""
    return {name: getattr(frame, name) for name, default in _DEFAULTS.items() if getattr(frame, name) != default}


def frame_from_json(said: Mapping[str, Any]) -> FrameHeader:
    """Return the frame that ``frame_as_json`` wrote; unknown names are passed over."""
    known: dict[str, Any] = {name: said[name] for name in _DEFAULTS if name in said}
    for name in _TUPLES & known.keys():
        known[name] = tuple(known[name])
    return FrameHeader(**known)
