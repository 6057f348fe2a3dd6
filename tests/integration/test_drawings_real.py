"""Real drawings of other makers: what becomes of each, and where its prompt lies in mm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from boxes import MEDSAM2, BoxFiller
from test_drawings_pipeline import Pointed
from working import OneEngine, Work, working

from domain.instance import Reception
from domain.job import Job, JobState
from domain.prompt import Prompt
from pipeline.rules import DrawingRule, Route
from volume.geometry import geometry
from volume.drawings.placing import Slices


@pytest.fixture
def pointing(tmp_path: Path) -> Iterator[tuple[Work, Pointed]]:
    engine = Pointed()
    routes = (Route(name="follow", engine="medsam2", prompts_from_dicom=DrawingRule(), destinations=()),)
    with working(tmp_path, routes=routes, engines=OneEngine(only=engine, manifest_now=MEDSAM2.manifest)) as work:
        yield work, engine
