"""Radiographs and photographs: which tasks, and what becomes of words, masks and boxes; no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from domain.engine import Case
from domain.errors import EngineFailed, NotApplicable
from domain.image import Image, Raster
from domain.question import Answer, Question
from inference.manifest import read_declaration
from inference.measures import PIXELS, SQUARE_MILLIMETRE
from inference.medversa.engine import MedVersaEngine
from inference.registry import ENGINES

MANIFEST = read_declaration(ENGINES / "medversa" / "manifest.toml").manifest
ROWS, COLUMNS = 6, 8


@dataclass
class Talking:
    """A model that marks the brightest pixels, and says ``text``."""

    text: str = "Seen."
    draws: bool = True
    boxes: tuple[tuple[float, float, float, float], ...] = ((0.25, 0.5, 0.75, 1.0),)
    asked: list[Question] = field(default_factory=list)

    def ask(self, question: Question, cancelled: Callable[[], bool] = lambda: False) -> Answer:
        self.asked.append(question)
        masks = tuple((picture[..., 0] == 255).astype(np.uint8) for picture in question.pictures)
        return Answer(
            text=self.text,
            picture_masks=(masks,) if question.task == "segmentation" and self.draws else (),
            boxes=self.boxes if question.task == "detection" else (),
        )


def engine(model: Talking) -> MedVersaEngine:
    made = MedVersaEngine(MANIFEST, lambda: model)
    made.load()
    return made


def photograph(spacing: tuple[float, float] | None = None, origin: str = "") -> Image:
    pixels = np.full((1, ROWS, COLUMNS, 3), 100, np.uint8)
    pixels[0, 1:3, 2:5] = 255
    return Image(
        pixels=pixels,
        raster=Raster(shape=(1, ROWS, COLUMNS), spacing_mm=spacing, spacing_origin=origin),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.4",
        sop_instance_uid="1.2.3",
        modality="XC",
        photometric_interpretation="RGB",
    )


def radiograph(photometric: str = "MONOCHROME2", modality: str = "DX") -> Image:
    pixels = np.arange(ROWS * COLUMNS, dtype=np.int16).reshape(1, ROWS, COLUMNS)
    if photometric == "MONOCHROME1":
        pixels = pixels.max() - pixels
    return Image(
        pixels=pixels,
        raster=Raster(shape=(1, ROWS, COLUMNS)),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance_uid="1.2.4",
        modality=modality,
        photometric_interpretation=photometric,
    )


def run(model: Talking, *images: Image, **options: Any) -> Any:
    return engine(model).run(Case(images=images, options=options))


def test_frontal_and_lateral_become_one_report_with_its_sections() -> None:
    model = Talking(text="Findings: Clear lungs. Impression: Normal.")
    findings = run(model, radiograph(), radiograph(), context="Age:60-70.")
    assert (findings.narrative, findings.impression, findings.labels) == ("Clear lungs.", "Normal.", None)
    question = model.asked[0]
    assert (question.modality, question.task, len(question.pictures)) == ("cxr", "report generation", 2)
    assert question.prompt == "How would you characterize the findings from <img0><img1>?"
    assert question.context == "Age:60-70."
    assert not question.sampling.do_sample


def test_the_model_sees_inverted_radiographs_as_a_reader_does() -> None:
    model = Talking()
    run(model, radiograph("MONOCHROME2"), radiograph("MONOCHROME1"))
    plain, inverted = model.asked[0].pictures
    assert np.abs(plain.astype(int) - inverted).max() <= 1
    assert plain[-1, -1, 0] > plain[0, 0, 0]


def test_a_photograph_is_classified_and_its_lesion_drawn() -> None:
    model = Talking(text="The primary diagnosis is nevus.")
    findings = run(model, photograph())
    assert [question.task for question in model.asked] == ["classification", "segmentation"]
    assert findings.narrative == "The primary diagnosis is nevus."
    assert findings.labels.shape == (1, ROWS, COLUMNS)
    assert np.argwhere(findings.labels).tolist() == [[0, row, column] for row in (1, 2) for column in (2, 3, 4)]
    area = findings.measurements[0]
    assert (findings.segments[0].key, area.value, area.unit) == ("lesion", 6, PIXELS)


def test_an_area_is_in_millimetres_only_where_the_spacing_holds_in_the_patient() -> None:
    known = run(Talking(), photograph((0.5, 0.25), "PixelSpacing"), task="segmentation").measurements[0]
    assert (known.value, known.unit) == (pytest.approx(0.75), SQUARE_MILLIMETRE)
    magnified = run(Talking(), photograph((0.5, 0.25), "ImagerPixelSpacing"), task="segmentation").measurements[0]
    assert (magnified.value, magnified.unit) == (6, PIXELS)


def test_boxes_are_in_pixels_of_the_image_and_the_words_stay() -> None:
    findings = run(Talking(text="nevus,<DET>"), photograph(), task="detection")
    assert [item.box for item in findings.detections] == [(2.0, 3.0, 6.0, 6.0)]
    assert findings.narrative == "nevus,<DET>"


def test_words_instead_of_a_mask_do_not_say_that_nothing_is_there() -> None:
    with pytest.raises(NotApplicable, match="drew no mask"):
        run(Talking(draws=False), photograph(), task="segmentation")
    findings = run(Talking(draws=False), photograph())
    assert findings.labels is None
    assert "Lesion: no mask was drawn." in findings.narrative


def test_what_an_image_is_comes_from_its_modality_or_the_route() -> None:
    with pytest.raises(NotApplicable, match=r'options = \{ modality = "derm" \}'):
        run(Talking(), radiograph(modality="OT"))
    model = Talking()
    run(model, radiograph(modality="OT"), modality="derm", task="classification")
    assert model.asked[0].modality == "derm"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modality": "mr"}, "modality is not one of"),
        ({"task": "cooking"}, "task is not made of"),
        ({"task": "detection", "modality": "cxr"}, "detection of cxr has none"),
        ({"task": "segmentation", "prompt": "Segment the aura."}, "must name one structure"),
    ],
)
def test_a_route_that_cannot_be_followed_says_what_is_wrong(options: dict[str, str], said: str) -> None:
    with pytest.raises(EngineFailed, match=said):
        run(Talking(), photograph(), **options)
