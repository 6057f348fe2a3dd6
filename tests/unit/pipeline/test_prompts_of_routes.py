"""A route's default prompt reaches the engine and is part of the job's identity."""

from __future__ import annotations

from pathlib import Path

from factories import ct_series
from working import OneEngine, ThresholdEngine, working

from domain.engine import Case
from domain.findings import Findings
from domain.prompt import Box, ObjectPrompt, Prompt
from pipeline.rules import Route


class Listening(ThresholdEngine):
    """Remembers what it was pointed at."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[Prompt | None] = []

    def run(self, case: Case) -> Findings:
        self.prompts.append(case.prompt)
        return super().run(case)


def prompt(column: float) -> Prompt:
    return Prompt(objects=(ObjectPrompt(boxes=(Box(corners=((1, 2, column), (1, 8, 9))),)),))


def test_each_prompt_is_a_job_of_its_own_and_reaches_the_engine(tmp_path: Path) -> None:
    series, identities = ct_series(4), []
    for number, given in enumerate((None, prompt(3), prompt(3), prompt(4))):
        engine = Listening()
        routes = (Route(name="all", engine="threshold", prompt=given),)
        with working(tmp_path / str(number), routes=routes, engines=OneEngine(only=engine)) as work:
            work.receive(series)
            work.settle()
            (job,) = work.store.jobs.find()
            identities.append(job.job_id)
            (found,) = engine.prompts
            assert (found and found.digest) == (given and given.digest)
    assert identities[1] == identities[2]
    assert len(set(identities)) == 3
