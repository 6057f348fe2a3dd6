"""What an engine is told through the whole pipeline, and that nothing of the patient is in it."""

from __future__ import annotations

import json
from pathlib import Path

from factories import ct_series, mr_series
from working import MANIFEST, OneEngine, ThresholdEngine, working

from domain.engine import Case
from domain.findings import Findings


class Listening(ThresholdEngine):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.cases: list[Case] = []

    def run(self, case: Case) -> Findings:
        self.cases.append(case)
        return super().run(case)


def test_engines_are_told_the_question_and_what_came_before(tmp_path: Path) -> None:
    before, now = mr_series(3), ct_series(3)
    for ds in before:
        ds.StudyDate, ds.BodyPartExamined = "20230102", "HEAD"
    for ds in now:
        ds.PatientAge, ds.PatientSex = "054Y", "F"
        ds.ReasonForStudy = "Mrs. Canary (CANARYID, 1.1.70): dyspnea 24.12.2023, CANARYACC"
    engine = Listening()
    with working(tmp_path, engines=OneEngine(only=engine, manifest_now=MANIFEST)) as work:
        work.receive(before)
        work.receive(now)
        work.settle()
        context = next(case.context for case in engine.cases if case.context.modality == "CT")
    assert context.as_medversa() == (
        "Age:50-60.\nGender:F.\nIndication: Mrs. ___ (___): dyspnea ___.\nComparison: MR head, 12 months earlier."
    )
    assert "CANARY" not in (json.dumps(context.as_dict()) + repr(context)).upper()
