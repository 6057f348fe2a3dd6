"""Decoded colours as RGB with 8 bits (PS3.3 C.7.6.3.1)."""

from __future__ import annotations

from copy import copy

import numpy as np
import numpy.typing as npt
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
        entries, self._first = ds.RedPaletteColorLookupTableDescriptor[:2]
        count = int(entries) or 1 << 16
        lowest = int(self._first)
        if ds.get("PixelRepresentation") == 1 and lowest >= 1 << 15:
            lowest -= 1 << 16  # the descriptor's VR should follow PixelRepresentation, but may not
        self._first = lowest
        signed = np.arange(lowest, lowest + count, dtype=np.int32)
        table = np.asarray(apply_color_lut(signed, _with_plain_tables(ds, count)))[:, :3]
        # Some say 16 bits and write 8: the table as a whole tells, single frames may just be dark.
        self._table: Colours = (table >> (8 if int(table.max(initial=0)) > 255 else 0)).astype(np.uint8)

    def colours(self, values: npt.NDArray[np.generic]) -> Colours:
        """Return RGB; values outside the table get its first or last entry."""
        index = np.asarray(values, np.int32) - self._first
        found: Colours = self._table[index.clip(0, len(self._table) - 1)]
        return found


def _with_plain_tables(ds: Dataset, count: int) -> Dataset:
    """Return a dataset whose tables are as pydicom takes them: in little endian words, and no byte longer.

    What is OW is turned round in words of two bytes whatever it holds (PS3.5 7.3), and an odd number of bytes padded.
    """
    found = copy(ds)
    is_big_endian = ds.original_encoding[1] is False
    for keyword in _TABLES:
        if keyword not in ds or not isinstance(ds[keyword].value, bytes):
            continue
        vr, data = ds[keyword].VR, ds[keyword].value
        if is_big_endian and vr == "OW":
            data = swapped(data, 2)
        of_bytes = len(data) == count + 1 and (count > 1 or ds.RedPaletteColorLookupTableDescriptor[2] == 8)
        found.add_new(keyword, vr, data[:count] if of_bytes else data)
    return found


def with_eight_bits(values: npt.NDArray[np.generic], bits_stored: int) -> Colours:
    """Return colours of ``bits_stored`` bits with the eight highest of them."""
    if values.dtype == np.uint8:
        return np.asarray(values, np.uint8)
    return (np.asarray(values, np.uint16) >> max(0, bits_stored - 8)).clip(0, 255).astype(np.uint8)
