"""A pipeline whose one route takes received drawings, with an engine that fills the boxes it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from boxes import MEDSAM2, BoxFiller
from working import OneEngine, ThresholdEngine, Work, working

from domain.engine import Case
from domain.findings import Findings
from domain.prompt import Prompt
from pipeline.rules import DrawingRule, Route


class Pointed(ThresholdEngine):
    """Fills the boxes that it is shown, and remembers its prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.manifest = MEDSAM2.manifest
        self.prompts: list[Prompt] = []

    def run(self, case: Case) -> Findings:
        assert case.prompt is not None
        self.prompts.append(case.prompt)
        return BoxFiller().run(case)


@contextmanager
def pointing(folder: Path, rule: DrawingRule | None = None, **route: Any) -> Iterator[tuple[Work, Pointed]]:
    engine = Pointed()
    routes = (Route(name="follow", engine="medsam2", prompts_from_dicom=rule or DrawingRule(), **route),)
    registry = OneEngine(only=engine, manifest_now=MEDSAM2.manifest)
    with working(folder, routes=routes, engines=registry) as work:
        yield work, engine


def settle(work: Work) -> None:
    """Let the images be planned, then the drawing, whichever was handed on first."""
    for _ in range(3):
        work.settle()


def seen_from_within(outline: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the pixels from whose centres a polygon is all around: its sides' angles add up to a whole turn."""
    towards = outline - np.moveaxis(np.indices(shape), 0, -1)[:, :, None].astype(float)
    angles = np.arctan2(towards[..., 0], towards[..., 1])
    steps = (np.roll(angles, -1, axis=-1) - angles + np.pi) % (2 * np.pi) - np.pi
    turns: npt.NDArray[np.bool_] = np.abs(steps.sum(axis=-1)) > np.pi
    return turns
