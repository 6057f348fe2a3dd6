"""Prompts as people write them, in ``voxgate.toml`` and on the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from domain.errors import ConfigurationError
from domain.prompt import Box, ObjectPrompt, Point, Position, Prompt, Space
from gateway.sections import PromptSection

Numbers = tuple[float, ...]


def prompt_of(sections: Sequence[PromptSection]) -> Prompt | None:
    """Return the prompt of a route; ``None`` where it has none."""
    if not sections:
        return None
    return Prompt(objects=tuple(map(_object, sections)), space=Space(sections[0].space))


def _object(section: PromptSection) -> ObjectPrompt:
    half = len(section.box) // 2
    corners = (_position(section, section.box[:half]), _position(section, section.box[half:])) if half else None
    return ObjectPrompt(
        boxes=(Box(corners=corners),) if corners else (),
        points=(
            *(Point(at=_position(section, point)) for point in section.points),
            *(Point(at=_position(section, point), positive=False) for point in section.background),
        ),
        label=section.label,
    )


def _position(section: PromptSection, given: Numbers) -> Position:
    """Return ``given`` in the order of its space: x, y, z in mm, or slice, row, column."""
    if section.slice is None:
        x, y, z = given
        return x, y, z
    column, row = given
    return section.slice, row, column


def prompt_given(
    *, boxes: Sequence[str], points: Sequence[str], background: Sequence[str], slice_: int | None, lps: bool
) -> tuple[PromptSection, ...]:
    """Return the objects that the options of ``voxgate run`` describe: one for each box, or one for all points.

    Raises
    ------
    ConfigurationError
        They do not make a prompt; says which option is at fault.
    """
    if not (boxes or points or background):
        if slice_ is not None or lps:
            raise ConfigurationError("--slice and --lps need --box or --point")
        return ()
    if not lps and slice_ is None:
        raise ConfigurationError("--slice is required beside --box and --point, or --lps with coordinates in mm")
    if lps and slice_ is not None:
        raise ConfigurationError("--slice: not with --lps, whose third coordinate tells the slice")
    if len(boxes) > 1 and (points or background):
        raise ConfigurationError("--point: with several boxes it is not clear which object a point belongs to")
    size = 3 if lps else 2
    inside = tuple(_numbers("--point", text, size) for text in points)
    outside = tuple(_numbers("--background", text, size) for text in background)
    if not boxes and not inside:
        raise ConfigurationError("--background needs --box or --point")
    space: Literal["lps", "voxel"] = "lps" if lps else "voxel"
    drawn = [_numbers("--box", text, 2 * size) for text in boxes] or [()]
    return tuple(
        PromptSection(space=space, slice=slice_, box=box, points=inside, background=outside) for box in drawn
    )


def _numbers(option: str, text: str, count: int) -> Numbers:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ConfigurationError(f"{option}: must be {count} numbers with commas between them")
    return numbers
