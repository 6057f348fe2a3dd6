"""The engine's own decisions, on a model that says what the test wants; no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.context import StudyContext
from domain.engine import Answer as Verdictum
from domain.engine import Case
from domain.errors import EngineFailed, EngineUnavailable, NotApplicable
from domain.question import Answer, Answering, Question
from domain.series import SeriesFacts
from domain.volume import Grid, Volume
from inference import registry as registry_module
from inference.manifest import read_declaration
from inference.medversa.engine import MedVersaEngine, make
from inference.registry import ENGINES, Registry

MANIFEST = read_declaration(ENGINES / "medversa" / "manifest.toml").manifest
SHAPE = (3, 4, 5)
SPACING_ML = 2.0 * 1.5 * 1.0 / 1000


@dataclass
class Saying:
    """A model that draws, for each organ, the mask it was given."""

    masks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    text: str = "The segmentation mask is <3DSEG>."
    asked: list[Question] = field(default_factory=list)

    def ask(self, question: Question, cancelled: Callable[[], bool] = lambda: False) -> Answer:
        self.asked.append(question)
        found = next((m for organ, m in self.masks.items() if organ in question.prompt), [])
        return Answer(text=self.text, volume_masks=tuple(found))


def engine(model: Saying) -> MedVersaEngine:
    made = MedVersaEngine(MANIFEST, lambda: model)
    made.load()
    return made


def case(unit: str = "HU", **options: Any) -> Case:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1.0], [0, 1.5, 0], [2.0, 0, 0]])
    grid = Grid(shape=SHAPE, affine=affine, frame_of_reference_uid="1.2")
    voxels = np.zeros(SHAPE, np.int16)
    return Case(volume=Volume(voxels=voxels, grid=grid, sop_instance_uids=("1",) * 3, unit=unit), options=options)


def mask(*voxels: tuple[int, int, int]) -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint8)
    for voxel in voxels:
        drawn[voxel] = 1
    return drawn


def test_an_organ_of_the_routes_prompt_becomes_a_segment_with_its_volume() -> None:
    model = Saying(masks={"liver": [mask((0, 0, 0), (1, 1, 1))]})
    findings = engine(model).run(case(prompt="Segment the liver."))
    assert findings.labels is not None
    assert np.argwhere(findings.labels == 1).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert [segment.key for segment in findings.segments] == ["liver"]
    assert findings.measurements[0].value == pytest.approx(2 * SPACING_ML)
    assert not model.asked[0].sampling.do_sample


def test_several_organs_are_asked_one_by_one_and_the_earlier_keeps_a_voxel() -> None:
    model = Saying(masks={"liver": [mask((0, 0, 0))], "spleen": [mask((0, 0, 0), (2, 2, 2))]})
    findings = engine(model).run(case(prompt="Segment the liver. Segment the spleen."))
    assert [question.prompt for question in model.asked] == ["Segment the liver.", "Segment the spleen."]
    assert findings.labels is not None
    assert (findings.labels[0, 0, 0], findings.labels[2, 2, 2]) == (1, 2)


@dataclass
class SayingTogether(Saying):
    """The same, and notes who was asked at once; answers the last one first."""

    rounds: list[list[str]] = field(default_factory=list)
    most_together: int = 8

    def answers(
        self, asked: Sequence[tuple[Question, Callable[[], bool]]]
    ) -> Iterator[tuple[int, Answer | Exception]]:
        self.rounds.append([question.prompt for question, _ in asked])
        for number in reversed(range(len(asked))):
            assert not asked[number][1]()
            yield number, self.ask(*asked[number])


def test_organs_are_asked_for_at_once_where_the_model_can() -> None:
    model = SayingTogether({"liver": [mask((0, 0, 0), (1, 1, 1))], "spleen": [mask((1, 1, 1), (2, 2, 2))]})
    shares: list[float] = []
    found = engine(model).run(replace(case(prompt="Segment the liver. Segment the spleen."), progress=shares.append))
    assert model.rounds == [["Segment the liver.", "Segment the spleen."]]
    assert [segment.key for segment in found.segments] == ["liver", "spleen"]
    assert found.labels is not None
    assert (found.labels[1, 1, 1], found.labels[2, 2, 2]) == (1, 2)
    assert shares == [0.0, 0.5]


def test_a_case_that_nobody_wants_any_more_is_given_up() -> None:
    def unwanted(share: float) -> None:
        raise EngineFailed("Nobody waits.")

    with pytest.raises(EngineFailed, match="Nobody waits"):
        engine(SayingTogether()).run(replace(case(prompt="Segment the liver."), progress=unwanted))


def test_a_question_that_is_not_for_it_does_not_hold_up_the_others() -> None:
    model = SayingTogether()
    fit, unfit = case().volume, case(unit="").volume
    asked = [Question(modality="ct", task="x", prompt="p", volume=volume) for volume in (unfit, fit)]
    answers = dict(engine(model).answers([(question, lambda: False) for question in asked]))
    assert isinstance(answers[0], NotApplicable)
    assert isinstance(answers[1], Answer)


def test_several_masks_of_one_answer_are_one_segment() -> None:
    model = Saying(masks={"kidney": [mask((0, 0, 0)), mask((1, 0, 0))]})
    findings = engine(model).run(case(prompt="Segment the kidneys."))
    assert findings.labels is not None
    assert int(findings.labels.sum()) == 2


def test_an_empty_mask_is_an_answer() -> None:
    findings = engine(Saying(masks={"liver": [mask()]})).run(case())
    assert findings.labels is not None
    assert not findings.labels.any()
    assert (findings.segments[0].key, findings.measurements[0].value) == ("liver", 0)


def test_words_instead_of_a_mask_do_not_say_that_the_organ_is_absent() -> None:
    with pytest.raises(NotApplicable, match="drew no mask"):
        engine(Saying()).run(case())
    findings = engine(Saying(masks={"liver": [mask()]})).run(case(prompt="Segment the liver. Segment the spleen."))
    assert [segment.key for segment in findings.segments] == ["liver"]
    assert findings.narrative == "Spleen: no mask was drawn."


def test_a_report_becomes_the_narrative() -> None:
    model = Saying(text="Findings: Clear lungs. Impression: Normal.")
    findings = engine(model).run(case(task="report generation", prompt="Report.", context="Age:70."))
    assert findings.labels is None
    assert (findings.narrative, findings.impression) == ("Clear lungs.", "Normal.")
    assert model.asked[0].context == "Age:70."


def test_the_header_tells_what_the_route_does_not() -> None:
    model = Saying(text="Normal.")
    told = StudyContext(patient_age_y=64.0, patient_sex="F", indication="cough", priors=())
    engine(model).run(replace(case(task="report generation", prompt="Report.", context="Age:70."), context=told))
    assert model.asked[0].context == "Age:70.\nGender:F.\nIndication: cough.\nComparison: None."


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": "Segment the heart."},
        {"prompt": "Segment the liver and the spleen."},
        {"prompt": "Segment the liver. Segment the liver."},
        {"prompts": "Segment the liver."},
        {"max_new_tokens": 0},
        {"max_new_tokens": True},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(EngineFailed):
        engine(Saying(masks={"liver": [mask()]})).run(case(**options))


def test_values_that_are_no_hounsfield_units_are_not_for_it() -> None:
    with pytest.raises(NotApplicable, match="Hounsfield"):
        engine(Saying()).run(case(unit=""))


def test_a_model_that_is_not_loaded_is_unavailable() -> None:
    with pytest.raises(EngineUnavailable):
        MedVersaEngine(MANIFEST, Saying).ask(Question(modality="ct", task="segmentation", prompt="."))


def test_it_takes_questions() -> None:
    assert isinstance(engine(Saying()), Answering)


def test_the_engine_refuses_without_the_licence() -> None:
    with pytest.raises(EngineFailed, match='accept_license = "non-commercial research"'):
        make(MANIFEST, {"weights": "/nowhere"})


def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_missing_modules", lambda known: [])


def _why(settings: dict[str, Any]) -> str:
    registry = Registry({"medversa": settings})
    facts = SeriesFacts(modality="CT", sop_class_uid="1.2.840.10008.5.1.4.1.1.2", instances=100)
    verdict = registry.accepts("medversa", facts)
    assert (verdict.answer is Verdictum.NO) == ("medversa" in registry.unavailable())
    return verdict.reason


def test_the_registry_says_what_is_missing_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    accepted = {"accept_license": "non-commercial research"}
    assert 'accept_license = "non-commercial research"' in _why({})
    assert 'accept_license = "non-commercial research"' in _why({"accept_license": "yes"})
    assert "weights is not set" in _why(accepted)
    assert "is not a folder" in _why({**accepted, "weights": str(tmp_path / "none")})
    assert "holds neither model.safetensors" in _why({**accepted, "weights": str(tmp_path)})
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert "fit" in _why({**accepted, "weights": str(tmp_path)})


def test_where_engines_compute_is_known_as_far_as_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_missing_modules", lambda known: [])
    (tmp_path / "model.safetensors").write_bytes(b"x")
    ready = {"weights": str(tmp_path), "accept_license": "non-commercial research"}
    for device, said in (("", ""), ("auto", ""), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        places = Registry({"medversa": {**ready, "device": device}}).devices()
        assert (places["medversa"], places["lungs"]) == (said, "cpu")
    assert "medversa" not in Registry({}).devices()


def test_the_device_is_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    uids = set()
    for content in (b"one", b"two"):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
        settings = {"accept_license": "non-commercial research", "weights": str(tmp_path)}
        manifest = Registry({"medversa": settings}).manifest("medversa")
        assert "non-commercial" in manifest.licence
        uids.add(manifest.device_uid)
    assert len(uids) == 2
