"""Naming instances in messages by InstanceNumber (PS3.3 C.7.6.1), which identifies nobody."""

from __future__ import annotations

from collections.abc import Iterable

from domain.instance import Header

_LISTED = 8  # more runs of numbers than this make a message unreadable; the error's own field has them all


def instance_numbers(headers: Iterable[Header]) -> tuple[int, ...]:
    """Return the instance numbers of ``headers``, ascending; instances without one are left out."""
    return tuple(sorted({h.instance_number for h in headers if h.instance_number is not None}))


def listed(headers: Iterable[Header]) -> str:
    """Return ``InstanceNumber 3, 7 to 12`` for a sentence, or ``frame 3, 7 to 12``, or ``tile 3``, for these."""
    members = list(headers)
    what = "InstanceNumber"
    if any(h.frame_number is not None for h in members):
        what = "frame" if any(h.tile is None for h in members) else "tile"
    runs = in_runs(n for h in members if (n := _number(h)) is not None)
    if not runs:
        return "instances without an InstanceNumber"
    return f"{what} {', '.join(runs[:_LISTED])}" + (" and others" if len(runs) > _LISTED else "")


def in_runs(numbers: Iterable[int]) -> list[str]:
    """Return ``3``, ``7 to 12`` and so on for numbers in any order."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first}" if first == last else f"{first} to {last}" for first, last in runs]


def _number(header: Header) -> int | None:
    """Return what an image is called by: InstanceNumber, or the number of a frame or tile in its instance."""
    return header.instance_number if header.frame_number is None else header.frame_number


def between(first: Header, second: Header) -> str:
    """Return ``between InstanceNumber 3 and 4`` for a sentence."""
    numbers = [_number(first), _number(second)]
    if first.frame_number is not None:
        return f"between frame {numbers[0]} and {numbers[1]}"
    if None in numbers:
        return "between two instances of which one has no InstanceNumber"
    return f"between InstanceNumber {numbers[0]} and {numbers[1]}"


def counted(count: int, noun: str) -> str:
    """Return ``1 slice`` or ``2 slices``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
