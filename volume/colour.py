"""Decoded colours as RGB with 8 bits (PS3.3 C.7.6.3.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from volume.canonical import swapped

Colours = npt.NDArray[np.uint8]

PALETTE_TAGS = (
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "PixelRepresentation",
)  # fmt: skip
"""Attributes that ``Palette`` reads."""

_TABLES = tuple(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue"))


class Palette:
    """Turns stored values into the colours of a palette (PS3.3 C.7.6.3.1.5 to 6)."""

    def __init__(self, ds: Dataset) -> None:
        entries, first, bits = (int(number) for number in ds.RedPaletteColorLookupTableDescriptor)
        count = entries or 1 << 16
        table = _plain(ds, count, bits) if _TABLES[0] in ds else _segmented(ds, first, count, bits)
        # The descriptor's VR should follow PixelRepresentation, but may not.
        self._first = first - (1 << 16) if ds.get("PixelRepresentation") == 1 and first >= 1 << 15 else first
        # Some say 16 bits and write 8: the table as a whole tells, single frames may just be dark.
        self._table: Colours = (table >> (8 if int(table.max(initial=0)) > 255 else 0)).astype(np.uint8)

    def colours(self, values: npt.NDArray[np.generic]) -> Colours:
        """Return RGB; values outside the table get its first or last entry."""
        index = np.asarray(values, np.int32) - self._first
        found: Colours = self._table[index.clip(0, len(self._table) - 1)]
        return found


def _plain(ds: Dataset, count: int, bits: int) -> npt.NDArray[np.unsignedinteger]:
    """Return a table; shape ``(count, 3)``. pydicom's own way takes 256 entries of 8 bits at most."""
    return np.stack([_entries(ds[keyword], ds, count, bits) for keyword in _TABLES], axis=1)


def _entries(table: DataElement, ds: Dataset, count: int, bits: int) -> npt.NDArray[np.unsignedinteger]:
    """Return the entries for one colour; words are turned round in big endian, whatever they hold (PS3.5 7.3)."""
    is_turned = ds.original_encoding[1] is False and table.VR == "OW"
    data = swapped(table.value, 2) if is_turned else table.value
    if len(data) == 2 * count and not (count == 1 and bits == 8):
        return np.frombuffer(data, "<u2")
    if len(data) not in (count, count + count % 2):
        raise ValueError("another number of entries than the descriptor says")
    return np.frombuffer(data, np.uint8, count)


def _segmented(ds: Dataset, first: int, count: int, bits: int) -> npt.NDArray[np.unsignedinteger]:
    if bits == 8 and (count > 1 << 8 or ds.original_encoding[1] is False):
        raise ValueError("segments of bytes that pydicom would take wrongly")
    colours: npt.NDArray[np.unsignedinteger] = apply_color_lut(np.arange(first, first + count), ds)[:, :3]
    return colours


def with_eight_bits(values: npt.NDArray[np.generic], bits_stored: int) -> Colours:
    """Return colours of ``bits_stored`` bits with the eight highest of them."""
    if values.dtype == np.uint8:
        return np.asarray(values, np.uint8)
    return (np.asarray(values, np.uint16) >> max(0, bits_stored - 8)).clip(0, 255).astype(np.uint8)
