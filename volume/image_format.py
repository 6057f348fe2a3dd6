"""Which instances can become images, and where their pixels lie, judged by headers alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from domain.errors import AssemblyError
from domain.image import Raster
from domain.instance import Header
from domain.series import RefusalCode
from volume.kinds import PROJECTION_CLASSES, ULTRASOUND_CLASSES
from volume.numbers import instance_numbers, listed
from volume.pixel_format import has_sound_bits, is_rescaled

MOST_BYTES = 640 << 20
"""Decoded pixels of one instance; with what decoding needs beside them a process stays below 1 GiB."""

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
PALETTE = "PALETTE COLOR"
_TYPES = (np.uint8, np.int16, np.uint16, np.int32)


def is_grey(header: Header) -> bool:
    """Tell whether the pixels are grey values, and no colours."""
    return header.photometric_interpretation in _GREY


def check_image_format(header: Header, *, most_bytes: int = MOST_BYTES) -> None:
    """Raise ``AssemblyError`` unless the frames of an instance can be decoded into an image.

    Parameters
    ----------
    most_bytes
        How much memory its pixels may need.
    """
    for accepts, code, said in _RULES:
        if not accepts(header):
            raise AssemblyError(code, f"{said} ({listed([header])})", instance_numbers([header]))
    needed = bytes_needed(header)
    if needed > most_bytes:
        raise AssemblyError(
            RefusalCode.TOO_LARGE,
            f"Rows, Columns, SamplesPerPixel and NumberOfFrames say that the pixels need {needed >> 20} MiB of "
            f"memory, which is more than {most_bytes >> 20} MiB ({listed([header])}). Send fewer frames an instance.",
            instance_numbers([header]),
        )


def bytes_needed(header: Header) -> int:
    """Return the memory of the decoded pixels."""
    frames, rows, columns = shape_of(header)
    return frames * rows * columns * (grey_dtype(header).itemsize if is_grey(header) else 3)


def shape_of(header: Header) -> tuple[int, int, int]:
    """Return frames, rows and columns."""
    return header.number_of_frames or 1, header.rows or 0, header.columns or 0


def grey_dtype(header: Header) -> np.dtype[np.integer | np.floating]:
    """Return the smallest type that holds every value that there can be after the Modality LUT."""
    if header.has_modality_lut_sequence:
        return np.dtype(np.uint16)  # PS3.3 C.11.1.1: its entries are unsigned, of 8 or 16 bits
    slope, intercept = slope_and_intercept(header)
    if not (slope.is_integer() and intercept.is_integer()):
        return np.dtype(np.float32)
    bits = header.bits_stored or 16
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if header.pixel_representation == 1 else (0, (1 << bits) - 1)
    )
    ends = low * slope + intercept, high * slope + intercept
    for dtype in _TYPES:
        if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def slope_and_intercept(header: Header) -> tuple[float, float]:
    """Return RescaleSlope and RescaleIntercept, or what their absence means."""
    slope, intercept = header.rescale_slope, header.rescale_intercept
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def raster_of(header: Header) -> Raster:
    """Return where the pixels of an instance lie, with the distance between them where the header says it.

    Of projections PixelSpacing holds where it was calibrated, that is where it differs from ImagerPixelSpacing or
    PixelSpacingCalibrationType says how (PS3.3 10.7.1.3); otherwise both are distances at the detector. Ultrasound is
    calibrated by regions (``volume.calibration``).
    """
    spacing, origin = _spacing(header)
    return Raster(shape=shape_of(header), spacing_mm=spacing, spacing_origin=origin)


Spacing = tuple[float, float] | None


def _spacing(header: Header) -> tuple[Spacing, str]:
    if header.sop_class_uid in ULTRASOUND_CLASSES:
        return None, ""
    in_patient = _positive(header.pixel_spacing_mm)
    is_projection = header.sop_class_uid in PROJECTION_CLASSES
    device = "imager" if is_projection or header.imager_pixel_spacing_mm else "scanner"
    at_device, keyword = (
        (_positive(header.imager_pixel_spacing_mm), "ImagerPixelSpacing")
        if device == "imager"
        else (_positive(header.nominal_scanned_pixel_spacing_mm), "NominalScannedPixelSpacing")
    )
    if in_patient is None:
        return at_device, keyword if at_device else ""
    is_calibrated = header.pixel_spacing_calibration_type in ("GEOMETRY", "FIDUCIAL")
    if at_device is not None and _close(in_patient, at_device) and not is_calibrated:
        return at_device, keyword
    return in_patient, "PixelSpacing"


def _positive(spacing: Spacing) -> Spacing:
    """Return a spacing that can be one: some write ``0\\\\0`` for none."""
    return spacing if spacing is not None and all(0 < length < math.inf for length in spacing) else None


def _close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a - b) <= 1e-4 * b for a, b in zip(one, other, strict=True))


def _has_sound_samples(header: Header) -> bool:
    if is_grey(header) or header.photometric_interpretation == PALETTE:
        return header.samples_per_pixel == 1
    return header.samples_per_pixel == 3 and header.photometric_interpretation in _COLOURS


_RULES: tuple[tuple[Callable[[Header], bool], RefusalCode, str], ...] = (
    (
        lambda h: h.has_pixel_data,
        RefusalCode.PIXELS_UNREADABLE,
        "The image came without PixelData. Send it again from the PACS or modality",
    ),
    (
        lambda h: bool(h.rows and h.columns),
        RefusalCode.UNSUPPORTED_PIXELS,
        "Rows or Columns are missing or zero",
    ),
    (
        _has_sound_samples,
        RefusalCode.UNSUPPORTED_PIXELS,
        "PhotometricInterpretation must be MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB or YBR_FULL, YBR_FULL_422, "
        "YBR_ICT, YBR_RCT, and SamplesPerPixel must fit it",
    ),
    (
        lambda h: h.pixel_presentation in (None, "MONOCHROME") or not is_grey(h),
        RefusalCode.UNSUPPORTED_PIXELS,
        "PixelPresentation says that some of the grey values are colours. Send the images without their coloured "
        "overlay",
    ),
    (
        has_sound_bits,
        RefusalCode.UNSUPPORTED_PIXELS,
        "BitsAllocated must be 8 or 16, and BitsStored, HighBit and PixelRepresentation must fit it",
    ),
    (
        lambda h: h.rescale_slope != 0 or not is_grey(h),
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
