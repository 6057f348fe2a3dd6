"""What can be asked for in one run: the ``options`` of a route, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from domain.errors import EngineFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a case; the defaults are the original's behaviour."""

    window: tuple[float, float] | None = None
    """Lower and upper bound; written ``"-160,240"``. ``None``: the engine's setting, else by modality."""
    largest_component: bool | None = None
    """Keep only the largest part of each object: of a volume, 26-connected; of each frame, 8-connected. ``None``: in
    volumes only, as the original."""
    fill_holes: bool = False
    """Fill holes of at most 8 pixels of the 128 x 128 logits, as the original does on a GPU."""
    stop_after_empty: int = 0
    """Follow an object no further after so many slices without it; 0: to the end."""
    first_slice: int = 0
    last_slice: int = -1
    """Slices outside this range are not looked at; counted from 0 along the volume, negative from its end. Frames
    likewise."""

    def slices(self, count: int) -> range:
        """Return the slices that are looked at, of so many."""
        return range(*slice(self.first_slice, self.last_slice + 1 or None).indices(count))


_FLAGS = frozenset({"largest_component", "fill_holes"})


def options_of(given: Mapping[str, object]) -> Options:
    """Return checked options.

    Raises
    ------
    EngineFailed
        An option is unknown or has no meaning; the message names it.
    """
    known = {item.name for item in fields(Options)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise EngineFailed(f"There is no option {unknown[0]}; known: {', '.join(sorted(known))}.")
    values: dict[str, object] = {}
    for name, value in given.items():
        if name == "window":
            values[name] = window_of(value)
        elif (name in _FLAGS) != isinstance(value, bool) or not isinstance(value, int):
            raise EngineFailed(f"The option {name} has a value without meaning.")
        else:
            values[name] = value
    chosen = Options(**values)  # type: ignore[arg-type]
    if chosen.stop_after_empty < 0:
        raise EngineFailed("The option stop_after_empty has a value without meaning.")
    return chosen


def window_of(given: object) -> tuple[float, float] | None:
    """Return the bounds of a window given as ``"lower,upper"`` or as two numbers; empty: none.

    Raises
    ------
    EngineFailed
        It is not two numbers, the lower first.
    """
    if given is None or given == "":
        return None
    parts = given.split(",") if isinstance(given, str) else given
    try:
        lower, upper = (float(part) for part in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        lower = upper = float("nan")
    if not lower < upper:
        raise EngineFailed("A window is two numbers, the lower bound first, then the upper (not centre and width).")
    return lower, upper
