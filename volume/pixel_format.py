"""Which pixel formats can become voxels, judged by headers alone (PS3.3 C.7.6.3 and C.11.1)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    PositronEmissionTomographyImageStorage,
)

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import RefusalCode
from volume.numbers import instance_numbers, listed

HOUNSFIELD = "HU"
_CT_CLASSES = frozenset({CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})


def unit_of(header: Header) -> str:
    """Return the unit of the values after the Modality LUT: ``HU``, what RescaleType says, or empty.

    RescaleSlope, RescaleIntercept are type 1 in CT, and RescaleType may be absent only where the unit is HU
    (PS3.3 C.8.2.1.1). A CT without them cannot be said to hold HU. In PET, Units says it (PS3.3 C.8.9.1) and
    RescaleType is at best a repetition.
    """
    if header.sop_class_uid == PositronEmissionTomographyImageStorage:
        return header.units or ""
    if header.rescale_type is not None:
        return header.rescale_type.upper()
    is_rescaled = header.rescale_slope is not None and header.rescale_intercept is not None
    return HOUNSFIELD if header.sop_class_uid in _CT_CLASSES and is_rescaled else ""


def check_pixel_format(headers: Sequence[Header]) -> None:
    """Raise ``AssemblyError`` unless the pixels of all ``headers`` can be decoded into one grey-scale volume.

    Signedness and bit depth may differ between slices: each is decoded by its own header.
    """
    for accepts, code, said in _RULES:
        offenders = [header for header in headers if not accepts(header)]
        if offenders:
            raise AssemblyError(code, f"{said} ({listed(offenders)})", instance_numbers(offenders))
    for key, said in _AGREEMENTS:
        _check_agreement(headers, key, said)


def _check_agreement(headers: Sequence[Header], key: Callable[[Header], Hashable], said: str) -> None:
    values = [key(header) for header in headers]
    if len(set(values)) > 1:
        common = max(set(values), key=lambda value: (values.count(value), str(value)))
        offenders = [header for header, value in zip(headers, values, strict=True) if value != common]
        message = f"{said} ({listed(offenders)} differ from the rest). Send the series as the modality made it."
        raise AssemblyError(RefusalCode.MIXED_PIXEL_FORMAT, message, instance_numbers(offenders))


def is_rescaled(header: Header) -> bool:
    """Tell whether RescaleSlope or RescaleIntercept is there."""
    return header.rescale_slope is not None or header.rescale_intercept is not None


def has_sound_bits(header: Header) -> bool:
    """Tell whether BitsAllocated, BitsStored, HighBit and PixelRepresentation go together and can be read."""
    allocated, stored = header.bits_allocated, header.bits_stored
    if allocated not in (8, 16) or stored is None or header.high_bit is None:
        return False
    return 1 <= stored <= header.high_bit + 1 <= allocated and header.pixel_representation in (0, 1)


_RULES: tuple[tuple[Callable[[Header], bool], RefusalCode, str], ...] = (
    (
        lambda h: h.has_pixel_data,
        RefusalCode.PIXELS_UNREADABLE,
        "Images came without PixelData. Send them again from the PACS or modality",
    ),
    (
        lambda h: h.samples_per_pixel == 1 and h.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2"),
        RefusalCode.UNSUPPORTED_PIXELS,
        "Colour images have no values to measure: SamplesPerPixel must be 1 and PhotometricInterpretation "
        "MONOCHROME1 or MONOCHROME2. Send the original grey-scale images",
    ),
    (
        lambda h: h.pixel_presentation in (None, "MONOCHROME"),
        RefusalCode.UNSUPPORTED_PIXELS,
        "PixelPresentation says that some values are colours, which have nothing to measure. Send the images without "
        "their coloured overlay",
    ),
    (
        has_sound_bits,
        RefusalCode.UNSUPPORTED_PIXELS,
        "BitsAllocated must be 8 or 16, and BitsStored, HighBit and PixelRepresentation must fit it",
    ),
    (
        lambda h: h.rescale_slope != 0,
        RefusalCode.UNSUPPORTED_PIXELS,
        "RescaleSlope is zero, which makes all pixels equal",
    ),
    (
        lambda h: not (h.has_modality_lut_sequence and is_rescaled(h)),
        RefusalCode.MODALITY_LUT_CONFLICT,
        "ModalityLUTSequence and RescaleSlope or RescaleIntercept are both present; PS3.3 C.11.1 allows one of them, "
        "and which one holds cannot be known",
    ),
)

_AGREEMENTS: tuple[tuple[Callable[[Header], Hashable], str], ...] = (
    (lambda h: h.photometric_interpretation, "PhotometricInterpretation differs between the slices"),
    (lambda h: h.has_modality_lut_sequence, "Only some of the slices have a ModalityLUTSequence"),
    (
        lambda h: (h.rescale_slope is None, h.rescale_intercept is None),
        "Only some of the slices have RescaleSlope and RescaleIntercept",
    ),
    (unit_of, "RescaleType (in PET: Units) differs between the slices"),
)
