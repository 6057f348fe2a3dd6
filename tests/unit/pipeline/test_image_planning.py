"""What becomes of images and cine in the planner and in the engines' manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from factories import ct_series, headers_of, phases, save
from pictures import cine, image_of, photograph, radiograph
from pydicom.dataset import Dataset
from working import OneEngine

from domain.codes import Code
from domain.engine import Answer, Case, Verdict
from domain.findings import Detection, Findings
from domain.instance import StoredInstance
from domain.job import JobState
from domain.series import SeriesFacts, StackKind
from inference.manifest import read_declaration
from inference.registry import ENGINES, Registry
from pipeline.cases import misplaced
from pipeline.planning import FEW, Planner
from pipeline.rules import Route
from volume.facts import facts
from volume.grouping import group

ALL = Route(name="all", engine="threshold")


def stored(datasets: Sequence[Dataset], folder: Path) -> list[StoredInstance]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    pairs = zip(headers_of(datasets), save(datasets, folder), strict=True)
    return [StoredInstance(header=header, path=path, received_at=now) for header, path in pairs]


def test_each_image_of_a_series_is_a_job_with_its_raster(tmp_path: Path) -> None:
    planner = Planner([ALL], OneEngine(), ())
    plans = planner.plan(stored([radiograph(), cine(4, number=2), *ct_series(3)], tmp_path), sender=None)
    assert [(plan.stack.kind, plan.grid is None, len(plan.jobs)) for plan in plans] == [
        (StackKind.VOLUME, False, 1),
        (StackKind.IMAGE, True, 1),
        (StackKind.CINE, True, 1),
    ]
    image, loop = plans[1].raster, plans[2].raster
    assert image is not None
    assert loop is not None
    assert (image.shape, image.spacing_origin) == ((1, 48, 32), "ImagerPixelSpacing")
    assert (loop.shape, loop.spacing_mm) == ((4, 36, 40), None)
    assert plans[0].raster is None
    assert {plan.jobs[0].route for plan in plans} == {"all"}


def test_many_images_that_nothing_takes_share_one_statement(tmp_path: Path) -> None:
    planner = Planner([], OneEngine(), ())
    images = [photograph(number=number) for number in range(1, 6)]
    plans = planner.plan(stored([*images, *ct_series(3)], tmp_path), sender=None)
    assert len(plans) == 6
    jobs = {plan.jobs[0].job_id: plan.jobs[0] for plan in plans}
    assert sorted((job.stack, len(job.sop_instance_uids)) for job in jobs.values()) == [("5 images", 5), ("axial", 3)]
    assert {(job.state, job.code) for job in jobs.values()} == {(JobState.NOT_RUN, "no-route")}


def test_many_volumes_that_nothing_takes_share_one_statement_and_keep_their_verdicts(tmp_path: Path) -> None:
    plans = Planner([], OneEngine(), ()).plan(stored(phases(12), tmp_path), sender=None)
    assert [plan.stack.name for plan in plans] == [f"axial, acquisition {phase}" for phase in range(1, 13)]
    assert all(plan.grid is not None and plan.refused_for is not None for plan in plans)
    (job,) = {plan.jobs[0].job_id: plan.jobs[0] for plan in plans}.values()
    assert job.stack == "12 stacks, axial, acquisition 1 to acquisition 12"
    assert (job.code, len(job.sop_instance_uids)) == ("no-route", 36)


def test_a_few_volumes_and_those_that_a_route_takes_have_a_fate_each(tmp_path: Path) -> None:
    few = Planner([], OneEngine(), ()).plan(stored(phases(FEW), tmp_path / "few"), sender=None)
    assert len({plan.jobs[0].job_id for plan in few}) == FEW
    taken = Planner([ALL], OneEngine(), ()).plan(stored(phases(12), tmp_path / "taken"), sender=None)
    assert len({plan.jobs[0].job_id for plan in taken}) == 12


def test_engines_for_volumes_say_so_to_an_image() -> None:
    for ds, said in ((radiograph(), "an image without coordinates"), (cine(), "a cine")):
        verdict = answer("lungs", ds)
        assert verdict.answer is Answer.NO
        assert said in verdict.reason


def test_an_engine_may_take_other_modalities_as_images_than_as_volumes() -> None:
    declared = read_declaration(ENGINES / "medsam2" / "manifest.toml").inputs
    for ds, said in ((cine(), "YES"), (cine(1), "YES"), (radiograph(), "Modality is not US or XA or RF of single")):
        verdict = declared.accepts(facts_of(ds))
        assert said in (verdict.answer.name, verdict.reason[: len(said)])
    volume = facts(group(headers_of(ct_series(3)))[0], None, None)
    assert declared.accepts(volume).answer is Answer.YES
    assert declared.accepts(replace(volume, modality="US")).answer is Answer.NO
    assert declared.accepts(replace(volume, instances=1)).answer is Answer.NO


def facts_of(ds: Dataset) -> SeriesFacts:
    (stack,) = group(headers_of([ds]))
    return facts(stack, None, None)


def answer(name: str, ds: Dataset) -> Verdict:
    return Registry({}).accepts(name, facts_of(ds))


LESION = Code("52988006", "SCT", "Lesion")


def box(image: int) -> Detection:
    return Detection(key="1", label="x", category=LESION, type=LESION, box=(0, 0, 1, 1), image=image)


def test_findings_must_lie_on_the_images(tmp_path: Path) -> None:
    loop = Case(images=(image_of(cine(4), tmp_path / "1"),))
    pair = Case(images=(image_of(radiograph(), tmp_path / "2"), image_of(radiograph(), tmp_path / "3")))
    masks = np.zeros((4, 36, 40), np.uint8)
    assert not misplaced(Findings(labels=masks, detections=(box(3),)), loop)
    assert "mask" in misplaced(Findings(labels=masks[:3]), loop)
    assert "box" in misplaced(Findings(labels=None, detections=(box(4),)), loop)
    assert not misplaced(Findings(labels=np.zeros((1, 48, 32), np.uint8), detections=(box(1),)), pair)
    assert "mask" in misplaced(Findings(labels=np.zeros((2, 48, 32), np.uint8)), pair)
    assert "box" in misplaced(Findings(labels=None, detections=(box(2),)), pair)
