"""Private attributes that say what a standard one should, found by their private creator (PS3.5 7.8.1)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Final

Encoded = tuple[bytes, str | None, bool]
"""Value, VR where it is known, and whether it is little endian."""

B_VALUE: Final = 0x00189087
DIRECTION: Final = 0x00189089
PHILIPS_SUV: Final = 0x70531000
PHILIPS_ACTIVITY: Final = 0x70531009

# By group, element and creator: the tag under which the value is handed on, its binary type where it is not text,
# and how many numbers belong to it.
_MEANT: dict[tuple[int, int, bytes], tuple[int, str, int]] = {
    (0x0019, 0x0C, b"SIEMENS MR HEADER"): (B_VALUE, "", 1),
    (0x0019, 0x0E, b"SIEMENS MR HEADER"): (DIRECTION, "d", 3),
    (0x0043, 0x39, b"GEMS_PARM_01"): (B_VALUE, "", 1),
    (0x2001, 0x03, b"Philips Imaging DD 001"): (B_VALUE, "f", 1),
    (0x7053, 0x00, b"Philips PET Private Group"): (PHILIPS_SUV, "", 1),
    (0x7053, 0x09, b"Philips PET Private Group"): (PHILIPS_ACTIVITY, "", 1),
}
_ELEMENTS = {(group, element) for group, element, _ in _MEANT}
_GROUPS = {group for group, _ in _ELEMENTS}
_GE_MARK = 1_000_000_000
"""GE adds this to b-values of some sequences; what is above the last five digits is never part of the value."""


def is_wanted(tag: int) -> bool:
    """Tell whether ``private_values`` may need the value: a creator, or an element that one may have reserved."""
    group, element = tag >> 16, tag & 0xFFFF
    if group not in _GROUPS:
        return False
    return 0x10 <= element <= 0xFF or (element >= 0x1000 and (group, element & 0xFF) in _ELEMENTS)


def private_values(raw: Mapping[int, Encoded]) -> dict[int, tuple[str, ...]]:
    """Return numbers as text, by the standard tag that they stand in for, or in the first private block.

    An element without its creator is passed over: it may mean anything.
    """
    found: dict[int, tuple[str, ...]] = {}
    for tag, encoded in raw.items():
        group, block, element = tag >> 16, tag >> 8 & 0xFF, tag & 0xFF
        creator = raw.get(group << 16 | block, (b"", None, True))[0].strip(b" \0") if block else b""
        meant = _MEANT.get((group, element, creator))
        if meant is None:
            continue
        standard, code, count = meant
        numbers = tuple(_numbers(encoded, code))
        if len(numbers) >= count:
            chosen = _without_mark(numbers[:count]) if creator.startswith(b"GEMS") else numbers[:count]
            found[standard] = tuple(map(repr, chosen))
    return found


def _numbers(encoded: Encoded, code: str) -> Iterator[float]:
    """Yield the numbers up to the first that is none; text in a binary attribute is taken as well."""
    value, vr, little_endian = encoded
    kinds = {"FL": "f", "FD": "d", "DS": "", "IS": "", "LO": "", "SH": ""}
    code = kinds.get(vr or "", code)
    if code:
        size = len(value) // struct.calcsize(code)
        yield from filter(math.isfinite, struct.unpack_from(f"{'<' if little_endian else '>'}{size}{code}", value))
        return
    for text in value.decode("latin-1").strip(" \0").split("\\"):
        try:
            number = float(text)
        except ValueError:
            return
        if not math.isfinite(number):
            return
        yield number


def _without_mark(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(number % 100_000 if abs(number) >= _GE_MARK else number for number in numbers)
