"""From one instance without coordinates in the patient to an image: decoded, rescaled, colours as RGB."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from domain.image import Image, Raster
from domain.instance import Header
from volume.colour import Palette, with_eight_bits
from volume.decoding import decoded
from volume.image_attributes import (
    frame_times_of,
    laterality_of,
    orientation_of,
    read_attributes,
    regions_of,
    view_of,
    voi_of,
)
from volume.image_format import (
    MOST_BYTES,
    PALETTE,
    bytes_needed,
    check_image_format,
    grey_dtype,
    is_grey,
    raster_of,
    slope_and_intercept,
)
from volume.pixels import frame_of
from volume.stored import stored_dtype, unreadable


def read_image(header: Header, path: Path, *, frame: int | None = None, most_bytes: int = MOST_BYTES) -> Image:
    """Decode an instance into an image.

    Grey values go through the Modality LUT (PS3.3 C.11.1), a table or slope and intercept; those of MONOCHROME1 are
    not inverted, since photometric interpretation is about display. Padding gets the value among the others that is
    shown darkest. Colours become RGB with 8 bits, whatever their encoding and planar configuration
    (PS3.3 C.7.6.3.1.2). Memory beyond the pixels stays at a few frames, and the compressed pixel data.

    Parameters
    ----------
    header
        Of any instance with pixels; ``volume.image_format`` says which can be read.
    path
        Its Part 10 file.
    frame
        From 1: this frame alone (PS3.3 C.7.6.6).
    most_bytes
        How much memory the pixels may need.

    Raises
    ------
    AssemblyError
        ``TOO_LARGE``, ``UNSUPPORTED_PIXELS``, ``MODALITY_LUT_CONFLICT``; ``PIXELS_UNREADABLE`` with the instance and
        its transfer syntax.
    StorageError
        The file cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        return _read(header, path, frame, most_bytes)


def _read(header: Header, path: Path, frame: int | None, most_bytes: int) -> Image:
    wanted = header if frame is None else replace(header, number_of_frames=1)
    check_image_format(wanted, most_bytes=most_bytes)
    # What is decoded and what it is decoded from are in memory together.
    most_encoded = most_bytes + most_bytes // 4 - bytes_needed(wanted)
    ds = read_attributes(header, path)
    raster = raster_of(wanted)
    frames = range(raster.shape[0]) if frame is None else (frame - 1,)
    padding_value = None
    if is_grey(header):
        pixels, padding_value = _grey(header, path, ds, frames, raster, most_encoded)
    else:
        pixels = _colour(header, path, ds, frames, raster, most_encoded)
    return Image(
        pixels=pixels,
        raster=raster,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        modality=header.modality or "",
        photometric_interpretation=(header.photometric_interpretation or "") if is_grey(header) else "RGB",
        padding_value=padding_value,
        voi=voi_of(ds, header),
        patient_orientation=orientation_of(ds),
        laterality=laterality_of(ds),
        view_position=view_of(ds),
        frame_times_ms=frame_times_of(ds, raster.shape[0]),
        regions=regions_of(ds),
    )


def _grey(
    header: Header, path: Path, ds: Dataset, frames: Sequence[int], raster: Raster, most_encoded: int
) -> tuple[npt.NDArray[np.generic], float | None]:
    pixels = np.zeros(raster.shape, grey_dtype(header))
    padded: dict[int, npt.NDArray[np.uint8]] = {}
    ends: list[float] = []
    stored = decoded(header, path, frames, as_stored=True, most_bytes=most_encoded)
    for place, words in enumerate(stored):
        own = words.astype(stored_dtype(header), copy=not words.flags.writeable)
        frame = frame_of(header, own)
        pixels[place] = _rescaled(header, ds, frame.values)
        if frame.padding is not None:
            padded[place] = np.packbits(frame.padding)
        inside = pixels[place] if frame.padding is None else pixels[place][~frame.padding]
        if inside.size:
            ends += [float(inside.min()), float(inside.max())]
    if not padded:
        return pixels, None
    darkest = max if header.photometric_interpretation == "MONOCHROME1" else min
    padding_value = darkest(ends, default=0.0)
    for place, bits in padded.items():
        mask = np.unpackbits(bits, count=pixels[place].size).reshape(pixels[place].shape).astype(bool)
        pixels[place][mask] = padding_value
    return pixels, padding_value


def _rescaled(header: Header, ds: Dataset, values: npt.NDArray[np.integer]) -> npt.NDArray[np.generic]:
    if header.has_modality_lut_sequence:
        try:
            return np.asarray(apply_modality_lut(values, ds))
        except Exception as error:  # pydicom raises whatever a damaged sequence leads to
            raise unreadable(header, "ModalityLUTSequence cannot be applied") from error
    slope, intercept = slope_and_intercept(header)
    if (slope, intercept) == (1.0, 0.0):
        return values
    return values.astype(np.float64) * slope + intercept


def _colour(
    header: Header, path: Path, ds: Dataset, frames: Sequence[int], raster: Raster, most_encoded: int
) -> npt.NDArray[np.generic]:
    pixels = np.zeros((*raster.shape, 3), np.uint8)
    is_palette = header.photometric_interpretation == PALETTE
    palette = _palette(header, ds) if is_palette else None
    stored = decoded(header, path, frames, as_stored=is_palette, most_bytes=most_encoded)
    for place, values in enumerate(stored):
        if palette is not None:
            own = values.astype(stored_dtype(header), copy=not values.flags.writeable)
            pixels[place] = palette.colours(frame_of(replace(header, pixel_padding_value=None), own).values)
        elif values.ndim == 3 and values.shape[2] == 3:
            pixels[place] = with_eight_bits(values, header.bits_stored or 8)
        else:
            raise unreadable(header, "the decoded image has another number of colours than the header says")
    return pixels


def _palette(header: Header, ds: Dataset) -> Palette:
    try:
        return Palette(ds)
    except Exception as error:  # pydicom raises whatever a damaged table leads to
        raise unreadable(header, "the palette is missing or damaged") from error
