"""Naming instances in messages by InstanceNumber (PS3.3 C.7.6.1), which identifies nobody."""

from __future__ import annotations

from collections.abc import Iterable

from domain.instance import Header

_LISTED = 8  # more runs of numbers than this make a message unreadable; the error's own field has them all


def instance_numbers(headers: Iterable[Header]) -> tuple[int, ...]:
    """Return the instance numbers of ``headers``, ascending; instances without one are left out."""
    return tuple(sorted({h.instance_number for h in headers if h.instance_number is not None}))


def listed(headers: Iterable[Header]) -> str:
    """Return ``InstanceNumber 3, 7 to 12`` for a sentence."""
    runs: list[list[int]] = []
    for number in instance_numbers(headers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if not runs:
        return "instances without an InstanceNumber"
    shown = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in runs[:_LISTED])
    return f"InstanceNumber {shown}" + (" and others" if len(runs) > _LISTED else "")


def between(first: Header, second: Header) -> str:
    """Return ``between InstanceNumber 3 and 4`` for a sentence."""
    numbers = [first.instance_number, second.instance_number]
    if None in numbers:
        return "between two instances of which one has no InstanceNumber"
    return f"between InstanceNumber {numbers[0]} and {numbers[1]}"


def counted(count: int, noun: str) -> str:
    """Return ``1 slice`` or ``2 slices``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
