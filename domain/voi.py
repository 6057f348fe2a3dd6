"""How its source wants an image shown: windows and tables (PS3.3 C.11.2). For looking, not for measuring."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiWindow:
    """One WindowCenter and WindowWidth, in values after the Modality LUT; the width is above zero."""

    centre: float
    width: float
    explanation: str = field(default="", repr=False)
    """WindowCenterWidthExplanation, e.g. what the window is for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VoiLut:
    """A table for display (PS3.3 C.11.2.1.1).

    Attributes
    ----------
    table
        What values are shown as, from black, the lowest entry, to white, the highest. Read-only.
    first
        The value that the first entry is for; lower ones get the first entry, values beyond the table the last.
    explanation
        LUTExplanation.
    """

    table: npt.NDArray[np.uint16] = field(repr=False)
    first: int = 0
    explanation: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self.table.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voi:
    """The ways in which one slice or image may be shown, as its source has them; each stands for itself.

    Attributes
    ----------
    windows
        As the header has them; the first one is what a viewer begins with.
    function
        VOILUTFunction, how windows are applied: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    luts
        Tables of VOILUTSequence; they go before windows where both are there.
    """

    windows: tuple[VoiWindow, ...] = ()
    function: str = "LINEAR"
    luts: tuple[VoiLut, ...] = ()

    @property
    def is_said(self) -> bool:
        """The source says how to show it."""
        return bool(self.windows or self.luts)
