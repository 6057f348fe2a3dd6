"""A pipeline whose one route takes received drawings, with an engine that fills the boxes it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
