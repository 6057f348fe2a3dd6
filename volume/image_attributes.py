"""What a dataset says about the image in it, beside its pixels: display, sides, times, calibrated regions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from domain.errors import AssemblyError, StorageError
from domain.image import UltrasoundRegion
from domain.instance import Header
from domain.voi import Voi
from volume.colour import PALETTE_TAGS
from volume.stored import unreadable
from volume.views import VIEW_POSITIONS, view_of_code
from volume.voi import is_signed_after_rescale, luts_of, windows

_TAGS = (
    "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
    "ModalityLUTSequence",
    "PatientOrientation", "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence",
    "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate", "FrameIncrementPointer",
    "SequenceOfUltrasoundRegions", *PALETTE_TAGS,
)  # fmt: skip

_SIDES = frozenset({"R", "L", "U", "B"})


def read_attributes(header: Header, path: Path) -> Dataset:
    """Return the attributes that images are made with; nothing else of the file is read into memory.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``: the dataset cannot be parsed.
    StorageError
        The file cannot be read.
    """
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    except Exception as error:  # pydicom raises whatever a damaged file leads to
        raise unreadable(header, "the dataset is damaged") from error


def voi_of(ds: Dataset, header: Header) -> Voi:
    """Return the windows and tables of an image: engines are shown what a person sees.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``: there is a table, and it is damaged.
    """
    try:
        luts = luts_of(ds, is_signed=is_signed_after_rescale(header))
    except Exception as error:  # pydicom raises whatever a damaged sequence leads to
        raise unreadable(header, "VOILUTSequence cannot be applied") from error
    return replace(windows_of(ds), luts=luts)


def windows_of(ds: Dataset) -> Voi:
    """Return the windows of a dataset, or of an item of Frame VOI LUT Sequence, without tables."""
    centres, widths = (_numbers(ds, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    explanations = (str(value).strip() for value in _values(ds, "WindowCenterWidthExplanation"))
    return windows(centres, widths, explanations, _text(ds, "VOILUTFunction"))


def orientation_of(ds: Dataset) -> tuple[str, ...]:
    """Return PatientOrientation: where a row and a column lead to; empty where it does not say both."""
    said = tuple(str(value).strip() for value in _values(ds, "PatientOrientation"))
    return said if len(said) == 2 and all(said) else ()


def laterality_of(ds: Dataset) -> str:
    """Return which side of the patient is shown: of the image, or else of the whole series."""
    said = (_text(ds, keyword) for keyword in ("ImageLaterality", "Laterality"))
    return next((side for side in said if side in _SIDES), "")


def read_view(header: Header, path: Path) -> str:
    """Return the view of an image from its file; empty where it does not say, or cannot be read. See ``view_of``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            return view_of(read_attributes(header, path))
    except AssemblyError:
        return ""


def view_of(ds: Dataset) -> str:
    """Return ViewPosition, or what ViewCodeSequence says in its terms."""
    said = _text(ds, "ViewPosition")
    if said in VIEW_POSITIONS:
        return said
    items = ds.get("ViewCodeSequence") or ()
    return view_of_code(_text(items[0], "CodingSchemeDesignator"), _text(items[0], "CodeValue")) if items else ""


def frame_times_of(ds: Dataset, frames: int) -> tuple[float, ...]:
    """Return when each frame was taken, in ms after the first one; empty where that is not said (PS3.3 C.7.6.5)."""
    if frames < 2:
        return ()
    steps = tuple(_numbers(ds, "FrameTimeVector"))
    if len(steps) == frames and all(step >= 0 for step in steps[1:]):
        return tuple(accumulate(steps[1:], initial=0.0))
    step = _first_number(ds, "FrameTime")
    if step is None or step <= 0:
        rate = _first_number(ds, "CineRate") or _first_number(ds, "RecommendedDisplayFrameRate")
        step = 1000 / rate if rate is not None and rate > 0 else None
    return () if step is None else tuple(step * number for number in range(frames))


def read_regions(header: Header, path: Path) -> tuple[UltrasoundRegion, ...]:
    """Return the calibrated regions of a file; see ``regions_of`` and ``read_attributes``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        return regions_of(read_attributes(header, path))


def regions_of(ds: Dataset) -> tuple[UltrasoundRegion, ...]:
    """Return the calibrated regions as they stand; items that lack a number are left out."""
    return tuple(region for item in ds.get("SequenceOfUltrasoundRegions") or () for region in _region(item))


_REGION_NUMBERS = {
    "x0": "RegionLocationMinX0", "y0": "RegionLocationMinY0", "x1": "RegionLocationMaxX1",
    "y1": "RegionLocationMaxY1", "spatial_format": "RegionSpatialFormat", "data_type": "RegionDataType",
    "units_x": "PhysicalUnitsXDirection", "units_y": "PhysicalUnitsYDirection",
    "delta_x": "PhysicalDeltaX", "delta_y": "PhysicalDeltaY",
}  # fmt: skip


def _region(item: Dataset) -> Iterator[UltrasoundRegion]:
    numbers = {name: _first_number(item, keyword) for name, keyword in _REGION_NUMBERS.items()}
    found: dict[str, Any] = {
        name: number if name.startswith("delta") else int(number)
        for name, number in numbers.items()
        if number is not None
    }
    if len(found) == len(_REGION_NUMBERS):
        yield UltrasoundRegion(**found)


def _values(ds: Dataset, keyword: str) -> tuple[object, ...]:
    try:
        value = ds.get(keyword)
    except Exception:  # pydicom parses on access and raises whatever a damaged value leads to
        return ()
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, MultiValue | list) else (value,)


def _text(ds: Dataset, keyword: str) -> str:
    return next((str(value).strip() for value in _values(ds, keyword)), "")


def _numbers(ds: Dataset, keyword: str) -> Iterator[float]:
    for value in _values(ds, keyword):
        try:
            number = float(str(value))
        except ValueError:
            return
        if not math.isfinite(number):
            return
        yield number


def _first_number(ds: Dataset, keyword: str) -> float | None:
    return next(_numbers(ds, keyword), None)
