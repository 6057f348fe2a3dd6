"""Frames as a reader looks at them: windows by modality and tissue. For looking, not for measuring.

Unlike ``volume.display``, which shows what the header asks for, this chooses the window for what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from domain.errors import StorageError
from domain.instance import Tile
from domain.voi import VoiWindow
from volume.colour import Palette
from volume.display import Picture, windowed
from volume.image_attributes import windows_of

LUNG, BRAIN, BONE, SOFT_TISSUE = (-600.0, 1500.0), (40.0, 80.0), (500.0, 2000.0), (40.0, 400.0)
"""Centre and width in HU, as usual in reading rooms."""
_HEADS = frozenset({"HEAD", "BRAIN", "SKULL"})
_DARKEST, _BRIGHTEST = 1.0, 99.7
"""Percentiles that become black and white where the header names no window."""
_HEADROOM = 1.6
"""White, in brightnesses of what was found, where the rest of an MR image is brighter still."""
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How grey values become brightness."""

    centre: float
    width: float
    inverted: bool = False
    """High values are dark, as PET is read, and as MONOCHROME1 says (PS3.3 C.7.6.3.1.2)."""
    function: str = "LINEAR_EXACT"
    """VOILUTFunction."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One decoded frame.

    Attributes
    ----------
    values
        Grey: float32, ``(rows, columns)``, after the Modality LUT. Colour: uint8 RGB, ``(rows, columns, 3)``.
    padding
        Pixels outside of the field of view (PS3.3 C.7.5.1.1.2).
    header
        Of its instance, without pixels.
    """

    values: npt.NDArray[Any] = field(repr=False)
    padding: npt.NDArray[np.bool_] = field(repr=False)
    header: Dataset = field(repr=False)
    looked_up: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """After the first item of VOI LUT Sequence, where the header has one: it has no centre and width."""
    number: int = 1
    """Of the frame in its instance."""

    @property
    def is_colour(self) -> bool:
        """Tell whether the values are RGB."""
        return self.values.ndim == 3

    @property
    def modality(self) -> str:
        """Modality of the header."""
        return str(self.header.get("Modality") or "")


def read_frame(path: Path, frame: int | None = None, tile: Tile | None = None) -> Frame:
    """Return one frame of a Part 10 file, or a tile of it.

    Parameters
    ----------
    frame
        From 1; ``None`` is the first.
    tile
        Of a mosaic; ``None`` for all of the frame.

    Raises
    ------
    StorageError
        The file cannot be read, or its pixels not be decoded: both were possible when it was analysed.
    """
    number = frame or 1
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        deflated = header.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        stored = pixel_array(pydicom.dcmread(path) if deflated else path, index=number - 1)
        return _frame(stored if tile is None else _cut_out(stored, tile), header, number)
    except Exception as error:  # each decoder raises whatever a damaged file leads to
        raise StorageError("The pixels of a source instance cannot be read again") from error


def _cut_out(stored: npt.NDArray[Any], tile: Tile) -> npt.NDArray[Any]:
    return stored[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns]


def _frame(stored: npt.NDArray[Any], header: Dataset, number: int) -> Frame:
    nowhere = np.zeros(stored.shape[:2], bool)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        return Frame(values=Palette(header).colours(stored), padding=nowhere, header=header)
    if stored.ndim == 3:
        return Frame(values=_bytes(stored), padding=nowhere, header=header)
    values = _after_modality_lut(stored, header, number)
    whole = np.rint(values).astype(np.int32)  # a VOI LUT is entered with whole numbers
    looked_up = apply_voi_lut(whole, header, prefer_lut=True) if header.get("VOILUTSequence") else None
    return Frame(
        values=np.asarray(values, np.float32),
        padding=_padding(stored, header),
        header=header,
        looked_up=None if looked_up is None else np.asarray(looked_up, np.float32),
        number=number,
    )


def _bytes(values: npt.NDArray[Any]) -> Picture:
    """Return colours with 8 bits; some photographs have 16."""
    return values.astype(np.uint8) if int(values.max(initial=0)) < 256 else (values >> 8).astype(np.uint8)


def _after_modality_lut(stored: npt.NDArray[Any], header: Dataset, number: int) -> npt.NDArray[Any]:
    transformed = of_frame(header, number, "PixelValueTransformationSequence")
    if transformed is not None:
        return stored * float(transformed.RescaleSlope) + float(transformed.RescaleIntercept)
    values: npt.NDArray[Any] = apply_modality_lut(stored, header)
    return values


def of_frame(header: Dataset, number: int, macro: str) -> Dataset | None:
    """Return the first item of a functional group of a frame, from 1, or of all (PS3.3 C.7.6.16)."""
    for keyword in _GROUPS:
        groups = header.get(keyword) or ()
        held = groups[number - 1 if keyword == _GROUPS[0] else 0].get(macro) if groups else None
        if held:
            item: Dataset = held[0]
            return item
    return None


def _padding(stored: npt.NDArray[Any], header: Dataset) -> npt.NDArray[np.bool_]:
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(stored.shape, bool)
    first, last = sorted((value, limit if isinstance(limit, int) else value))
    inside: npt.NDArray[np.bool_] = (stored >= first) & (stored <= last)
    return inside


def ct_window(found_hu: npt.NDArray[Any], frame: Frame) -> Window:
    """Return the window in which tissue of these values is read; the header's where nothing was found."""
    if not found_hu.size:
        return header_window(frame) or Window(centre=SOFT_TISSUE[0], width=SOFT_TISSUE[1])
    middle = float(np.median(found_hu))
    is_head = str(frame.header.get("BodyPartExamined") or "").upper() in _HEADS
    if middle < -300:
        centre, width = LUNG
    elif middle > 250:
        centre, width = BONE
    else:
        centre, width = BRAIN if is_head and -5 < middle < 90 else SOFT_TISSUE
    return Window(centre=centre, width=width)


def header_window(frame: Frame) -> Window | None:
    """Return the first window of the frame's header; ``None`` without one, or where there is a VOI LUT instead."""
    voi = windows_of(of_frame(frame.header, frame.number, "FrameVOILUTSequence") or frame.header)
    if frame.looked_up is not None or not voi.windows:
        return None
    first = voi.windows[0]
    return Window(centre=first.centre, width=first.width, inverted=_is_monochrome1(frame), function=voi.function)


def window_of(frames: Sequence[Frame], found: npt.NDArray[Any] | None = None) -> Window:
    """Return one window for frames of a series that are looked at together, CT apart.

    PET is read black on white from zero on; MR by its tissue, since its headers' windows differ from slice to slice;
    anything else as its header says.

    Parameters
    ----------
    found
        Values of what was found in them: in MR they must be seen, whatever is brighter.
    """
    first = frames[0]
    named = header_window(first)
    if named is not None and first.modality not in ("MR", "PT"):
        return named
    values = [frame.values if frame.looked_up is None else frame.looked_up for frame in frames]
    known = [array[~frame.padding] for array, frame in zip(values, frames, strict=True)]
    seen = np.concatenate([array.ravel()[:: max(1, array.size // 200_000)] for array in known])
    if first.modality == "MR" and (seen > 0).any():
        seen = seen[seen > 0]
    low, high = np.percentile(seen, (_DARKEST, _BRIGHTEST)) if seen.size else (0.0, 1.0)
    if first.modality in ("PT", "MR"):
        low = min(float(low), 0.0)
    if first.modality == "MR" and found is not None and found.size:
        high = min(high, low + _HEADROOM * (np.percentile(found, 98) - low))
    width = max(float(high - low), 1e-6)
    return Window(
        centre=float(low) + width / 2, width=width, inverted=first.modality == "PT" or _is_monochrome1(first)
    )


def _is_monochrome1(frame: Frame) -> bool:
    return bool(frame.header.PhotometricInterpretation == "MONOCHROME1")


def shown(frame: Frame, window: Window | None) -> Picture:
    """Return a frame as RGB, ``(rows, columns, 3)``; padding is black."""
    if frame.is_colour or window is None:
        return np.asarray(frame.values, np.uint8)
    values = frame.values if frame.looked_up is None else frame.looked_up
    scaled = windowed(
        np.asarray(values, np.float64), VoiWindow(centre=window.centre, width=window.width), window.function
    )
    if window.inverted:
        scaled = 1 - scaled
    if frame.padding.any():
        scaled = np.where(frame.padding, 0, scaled)
    return np.repeat(np.rint(scaled * 255).astype(np.uint8)[:, :, None], 3, axis=2)
