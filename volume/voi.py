"""How the source wants images shown (PS3.3 C.11.2), from headers, and from files where there are tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, repeat
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from domain.errors import StorageError
from domain.instance import Header
from domain.voi import Voi, VoiLut, VoiWindow

_SAID = attrgetter("window_centres", "window_widths", "window_explanations", "voi_lut_function")
_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})


def voi_of_header(header: Header) -> Voi:
    """Return the windows of an image, without tables."""
    return windows(
        header.window_centres, header.window_widths, header.window_explanations, header.voi_lut_function or ""
    )


def windows(centres: Iterable[float], widths: Iterable[float], explanations: Iterable[str], function: str) -> Voi:
    """Return what the attributes say together; windows that show nothing, since they have no width, are left out."""
    triples = zip(centres, widths, chain(explanations, repeat("")), strict=False)
    return Voi(
        windows=tuple(VoiWindow(centre=c, width=w, explanation=why) for c, w, why in triples if w > 0),
        function=function if function in _FUNCTIONS else "LINEAR",
    )


def voi_of_slices(headers: Sequence[Header], paths: Mapping[str, Path]) -> tuple[Voi, ...]:
    """Return how each slice is to be shown, once where all agree; nothing where none says.

    A table that cannot be read is left out, since nothing is measured by it.

    Raises
    ------
    StorageError
        A file cannot be read.
    """
    said: dict[object, Voi] = {}
    alike: dict[object, Voi] = {}
    found = []
    for header in headers:
        plain = _SAID(header)
        own = said.get(plain)
        if own is None:
            own = said[plain] = voi_of_header(header)
        if header.has_voi_lut_sequence:
            own = replace(own, luts=_luts(header, paths))
        key = own.windows, own.function, tuple((lut.first, lut.explanation, lut.table.tobytes()) for lut in own.luts)
        found.append(alike.setdefault(key, own))
    if len(alike) > 1:
        return tuple(found)
    return tuple(found[:1]) if found and found[0].is_said else ()


def is_signed_after_rescale(header: Header) -> bool:
    """Tell whether a table's first value is signed: where what comes out of the Modality LUT may be (C.11.2.1.1)."""
    return header.pixel_representation == 1 or (header.rescale_intercept or 0) < 0


def luts_of(ds: Dataset, *, is_signed: bool) -> tuple[VoiLut, ...]:
    """Return the tables of VOILUTSequence; raises whatever a damaged one leads to."""
    order = ">" if ds.original_encoding[1] is False else "<"
    return tuple(_lut(item, f"{order}u2", is_signed=is_signed) for item in ds.get("VOILUTSequence") or ())


def _luts(header: Header, paths: Mapping[str, Path]) -> tuple[VoiLut, ...]:
    is_signed = is_signed_after_rescale(header)
    try:
        ds = pydicom.dcmread(
            paths[header.sop_instance_uid],
            stop_before_pixels=True,
            specific_tags=["VOILUTSequence", "PixelRepresentation"],
        )
        return luts_of(ds, is_signed=is_signed)
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
    except Exception:  # pydicom raises whatever a damaged sequence leads to
        return ()


def _lut(item: Dataset, words: str, *, is_signed: bool) -> VoiLut:
    count, first, _ = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    table: npt.NDArray[np.uint16] = (
        np.frombuffer(data, words).astype(np.uint16) if isinstance(data, bytes) else np.asarray(data, np.uint16)
    )
    table = table[: count or 1 << 16]
    if not table.size:
        raise ValueError("the table is empty")
    return VoiLut(
        table=table,
        first=first - (1 << 16) if is_signed and first >= 1 << 15 else first,
        explanation=str(item.get("LUTExplanation") or ""),
    )
