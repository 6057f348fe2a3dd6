"""One image as a person sees it: colours as RGB, grey values through their window. For looking, not for measuring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

import volume.jpeg12  # noqa: F401  (pydicom then knows JPEG Extended of 12 bits)
from domain.errors import StorageError
from domain.instance import Header
from volume.pixels import unreadable

Picture = npt.NDArray[np.uint8]

_BRIGHTEST, _DARKEST = 99.5, 0.5
"""Percentiles that become white and black where the header names no window."""


def read_picture(header: Header, path: Path, frame: int = 1) -> Picture:
    """Return one frame for display; shape ``(rows, columns, 3)``.

    YBR and palette colours become RGB (PS3.3 C.7.6.3.1.2), whatever the planar configuration; MONOCHROME1 is
    inverted, since here the values are shown and not used. Only the frame asked for is decoded.

    Parameters
    ----------
    frame
        From 1, as DICOM counts (PS3.3 C.7.6.6).

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``, with the instance and its transfer syntax.
    StorageError
        The file cannot be read.
    """
    try:
        # pydicom cannot find single frames in a file that is deflated as a whole.
        is_deflated = header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
        values = pixel_array(pydicom.dcmread(path) if is_deflated else path, index=frame - 1)
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        return _rgb(values, ds)
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    except Exception as error:  # pydicom and each decoder raise whatever a damaged file leads to
        raise unreadable(header, "the pixel data is damaged, missing or of a kind that no decoder takes") from error


def _rgb(values: npt.NDArray[np.generic], ds: Dataset) -> Picture:
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, ds)
    if values.ndim == 3:
        return _as_bytes(values, int(ds.BitsStored) if values.dtype != np.uint8 else 8)
    shown = apply_voi_lut(apply_modality_lut(values, ds), ds)
    has_window = shown is not values and ("WindowCenter" in ds or "VOILUTSequence" in ds)
    grey = _stretched(np.asarray(shown, np.float64), by_extent=has_window)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[:, :, None], 3, axis=2)


def _as_bytes(values: npt.NDArray[np.generic], bits: int) -> Picture:
    """Return colours with 8 bits; palettes come with 16 significant ones (PS3.3 C.7.6.3.1.5)."""
    whole = np.asarray(values, np.int64)
    deep = max(bits, int(whole.max(initial=0)).bit_length())
    return (whole >> max(0, deep - 8)).clip(0, 255).astype(np.uint8)


def _stretched(values: npt.NDArray[np.float64], *, by_extent: bool) -> Picture:
    ends = (0, 100) if by_extent else (_DARKEST, _BRIGHTEST)
    low, high = np.percentile(values, ends)
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros(values.shape)
    return scaled.clip(0, 255).astype(np.uint8)
