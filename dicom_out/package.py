"""What is written for one result: the union of what the destinations' profiles ask for, and what stands in for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from dicom_out.kind import Kind, Work
from dicom_out.profile import Options, Profile, Role
from domain.image import Raster

_DEFAULTS = asdict(Options())
_SEG: Role = "SEG"
_REPORTS: tuple[Role, ...] = ("SR", "TEXT-SR")
_ALONE = "ALONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One variant of one kind of object."""

    variant: str
    kind: Kind
    options: Options
    """Those that change its bytes; the others have their defaults."""
    needs: str = ""
    """Variant of the SEG to which it refers."""
    fallback: str = ""
    """Variant for a destination that does not take the SOP class."""
    destinations: tuple[str, ...] = ()
    """Who gets it in the first place; nobody, where it only stands in for another."""


def package(
    kinds: Sequence[Kind], work: Work, wanted: Mapping[str, Profile], *, with_fallbacks: bool
) -> tuple[Piece, ...]:
    """Return what must be written, in the order in which it is written and sent.

    Parameters
    ----------
    wanted
        Profile of each destination.
    with_fallbacks
        Also what takes the place of an object whose SOP class a destination refuses.
    """
    pieces: dict[str, Piece] = {}
    for destination, profile in wanted.items():
        for piece in _pieces(kinds, work, destination, profile, with_fallbacks=with_fallbacks):
            known = pieces.get(piece.variant, replace(piece, destinations=()))
            pieces[piece.variant] = replace(known, destinations=(*known.destinations, *piece.destinations))
    order = [kind.name for kind in kinds]
    return tuple(sorted(pieces.values(), key=lambda piece: order.index(piece.kind.name)))


def _pieces(
    kinds: Sequence[Kind], work: Work, destination: str, profile: Profile, *, with_fallbacks: bool
) -> Iterator[Piece]:
    options = profile.options if work.result.analysed else replace(profile.options, grid="source")
    objects = profile.objects_on(is_picture=isinstance(work.result.grid, Raster))
    if work.result.is_notice:
        objects = tuple(role for role in objects if role in _REPORTS)
    segs = [_variant(seg, options) for seg in _chain(kinds, work, _SEG, options, with_fallbacks=with_fallbacks)]
    bare = [""] if not segs else [_ALONE]  # a report of voxels that goes without its SEG is another report
    needed = segs if _SEG in objects and segs else bare
    also: tuple[Role, ...] = ("REJECTION",) if options.superseded == "reject" else ()
    for role in dict.fromkeys((*objects, *also)):
        chain = _chain(kinds, work, role, options, with_fallbacks=with_fallbacks)
        for place, needs in enumerate(needed if chain and chain[0].needs else [""]):
            variants = [_variant(kind, options, needs) for kind in chain]
            for step, (kind, variant, fallback) in enumerate(zip(chain, variants, [*variants[1:], ""], strict=False)):
                yield Piece(
                    variant=variant,
                    kind=kind,
                    options=_only(options, kind.settings),
                    needs="" if needs == _ALONE else needs,
                    fallback=fallback,
                    destinations=(destination,) if place == step == 0 else (),
                )


def _chain(kinds: Sequence[Kind], work: Work, role: Role, options: Options, *, with_fallbacks: bool) -> list[Kind]:
    """Return the kind that serves a role, then what stands in for it; nothing where the result has no such object.

    What a result does not allow (a label map of overlapping segments, fractions without probabilities) gives way to
    its stand-in at once.
    """
    by_name = {kind.name: kind for kind in kinds}
    chain: list[Kind] = []
    name = kind_name(role, options)
    while name in by_name and (with_fallbacks or not chain):
        kind = by_name[name]
        # Who refuses a SOP class refuses it in the stand-in too
        if kind.applies(work, options) and kind.sop_class_uid not in [earlier.sop_class_uid for earlier in chain]:
            chain.append(kind)
        name = kind.fallback
    return chain


def kind_name(role: Role, options: Options) -> str:
    """Return the name of the kind that serves a role under these options; at most 16 characters."""
    chosen = {"SEG": options.segmentation, "SR": options.report, "TEXT-SR": options.text}.get(role, "")
    return _NAMES.get((role, chosen), role)


_NAMES = {
    ("SEG", "labelmap"): "SEG-LABELMAP",
    ("SEG", "fractional"): "SEG-FRACTIONAL",
    ("SR", "comprehensive"): "SR-COMPREHENSIVE",
    ("TEXT-SR", "enhanced"): "TEXT-SR-ENHANCED",
    ("TEXT-SR", "comprehensive"): "TEXT-SR-COMPREH",
}
"""Where it is not the role's own."""


def _only(options: Options, settings: Sequence[str]) -> Options:
    return Options(**{name: value for name, value in asdict(options).items() if name in settings})


def _variant(kind: Kind, options: Options, needs: str = "") -> str:
    """Return the name of an object within its job; with default options the kind's, and UIDs are made of it."""
    changed = [f"{n}={v}" for n, v in asdict(_only(options, kind.settings)).items() if v != _DEFAULTS[n]]
    return ";".join([kind.name, *changed, *([f"to={needs}"] if needs not in ("", _SEG) else [])])
