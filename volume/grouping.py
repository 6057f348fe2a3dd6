"""Splits a received series into stacks, each meant to become one volume or image, or refused with its reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from domain.errors import AssemblyError
from domain.instance import Header
from domain.series import RESAMPLABLE, Refusal, RefusalCode, Stack, StackKind
from domain.volume import FloatArray
from volume.exclusion import exclusion
from volume.frames import with_frames
from volume.geometry import common_orientation, geometry, normal_of
from volume.image_format import check_image_format
from volume.kinds import kind_of
from volume.numbers import instance_numbers, listed
from volume.planes import same_orientation
from volume.spacing import POSITION_TOLERANCE_MM
from volume.splitting import SPLITTERS, Splitter
from volume.views import VIEW_POSITIONS


def group(headers: Sequence[Header]) -> tuple[Stack, ...]:
    """Split the instances of one series into stacks; an enhanced image takes part with each of its frames.

    Images without coordinates in the patient are a stack each (``volume.kinds``). Slices are divided by orientation,
    and by another attribute only where that leaves whole stacks: slices collide (or show different things) and each
    value of the attribute forms a set of its own over the same range of positions. What remains ambiguous is refused
    and names the instances. A mosaic is one stack, of its tiles.

    Every stack has its ``refusal`` set, or has passed ``volume.geometry.geometry`` and is sorted by position, or,
    where it is no volume, has passed ``volume.image_format.check_image_format``. Each image is in exactly one stack.
    The result does not depend on the order of ``headers``.
    """
    excluded: dict[tuple[RefusalCode, str], list[Header]] = defaultdict(list)
    slices: list[Header] = []
    tiles: dict[str, list[Header]] = defaultdict(list)
    images: list[Stack] = []
    for header in sorted(with_frames(headers), key=received_order):
        cause = exclusion(header)
        if cause is not None:
            excluded[cause].append(header)
        elif header.tile is not None:
            tiles[header.sop_instance_uid].append(header)
        elif kind_of(header) is StackKind.VOLUME:
            slices.append(header)
        else:
            images.append(_alone(header))
    refused = [
        _refused(code.replace("-", " "), members, code, reason) for (code, reason), members in excluded.items()
    ]
    stacks = (
        _by_stack_id(slices) + _mosaics(list(tiles.values())) + images + sorted(refused, key=lambda stack: stack.name)
    )
    return _with_distinct_names(stacks)


def received_order(header: Header) -> tuple[bool, int, str, int]:
    """Return a key by which the images of a series have one order, whatever the order of arrival."""
    number = header.instance_number
    return number is None, number or 0, header.sop_instance_uid, header.frame_number or 0


def _with_distinct_names(stacks: Sequence[Stack]) -> tuple[Stack, ...]:
    if len(stacks) == 1:
        return (replace(stacks[0], name=""),)
    seen: Counter[str] = Counter()
    named = []
    for stack in stacks:
        seen[stack.name] += 1
        name = stack.name if seen[stack.name] == 1 else f"{stack.name} ({seen[stack.name]})"
        named.append(replace(stack, name=name))
    return tuple(named)


def _alone(header: Header) -> Stack:
    """Return the stack of one image or cine, refused where its pixels cannot be used."""
    stack = Stack(name=_name_alone(header), headers=(header,), kind=kind_of(header))
    try:
        check_image_format(header)
    except AssemblyError as error:
        return replace(stack, refusal=_refusal_of(error))
    return stack


def _name_alone(header: Header) -> str:
    number = "" if header.instance_number is None else f" {header.instance_number}"
    view = f", {header.view_position}" if header.view_position in VIEW_POSITIONS else ""
    return f"{kind_of(header)}{number}{view}"


def _mosaics(mosaics: Sequence[Sequence[Header]]) -> list[Stack]:
    """Return the stack of each mosaic, named by what tells it from the others: attributes until no two are alike."""
    names: list[tuple[str, ...]] = [(_plane_name(tiles),) for tiles in mosaics]
    for splitter in SPLITTERS:
        if len(set(names)) == len(names):
            break
        values = [splitter.key(tiles[0]) for tiles in mosaics]
        ordered = sorted(set(values), key=lambda value: (value is None, value))
        if len(ordered) > 1:
            named = zip(names, values, strict=True)
            names = [(*name, splitter.label(value, ordered)) for name, value in named]
    return [_judged(", ".join(name), tiles) for name, tiles in zip(names, mosaics, strict=True)]


def _by_stack_id(slices: Sequence[Header]) -> list[Stack]:
    """Divide by StackID (PS3.3 C.7.6.16.2.2.4), unless that leaves single frames: some give every frame its own."""
    parts: dict[str | None, list[Header]] = defaultdict(list)
    for header in slices:
        parts[header.stack_id].append(header)
    if len(parts) < 2 or min(map(len, parts.values())) < 2:
        return _by_orientation(slices)
    return [
        replace(stack, name=f"stack {number}, {stack.name}")
        for number, part in enumerate(parts.values(), start=1)
        for stack in _by_orientation(part)
    ]


def _by_orientation(slices: Sequence[Header]) -> list[Stack]:
    unplaced = [h for h in slices if h.image_orientation is None]
    clusters: list[list[Header]] = []
    for header in (h for h in slices if h.image_orientation is not None):
        home = next((members for members in clusters if _are_parallel(header, members[0])), None)
        if home is None:
            clusters.append([header])
        else:
            home.append(header)
    strays = [members[0] for members in clusters if len(members) == 1]
    if len(strays) > 1:
        clusters = [members for members in clusters if len(members) > 1]
    stacks = [stack for members in clusters for stack in _divided(members, (_plane_name(members),))]
    if len(strays) > 1:
        reason = (
            f"Each of these slices lies in another direction ({listed(strays)}), so they form no volume. Send the "
            "series that they were planned on or made from."
        )
        stacks.append(_refused("single orientations", strays, RefusalCode.MIXED_ORIENTATION, reason))
    if unplaced:
        stacks.append(_judged("without orientation", unplaced))
    return stacks


def _are_parallel(one: Header, other: Header) -> bool:
    return same_orientation(one.image_orientation or (), other.image_orientation or ())


def _plane_name(members: Sequence[Header]) -> str:
    normal = np.abs(_normal(members))
    axis = int(normal.argmax())
    return ("sagittal", "coronal", "axial")[axis] if normal[axis] > 0.9 else "oblique"


def _normal(members: Sequence[Header]) -> FloatArray:
    orientation = common_orientation([h.image_orientation for h in members if h.image_orientation is not None])
    with np.errstate(invalid="ignore"):  # parallel row and column directions: geometry refuses them
        return normal_of(orientation)


def _divided(members: Sequence[Header], names: tuple[str, ...]) -> list[Stack]:
    """Return the stacks in ``members``, which are parallel."""
    places = places_of(members)
    if places is None:
        return [_judged(", ".join(names), members)]
    for splitter in SPLITTERS:
        parts = _parts(splitter, members, places)
        if parts is not None:
            values = list(parts)
            return [
                stack
                for value, part in parts.items()
                for stack in _divided(part, (*names, splitter.label(value, values)))
            ]
    return [_undivided(", ".join(names), members, places)]


def places_of(members: Sequence[Header]) -> list[int] | None:
    """Number the positions of ``members`` along their normal, equal ones alike; ``None`` where one has none."""
    positions = [h.image_position_mm for h in members if h.image_position_mm is not None]
    if len(positions) < len(members):
        return None
    along = np.asarray(positions) @ _normal(members)
    if not np.isfinite(along).all():
        return None
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order], prepend=along[order[0]]) >= POSITION_TOLERANCE_MM
    places = np.empty(len(along), int)
    places[order] = np.cumsum(steps)
    return [int(place) for place in places]


def _parts(
    splitter: Splitter, members: Sequence[Header], places: Sequence[int]
) -> dict[Hashable, list[Header]] | None:
    """Return the members by value where ``splitter`` separates whole stacks, otherwise ``None``."""
    values = splitter.keys(members)
    if len(set(values)) < 2:
        return None
    collides = len(set(places)) < len(places)
    if not splitter.never_mixed and not (collides and _tells_apart(values, places)):
        return None
    where: dict[Hashable, list[int]] = defaultdict(list)
    for value, place in zip(values, places, strict=True):
        where[value].append(place)
    if not _overlap(list(where.values())):
        return None
    ordered = sorted(where, key=lambda value: (value is None, value))
    return {value: [h for h, own in zip(members, values, strict=True) if own == value] for value in ordered}


def _tells_apart(values: Sequence[Hashable], places: Sequence[int]) -> bool:
    """Tell whether colliding slices differ in value at every place where slices collide."""
    at: dict[int, list[Hashable]] = defaultdict(list)
    for value, place in zip(values, places, strict=True):
        at[place].append(value)
    return all(len(set(found)) > 1 for found in at.values() if len(found) > 1)


def _overlap(sets: Sequence[Sequence[int]]) -> bool:
    """Tell whether each set of places has two or more and shares half its extent with the largest set.

    Sets that follow one another (rotations of a sequential CT, bed positions, halves of a scan) are pieces of one
    stack and not stacks.
    """
    largest = max(sets, key=lambda places: (len(set(places)), max(places) - min(places)))
    low, high = min(largest), max(largest)
    for places in sets:
        extent = max(places) - min(places)
        shared = min(high, max(places)) - max(low, min(places))
        if len(set(places)) < 2 or 2 * shared < extent:
            return False
    return True


def _undivided(name: str, members: Sequence[Header], places: Sequence[int]) -> Stack:
    count = Counter(places)
    crowded = [h for h, place in zip(members, places, strict=True) if count[place] > 1]
    if len(count) > 1 and 2 * sum(n > 1 for n in count.values()) >= len(count):
        reason = (
            f"Up to {max(count.values())} images lie at each of {len(count)} positions ({listed(crowded)}), and no "
            "attribute known to the gateway divides them into whole stacks. Send each echo, phase, b-value or "
            "reconstruction as a series of its own."
        )
        return _refused(name, members, RefusalCode.AMBIGUOUS_STACK, reason, crowded)
    stack = _judged(name, members)
    mixed = next((s for s in SPLITTERS if s.never_mixed and len(set(s.keys(members))) > 1), None)
    if mixed is not None and (stack.refusal is None or stack.refusal.code in RESAMPLABLE):
        values = Counter(mixed.key(h) for h in members)
        usual = max(values, key=lambda value: (values[value], str(value)))
        others = [h for h in members if mixed.key(h) != usual]
        reason = (
            f"{mixed.what} differs between the slices ({listed(others)} differ from the rest), so their values do "
            "not mean the same. Send each as a series of its own."
        )
        return _refused(name, members, RefusalCode.AMBIGUOUS_STACK, reason, others)
    return stack


def _judged(name: str, members: Sequence[Header]) -> Stack:
    """Return the stack sorted by position, or with the reason why it is no volume."""
    stack = Stack(name=name, headers=tuple(members))
    try:
        return replace(stack, headers=geometry(stack).headers)
    except AssemblyError as error:
        return replace(stack, refusal=_refusal_of(error))


def _refusal_of(error: AssemblyError) -> Refusal:
    return Refusal(code=RefusalCode(error.code), reason=str(error), instance_numbers=error.instance_numbers)


def _refused(
    name: str,
    members: Sequence[Header],
    code: RefusalCode,
    reason: str,
    offenders: Sequence[Header] | None = None,
) -> Stack:
    numbers = instance_numbers(members if offenders is None else offenders)
    return Stack(
        name=name,
        headers=tuple(members),
        refusal=Refusal(code=code, reason=reason, instance_numbers=numbers),
    )
