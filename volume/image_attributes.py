"""What a dataset says about the image in it, beside its pixels: display, sides, times, calibrated regions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from domain.errors import AssemblyError, StorageError
from domain.image import UltrasoundRegion, VoiLut
from domain.instance import Header
from volume.colour import PALETTE_TAGS
from volume.stored import unreadable
from volume.views import VIEW_POSITIONS, view_of_code

_TAGS = (
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "ModalityLUTSequence",
    "PatientOrientation", "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence",
    "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate", "FrameIncrementPointer",
    "SequenceOfUltrasoundRegions", *PALETTE_TAGS,
)  # fmt: skip

_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})
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


def window_of(ds: Dataset) -> tuple[float, float] | None:
    """Return the first centre and width; ``None`` where there are none that can be used (PS3.3 C.11.2.1.2)."""
    centre, width = (_first_number(ds, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    return None if centre is None or width is None or width <= 0 else (centre, width)


def window_function_of(ds: Dataset) -> str:
    """Return VOILUTFunction; without one it is ``LINEAR``."""
    said = _text(ds, "VOILUTFunction")
    return said if said in _FUNCTIONS else "LINEAR"


def voi_lut_of(ds: Dataset, header: Header) -> VoiLut | None:
    """Return the first table of VOILUTSequence.

    Raises
    ------
    AssemblyError
        ``PIXELS_UNREADABLE``: there is one, and it is damaged.
    """
    items = ds.get("VOILUTSequence") or ()
    if not items:
        return None
    try:
        return _voi_lut(items[0], is_signed=header.pixel_representation == 1)
    except Exception as error:  # pydicom raises whatever a damaged sequence leads to
        raise unreadable(header, "VOILUTSequence cannot be applied") from error


def _voi_lut(item: Dataset, *, is_signed: bool) -> VoiLut:
    count, first, _ = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    table: npt.NDArray[np.uint16] = (
        np.frombuffer(data, "<u2").astype(np.uint16) if isinstance(data, bytes) else np.asarray(data, np.uint16)
    )
    table = table[: count or 1 << 16]
    if not table.size:
        raise ValueError("the table is empty")
    return VoiLut(table=table, first=first - (1 << 16) if is_signed and first >= 1 << 15 else first)


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
