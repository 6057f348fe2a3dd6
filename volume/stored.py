"""What stored values are by their header, and what is said of those that cannot be decoded (PS3.3 C.7.6.3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import RefusalCode
from volume.numbers import instance_numbers, listed

Stored = npt.NDArray[np.signedinteger | np.unsignedinteger]

_DTYPES: dict[tuple[bool, bool], np.dtype[np.signedinteger | np.unsignedinteger]] = {
    (True, True): np.dtype(np.int8),
    (True, False): np.dtype(np.int16),
    (False, True): np.dtype(np.uint8),
    (False, False): np.dtype(np.uint16),
}
"""By signedness, and whether there are 8 bits instead of 16."""


def stored_dtype(header: Header) -> np.dtype[np.signedinteger | np.unsignedinteger]:
    """Return the type of the stored values, by BitsAllocated and PixelRepresentation."""
    return _DTYPES[header.pixel_representation == 1, header.bits_allocated == 8]


def stored_range(header: Header) -> tuple[int, int]:
    """Return the lowest and highest value that BitsStored bits can hold."""
    stored = header.bits_stored or 16
    return (
        (-(1 << (stored - 1)), (1 << (stored - 1)) - 1)
        if header.pixel_representation == 1
        else (0, (1 << stored) - 1)
    )


def unreadable(header: Header, why: str) -> AssemblyError:
    """Return the error that names the instance and its transfer syntax."""
    syntax = UID(header.transfer_syntax_uid)
    unknown = "a private one" if syntax.is_private else "one that is not known here"
    name = unknown if syntax.name == syntax else syntax.name
    return AssemblyError(
        RefusalCode.PIXELS_UNREADABLE,
        f"The pixels of {listed([header])} cannot be decoded: {why} (transfer syntax: {name}). Send the series "
        "again, from the modality if the PACS holds a damaged copy, or in Explicit VR Little Endian.",
        instance_numbers([header]),
    )
