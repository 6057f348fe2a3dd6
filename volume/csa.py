"""What Siemens writes privately into MR images: the CSA header (form SV10), and the protocol inside it.

The form is described by nobody but those who read it: https://nipy.org/nibabel/dicom/siemens_csa.html. The form
before SV10 is not read: its readers do not agree on the lengths of its items.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from domain.instance import Mosaic

Items = Mapping[str, tuple[str, ...]]
"""Values of each element of a CSA header, by name."""

_CREATOR: Final = "SIEMENS CSA HEADER"
_MR_CREATOR: Final = "SIEMENS MR HEADER"
_IMAGE_HEADER, _SERIES_HEADER, _IMAGES_IN_MOSAIC = 0x10, 0x20, 0x0A
_MAGIC: Final = b"SV10\4\3\2\1"
_COUNT = struct.Struct("<II")
_ELEMENT = struct.Struct("<64si4siii")
_ITEM = struct.Struct("<iiii")
_CHECK: Final = 77
_CHECKS: Final = frozenset({_CHECK, 205})
_MOST: Final = 1024
"""Elements, and items of one; SPM takes no more either."""
_BEGIN, _END = "### ASCCONV BEGIN", "\n### ASCCONV END ###"
_SLICES = re.compile(
    r"^sSliceArray\.(lSize|ucImageNumb\w+|asSlice\[\d+\]\.(?:sPosition\.d\w+|d(?:Phase|Readout)FOV))\s*=\s*(\S+)\s*$",
    re.MULTILINE,
)


class CsaFault(ValueError):
    """A private header is not what it should be; the text ends a sentence and quotes no values."""


def read_csa(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the elements of a CSA header of the form SV10.

    Raises
    ------
    CsaFault
        It has another form, or contradicts itself.
    """
    if not data.startswith(_MAGIC):
        raise CsaFault("it does not have the form SV10")
    try:
        return _elements(data)
    except (struct.error, UnicodeError) as error:
        raise CsaFault("it is cut off or damaged") from error


def _elements(data: bytes) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    count, check = _COUNT.unpack_from(data, len(_MAGIC))
    at = len(_MAGIC) + _COUNT.size
    if not 0 < count <= _MOST or check != _CHECK:
        raise CsaFault("it is damaged")
    for _ in range(count):
        name, _vm, _vr, _type, items, check = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if not 0 <= items <= _MOST or check not in _CHECKS:
            raise CsaFault("it is damaged")
        values = []
        for _ in range(items):
            _, length, check, _ = _ITEM.unpack_from(data, at)
            at += _ITEM.size
            if check not in _CHECKS or not 0 <= length <= len(data) - at:
                raise CsaFault("it is cut off or damaged")
            values.append(_text(data[at : at + length]))
            at += -(-length // 4) * 4
        while values and not values[-1]:  # the places of values that are not there
            values.pop()
        found[_text(name)] = tuple(values)
    return found


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("latin-1").strip()


def mosaic_of(ds: Dataset) -> Mosaic:
    """Return what a dataset says of its tiles, whether or not it goes together."""
    try:
        return _mosaic(ds)
    except CsaFault as error:
        return Mosaic(fault=str(error))


def read_mosaic(path: Path) -> Mosaic:
    """Return what a Part 10 file says of its tiles."""
    try:
        return mosaic_of(pydicom.dcmread(path, stop_before_pixels=True))
    except OSError:
        raise
    except Exception:  # pydicom raises whatever a damaged file leads to
        return Mosaic(fault="the file's header is damaged")


def _mosaic(ds: Dataset) -> Mosaic:
    image = _csa(ds, _IMAGE_HEADER)
    if image is None:
        raise CsaFault(f"it is missing (private creator {_CREATOR})")
    series = _csa(ds, _SERIES_HEADER) or {}
    planned, extent, is_renumbered = _plan(series)
    numbers = {_count(image), *_public_count(ds)}
    if len(numbers) > 1:
        raise CsaFault("it contradicts the attribute NumberOfImagesInMosaic beside it")
    (images,) = numbers
    normal = _numbers(image.get("SliceNormalVector", ()))
    protocol_number = _numbers(image.get("ProtocolSliceNumber", ()))
    spacing = ds.get("SpacingBetweenSlices")
    return Mosaic(
        images=images,
        normal=(normal[0], normal[1], normal[2]) if len(normal) == 3 else None,
        spacing_mm=None if spacing is None else _number(str(spacing)),
        is_renumbered=is_renumbered or any(protocol_number),
        planned_mm=planned,
        planned_extent_mm=extent,
    )


def _csa(ds: Dataset, element: int) -> Items | None:
    try:
        value = ds.private_block(0x0029, _CREATOR)[element].value
    except KeyError:
        return None
    if not isinstance(value, bytes):
        raise CsaFault("it is no sequence of bytes")
    return read_csa(value)


def _public_count(ds: Dataset) -> tuple[int | None, ...]:
    """Return NumberOfImagesInMosaic as newer software repeats it outside of the CSA header."""
    try:
        value = ds.private_block(0x0019, _MR_CREATOR)[_IMAGES_IN_MOSAIC].value
    except KeyError:
        return ()
    if isinstance(value, bytes) and len(value) == 2:  # without a VR
        return (int.from_bytes(value, "little"),)
    return (value if isinstance(value, int) else None,)


def _count(image: Items) -> int | None:
    values = image.get("NumberOfImagesInMosaic", ())
    return int(values[0]) if len(values) == 1 and values[0].isdecimal() else None


def _plan(
    series: Items,
) -> tuple[tuple[tuple[float, float, float], ...], tuple[float, float] | None, bool]:
    """Return the centres and the field of view of the slices that the protocol plans, and whether it renumbers them.

    Numbers that are zero are left out of a protocol.
    """
    text = next((series[name][0] for name in ("MrPhoenixProtocol", "MrProtocol") if series.get(name)), None)
    if text is None:
        return (), None, False
    said = {name: _number(value) for name, value in _SLICES.findall(_protocol(text))}
    count = said.get("lSize")
    if count is None or not count.is_integer() or not 0 < count <= _MOST or None in said.values():
        raise CsaFault("the slices of the protocol in it cannot be read")
    slices = [f"asSlice[{k}]" for k in range(int(count))]

    def of(name: str) -> float:
        return said.get(name) or 0.0

    centres = tuple(
        (of(f"{one}.sPosition.dSag"), of(f"{one}.sPosition.dCor"), of(f"{one}.sPosition.dTra")) for one in slices
    )
    extents = {(of(f"{one}.dPhaseFOV"), of(f"{one}.dReadoutFOV")) for one in slices}
    if len(extents) > 1:
        raise CsaFault("the slices of the protocol in it differ in size")
    return centres, extents.pop(), any(value for name, value in said.items() if name.startswith("ucImageNumb"))


def _protocol(text: str) -> str:
    """Return the lines between those that mark the protocol; in one pass, whatever is in the text."""
    lines = text.partition(_BEGIN)[2].partition("\n")[2]
    end = lines.find(_END)
    if end < 0:
        raise CsaFault("the protocol in it is cut off or damaged")
    return lines[:end]


def _numbers(values: tuple[str, ...]) -> tuple[float, ...]:
    """Return numbers; nothing where one value is none."""
    found = tuple(number for number in map(_number, values) if number is not None)
    return found if len(found) == len(values) else ()


def _number(text: str) -> float | None:
    try:
        number = float(int(text, 16)) if text.lower().startswith("0x") else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
