"""Reads the attributes that the gateway decides by, forgiving everything but missing identity."""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag

from domain.engine import OWN_MANUFACTURER
from domain.errors import MalformedInstance
from domain.instance import Header
from volume import csa
from volume.functional_groups import (
    SHARED_KEY,
    VRS,
    Groups,
    frame_values,
    frames_from,
    groups_of,
)
from volume.kinds import ENHANCED_CLASSES, SLICE_CLASSES
from volume.patient import patient_digest
from volume.pet import seconds_between
from volume.private import PHILIPS_ACTIVITY, PHILIPS_SUV, Encoded, private_values
from volume.private import is_wanted as is_wanted_privately

Values = Mapping[int, tuple[str, ...]]
"""Values of top-level attributes as text, by tag; an absent attribute has no key."""

CONTRIBUTING_EQUIPMENT = 0x0018A001
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
CHARACTER_SET = 0x00080005
PIXEL_REPRESENTATION = 0x00280103
_MANUFACTURER = 0x00080070
_MODEL = 0x00081090
# PS3.5 9.1, but leading zeros in a component are tolerated: they are common and identify just as well.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

_TEXT = {
    "modality": "Modality",
    "frame_of_reference_uid": "FrameOfReferenceUID",
    "photometric_interpretation": "PhotometricInterpretation",
    "patient_position": "PatientPosition",
    "rescale_type": "RescaleType",
    "acquisition_time": "AcquisitionTime",
    "convolution_kernel": "ConvolutionKernel",
    "body_part_examined": "BodyPartExamined",
    "series_description": "SeriesDescription",
    "protocol_name": "ProtocolName",
    "scanning_sequence": "ScanningSequence",
    "contrast_bolus_agent": "ContrastBolusAgent",
    "manufacturer": "Manufacturer",
    "manufacturer_model_name": "ManufacturerModelName",
    "requested_procedure_priority": "RequestedProcedurePriority",
    "units": "Units",
    "decay_correction": "DecayCorrection",
    "suv_type": "SUVType",
    "pixel_presentation": "PixelPresentation",
    "pixel_spacing_calibration_type": "PixelSpacingCalibrationType",
    "view_position": "ViewPosition",
    "voi_lut_function": "VOILUTFunction",
}
_INTEGER = {
    "instance_number": "InstanceNumber",
    "acquisition_number": "AcquisitionNumber",
    "number_of_frames": "NumberOfFrames",
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "high_bit": "HighBit",
    "pixel_representation": "PixelRepresentation",
    "pixel_padding_value": "PixelPaddingValue",
    "pixel_padding_range_limit": "PixelPaddingRangeLimit",
    "echo_number": "EchoNumbers",
    "temporal_position": "TemporalPositionIdentifier",
    "images_in_series": "NumberOfSeriesRelatedInstances",
}
_NUMBER = {
    "slice_thickness_mm": "SliceThickness",
    "gantry_detector_tilt_deg": "GantryDetectorTilt",
    "rescale_slope": "RescaleSlope",
    "rescale_intercept": "RescaleIntercept",
    "echo_time_ms": "EchoTime",
    "repetition_time_ms": "RepetitionTime",
    "inversion_time_ms": "InversionTime",
    "flip_angle_deg": "FlipAngle",
    "trigger_time_ms": "TriggerTime",
    "diffusion_b_value": "DiffusionBValue",
    "kvp": "KVP",
    "frame_reference_time_ms": "FrameReferenceTime",
    "patient_weight_kg": "PatientWeight",
}
_ISOTOPE = {"injected_dose_bq": "RadionuclideTotalDose", "half_life_s": "RadionuclideHalfLife"}
_NUMBERS = {
    "image_position_mm": ("ImagePositionPatient", 3),
    "image_orientation": ("ImageOrientationPatient", 6),
    "pixel_spacing_mm": ("PixelSpacing", 2),
    "imager_pixel_spacing_mm": ("ImagerPixelSpacing", 2),
    "nominal_scanned_pixel_spacing_mm": ("NominalScannedPixelSpacing", 2),
    "diffusion_direction": ("DiffusionGradientOrientation", 3),
}
_SEVERAL = {"window_centres": "WindowCenter", "window_widths": "WindowWidth"}
_REQUIRED = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
}
TUPLES = frozenset(("image_type", "corrected_image", "window_explanations", *_NUMBERS, *_SEVERAL))
"""Fields of ``Header`` that are tuples."""
_OTHER = (
    "ImageType", "LossyImageCompression", "ModalityLUTSequence", "SpecificCharacterSet", "CorrectedImage",
    "VOILUTSequence", "WindowCenterWidthExplanation",
)  # fmt: skip
_PATIENT = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
_MOMENTS = ("SeriesDate", "SeriesTime", "AcquisitionDate")
_INJECTION = ("RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime")
RADIOPHARMACEUTICAL = 0x00540016


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no attribute called {keyword}")
    return tag


_TEXT_TAGS = {name: _tag(keyword) for name, keyword in _TEXT.items()}
_INTEGER_TAGS = {name: _tag(keyword) for name, keyword in _INTEGER.items()}
_NUMBER_TAGS = {name: _tag(keyword) for name, keyword in _NUMBER.items()}
_NUMBERS_TAGS = {name: (_tag(keyword), count) for name, (keyword, count) in _NUMBERS.items()}
_REQUIRED_TAGS = {name: (_tag(keyword), keyword) for name, keyword in _REQUIRED.items()}
_SEVERAL_TAGS = {name: _tag(keyword) for name, keyword in _SEVERAL.items()}
_IMAGE_TYPE, _LOSSY, _MODALITY_LUT, _, _CORRECTED, _VOI_LUT, _EXPLANATIONS = (_tag(keyword) for keyword in _OTHER)
_PATIENT_TAGS = tuple(_tag(keyword) for keyword in _PATIENT)
_ISOTOPE_TAGS = {name: _tag(keyword) for name, keyword in _ISOTOPE.items()}
_INJECTED_AT, _INJECTED_ON = (_tag(keyword) for keyword in _INJECTION)
_SERIES_DATE, _SERIES_TIME, _ACQUISITION_DATE = (_tag(keyword) for keyword in _MOMENTS)
_ACQUISITION_TIME = _TEXT_TAGS["acquisition_time"]
_PRESENT_ONLY = PIXEL_DATA | {_MODALITY_LUT, _VOI_LUT}

WANTED: frozenset[int] = frozenset(
    {
        *_TEXT_TAGS.values(), *_INTEGER_TAGS.values(), *_NUMBER_TAGS.values(),
        *(tag for tag, _ in _NUMBERS_TAGS.values()), *(tag for tag, _ in _REQUIRED_TAGS.values()),
        *_SEVERAL_TAGS.values(), *(_tag(keyword) for keyword in (*_OTHER, *_MOMENTS, *_PATIENT)),
    }
)  # fmt: skip
"""Tags whose values ``header_from_values`` reads, beside the pixel data's presence and the contributing equipment."""
ISOTOPE_WANTED: frozenset[int] = frozenset({*_ISOTOPE_TAGS.values(), _INJECTED_AT, _INJECTED_ON})
"""Tags of the items of Radiopharmaceutical Information Sequence; they occur nowhere else."""
EQUIPMENT_WANTED: frozenset[int] = frozenset({_MANUFACTURER, _MODEL})
"""Tags of the items of Contributing Equipment Sequence that tell whether an object is our own."""

_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_VRS = VRS | {tag: dictionary_VR(tag) for tag in WANTED}


def is_wanted(tag: int) -> bool:
    """Tell whether a top-level attribute's value is needed for the header."""
    return tag in WANTED or is_wanted_privately(tag)


def is_uid(value: str) -> bool:
    """Tell whether ``value`` can identify: PS3.5 9.1, with leading zeros in components tolerated."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def header_of(ds: Dataset, transfer_syntax_uid: str) -> Header:
    """Return the header of a dataset; values that cannot be read are ``None``.

    Raises
    ------
    MalformedInstance
        SOP Class, SOP Instance, Study or Series Instance UID is absent, empty or not a UID; names the attribute.
    """
    raw: dict[int, Encoded] = {}
    values: dict[int, tuple[str, ...]] = {}
    for tag in {*WANTED, *PIXEL_DATA, *filter(is_wanted_privately, map(int, ds.keys()))}:
        element: RawDataElement | DataElement | None = ds.get_item(Tag(tag))
        if isinstance(element, RawDataElement):
            raw[tag] = (element.value or b"", element.VR, element.is_little_endian)
        elif element is not None:
            values[tag] = _texts(tag, element)
            if is_wanted_privately(tag):
                raw[tag] = ("\\".join(values[tag]).encode("latin-1", "replace"), "LO", True)
    values = values_of_bytes(raw) | {tag: value for tag, value in values.items() if value} | _isotope(ds)
    values[CONTRIBUTING_EQUIPMENT] = tuple(_equipment(ds))
    header = header_from_values(values, transfer_syntax_uid, groups_of(ds, _texts))
    return replace(header, mosaic=csa.mosaic_of(ds)) if is_mosaic(header) else header


def is_mosaic(header: Header) -> bool:
    """Tell whether private attributes say what is in an instance: it is a Siemens mosaic."""
    is_slice = header.sop_class_uid in SLICE_CLASSES and header.number_of_frames in (None, 1)
    return is_slice and "MOSAIC" in header.image_type


def _texts(tag: int, element: DataElement) -> tuple[str, ...]:
    if tag in _PRESENT_ONLY:
        return () if element.is_empty else ("present",)
    value = element.value
    if isinstance(value, bytes):
        return _split(value.decode("latin-1"))
    if value is None:
        return ()
    several = not isinstance(value, str) and isinstance(value, Sequence)
    return tuple(str(item).strip(" \0") for item in (value if several else (value,)))


def _isotope(ds: Dataset) -> dict[int, tuple[str, ...]]:
    """Return what the items of the sequence agree on; two tracers that differ give no dose."""
    found: dict[int, tuple[str, ...]] = {}
    for item in ds.get("RadiopharmaceuticalInformationSequence") or ():
        for tag in map(Tag, ISOTOPE_WANTED):
            if tag in item:
                own = _texts(tag, item[tag])
                found[tag] = own if found.get(tag, own) == own else ()
    return found


def _equipment(ds: Dataset) -> Iterable[str]:
    for item in ds.get("ContributingEquipmentSequence") or ():
        yield from (str(item.get(keyword, "")) for keyword in ("Manufacturer", "ManufacturerModelName"))


def values_of_bytes(raw: Mapping[int, Encoded]) -> dict[int, tuple[str, ...]]:
    """Return values as text from encoded ones, by tag: ``(bytes, VR or None, little endian)``."""
    charset = raw.get(CHARACTER_SET, (b"", None, True))[0].decode("latin-1")
    signed = raw.get(PIXEL_REPRESENTATION, (b"", None, True))[0].strip(b"\0") == b"\x01"
    values = {tag: _decoded(tag, *encoded, charset=charset, signed=signed) for tag, encoded in raw.items()}
    return private_values(raw) | {tag: value for tag, value in values.items() if value}


def values_of_group(raw: Mapping[int, Encoded], declared: Mapping[int, Encoded]) -> dict[int, tuple[str, ...]]:
    """Return the values of one item of functional groups; ``declared`` holds the dataset's character set."""
    values = values_of_bytes({**declared, **raw})
    return {tag: values[tag] for tag in raw if tag in values}


def _decoded(
    tag: int, value: bytes, vr: str | None, little_endian: bool, *, charset: str, signed: bool
) -> tuple[str, ...]:
    if tag in _PRESENT_ONLY:
        return ("present",) if value else ()
    known = _VRS.get(tag, "UN")
    if known == "US or SS":
        # Explicit VR says which; Implicit VR leaves it to Pixel Representation (PS3.5 A.1).
        known = vr if vr in ("US", "SS") else ("SS" if signed else "US")
    code = _BINARY.get(known)
    if code is None:
        return _split(_decode(value, charset))
    count = len(value) // struct.calcsize(code)
    endian = "<" if little_endian else ">"
    return tuple(str(item) for item in struct.unpack_from(f"{endian}{count}{code}", value))


_CONTROLS = dict.fromkeys((*range(32), 127), " ")
"""No VR that is read here may hold them (PS3.5 6.1.3); in names of stacks and in tables they would do harm."""


def _split(text: str) -> tuple[str, ...]:
    text = text.strip(" \0")
    text = text if text.isprintable() else text.translate(_CONTROLS)
    return tuple([part.strip(" \0") for part in text.split("\\")]) if text else ()


def _decode(value: bytes, charset: str) -> str:
    """Decode text whose character set may be wrong, unknown or absent: never fails (PS3.3 C.12.1.1.2)."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    terms = [term.strip(" \0") for term in charset.split("\\")]
    try:
        if len(terms) > 1:
            return str(decode_bytes(value, convert_encodings(terms), set()))
        return value.decode(python_encoding.get(terms[0], "latin-1"), "replace")
    except (LookupError, ValueError):
        return value.decode("latin-1")


def header_from_values(
    values: Values,
    transfer_syntax_uid: str,
    groups: Groups | None = None,
    *,
    pixel_data_offset: int | None = None,
) -> Header:
    """Return the header that ``values`` and functional groups say; see ``header_of``."""
    found: dict[str, Any] = _identity(values)
    for name, tag in _TEXT_TAGS.items():
        found[name] = _first(values, tag)
    for name, tag in _INTEGER_TAGS.items():
        found[name] = _integer(_first(values, tag))
    for name, tag in _NUMBER_TAGS.items():
        found[name] = _number(_first(values, tag))
    for name, (tag, count) in _NUMBERS_TAGS.items():
        found[name] = _numbers(values.get(tag, ()), count)
    for name, tag in _SEVERAL_TAGS.items():
        texts = values.get(tag, ())
        found[name] = _numbers(texts, len(texts)) or ()
    found |= _pet(values)
    found["image_type"] = tuple(map(_shared, values.get(_IMAGE_TYPE, ())))
    found["window_explanations"] = tuple(map(_shared, values.get(_EXPLANATIONS, ())))
    if groups is None or found["sop_class_uid"] not in ENHANCED_CLASSES:
        groups = {}  # segmentations and others have frames too, which are no slices
    found |= frame_values(groups.get(SHARED_KEY, {}))
    return Header(
        transfer_syntax_uid=_shared(transfer_syntax_uid),
        frames=frames_from(groups, found["number_of_frames"]),
        has_pixel_data=any(values.get(tag) for tag in PIXEL_DATA),
        pixel_data_offset=pixel_data_offset,
        lossy=_first(values, _LOSSY) == "01",
        has_modality_lut_sequence=bool(values.get(_MODALITY_LUT)),
        has_voi_lut_sequence=bool(values.get(_VOI_LUT)),
        is_own_result=_is_own(values),
        patient=patient_digest(*(_first(values, tag) for tag in _PATIENT_TAGS)),
        **found,
    )


def _pet(values: Values) -> dict[str, Any]:
    """Return what SUVs are computed from; dates and times leave this function as distances only."""
    found: dict[str, Any] = {name: _number(_first(values, tag)) for name, tag in _ISOTOPE_TAGS.items()}
    day = _first(values, _SERIES_DATE) or ""
    begun = day + (_first(values, _SERIES_TIME) or "")
    at = _first(values, _INJECTED_AT)
    injected = _first(values, _INJECTED_ON) or (day + at if at else "")
    acquired = (_first(values, _ACQUISITION_DATE) or day) + (_first(values, _ACQUISITION_TIME) or "")
    is_pet = found["injected_dose_bq"] is not None
    return found | {
        "corrected_image": tuple(map(_shared, values.get(_CORRECTED, ()))) if is_pet else (),
        "injection_to_series_s": seconds_between(injected, begun) if is_pet else None,
        "series_to_acquisition_s": seconds_between(begun, acquired) if is_pet else None,
        "philips_suv_factor": _number(_first(values, PHILIPS_SUV)),
        "philips_activity_factor": _number(_first(values, PHILIPS_ACTIVITY)),
    }


def _identity(values: Values) -> dict[str, str]:
    found = {name: _shared("\\".join(values.get(tag, ()))) for name, (tag, _) in _REQUIRED_TAGS.items()}
    for name, (_, keyword) in _REQUIRED_TAGS.items():
        if not is_uid(found[name]):
            what = "is not a UID" if found[name] else "is absent or empty"
            raise MalformedInstance(f"{keyword} {what}", attribute=keyword)
    return found


def _is_own(values: Values) -> bool:
    said = [text for tag in (_MANUFACTURER, _MODEL, CONTRIBUTING_EQUIPMENT) for text in values.get(tag, ())]
    return any(text.strip().casefold() == OWN_MANUFACTURER.casefold() for text in said)


def _shared(text: str) -> str:
    """Return one object for equal texts: the instances of a series say the same, and a request may hold thousands."""
    return sys.intern(str(text))


def _first(values: Values, tag: int) -> str | None:
    found = values.get(tag)
    return _shared(found[0]) or None if found else None


def _integer(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(texts: tuple[str, ...], count: int) -> tuple[float, ...] | None:
    numbers = tuple(number for number in map(_number, texts) if number is not None)
    return numbers if len(numbers) == len(texts) == count else None
