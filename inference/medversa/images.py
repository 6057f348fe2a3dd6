"""Radiographs and photographs by routes: which tasks, and from words, masks and boxes to findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from domain.engine import Case
from domain.errors import EngineFailed, NotApplicable
from domain.findings import Detection, Findings, Measurement, SegmentDescription
from domain.image import Image
from domain.question import Answer, Question
from inference.measures import AREA, PIXELS, SQUARE_MILLIMETRE
from inference.medversa.words import asked_segments, sections
from volume.display import WHOLE, displayed

LESION = "lesion"
"""Key of the segment that boxes and masks of photographs are about."""

MODALITIES: Mapping[str, str] = {
    "CR": "cxr", "DX": "cxr", "XC": "derm", "DMS": "derm",
}  # fmt: skip
"""What the model is told, by Modality (PS3.3 C.7.3.1.1.1)."""
TASKS: Mapping[str, tuple[str, ...]] = {
    "cxr": ("report generation",),
    "derm": ("classification", "segmentation"),
}
"""What is done where the route does not say."""
_KNOWN_TASKS = ("report generation", "classification", "detection", "segmentation")


def modality_of(case: Case) -> str:
    """Return ``cxr`` or ``derm``: the route's option ``modality``, else by the images' Modality.

    Raises
    ------
    EngineFailed
        The option is neither.
    NotApplicable
        The images are of another kind.
    """
    given = case.options.get("modality")
    if given is not None:
        if given not in TASKS:
            raise EngineFailed(f"The route's option modality is not one of {', '.join(TASKS)}.")
        return str(given)
    modality = case.images[0].modality
    if modality not in MODALITIES:
        raise NotApplicable(
            f"Modality is not one of {', '.join(MODALITIES)}. A route for such images says what they are: "
            'options = { modality = "derm" } or "cxr".'
        )
    return MODALITIES[modality]


def tasks_of(case: Case, modality: str) -> tuple[str, ...]:
    """Return the tasks of the route's option ``task``, which separates several by commas.

    Raises
    ------
    EngineFailed
        One is not known.
    """
    given = case.options.get("task")
    if given is None:
        return TASKS[modality]
    tasks = tuple(task.strip().lower() for task in str(given).split(","))
    if not all(task in _KNOWN_TASKS for task in tasks):
        raise EngineFailed(f"The route's option task is not made of {', '.join(_KNOWN_TASKS)}.")
    return tasks


def image_findings(
    question: Question,
    case: Case,
    tasks: Sequence[str],
    *,
    prompts: Mapping[str, str],
    segments: Sequence[SegmentDescription],
    ask: Callable[[Sequence[Question]], Sequence[Answer]],
) -> Findings:
    """Ask for all tasks and return what was said and drawn; masks and boxes lie on the first image.

    Parameters
    ----------
    question
        With modality, context and sampling; its prompt, where it has one, is asked for every task.
    ask
        Answers questions about the same pictures, in their order.
    prompts
        Of the manifest, by task.

    Raises
    ------
    NotApplicable
        Only masks were asked for and none was drawn.
    """
    question = replace(question, pictures=tuple(displayed(image, percentiles=WHOLE) for image in case.images))
    names = "".join(f"<img{number}>" for number in range(len(case.images)))
    parts: list[tuple[Question, SegmentDescription | None]] = []
    for task in tasks:
        prompt = question.prompt or prompts.get(task, "")
        if not prompt:
            raise EngineFailed(f"The route's options name no prompt, and {task} of {question.modality} has none.")
        asked = replace(question, task=task, prompt=prompt.replace("{images}", names))
        parts += _structures(asked, segments) if task == "segmentation" else [(asked, None)]
    answers = ask([asked for asked, _ in parts])
    found = Findings(labels=None)
    drawn: list[tuple[SegmentDescription, Answer]] = []
    for (asked, structure), answer in zip(parts, answers, strict=True):
        if structure is not None:
            drawn.append((structure, answer))
        elif asked.task == "detection":
            found = _detected(found, answer, case.images[0], segments)
        else:
            found = _said(found, answer.text)
    found = _segmented(found, case.images[0], drawn)
    if tasks == ("segmentation",) and found.labels is None:
        raise NotApplicable("The model drew no mask for any prompt of the route.")
    return found


def _structures(
    question: Question, known: Sequence[SegmentDescription]
) -> list[tuple[Question, SegmentDescription | None]]:
    """Return one question for each structure that is to be segmented."""
    return [(replace(question, prompt=prompt), segment) for prompt, segment in asked_segments(question.prompt, known)]


def _said(found: Findings, text: str) -> Findings:
    narrative, impression = sections(text)
    return replace(
        found,
        narrative="\n".join(filter(None, (found.narrative, narrative))),
        impression="\n".join(filter(None, (found.impression, impression))),
    )


def _segmented(found: Findings, image: Image, drawn: Sequence[tuple[SegmentDescription, Answer]]) -> Findings:
    labels = np.zeros((1, *image.raster.shape[1:]), np.uint8)
    segments: list[SegmentDescription] = []
    for segment, answer in drawn:
        if not answer.picture_masks:
            # It was asked for a mask and wrote only words: no statement that the structure is absent.
            found = _said(found, f"{segment.label}: no mask was drawn.")
            continue
        segments.append(segment)
        mask = np.any([masks[0] for masks in answer.picture_masks], axis=0)
        labels[0][mask & (labels[0] == 0)] = len(segments)
    if not segments:
        return found
    areas = tuple(_area(labels, number, segment, image) for number, segment in enumerate(segments, start=1))
    return replace(found, labels=labels, segments=tuple(segments), measurements=areas)


def _area(labels: npt.NDArray[np.uint8], number: int, segment: SegmentDescription, image: Image) -> Measurement:
    """Return the area in mm² where the spacing holds in the patient, otherwise in pixels."""
    count = int(np.count_nonzero(labels == number))
    spacing, origin = image.raster.spacing_mm, image.raster.spacing_origin
    is_known = spacing is not None and origin == "PixelSpacing"
    row_mm, column_mm = spacing if spacing is not None and is_known else (1.0, 1.0)
    unit = SQUARE_MILLIMETRE if is_known else PIXELS
    return Measurement(segment=segment.key, concept=AREA, value=count * row_mm * column_mm, unit=unit, label="Area")


def _detected(found: Findings, answer: Answer, image: Image, known: Sequence[SegmentDescription]) -> Findings:
    """Return the boxes in pixels of the image; what lies in them is in the text, which is kept."""
    lesion = next(segment for segment in known if segment.key == LESION)
    _, rows, columns = image.raster.shape
    boxes = tuple(
        Detection(
            key=f"{LESION} {number}",
            label=f"{lesion.label} {number}",
            category=lesion.category,
            type=lesion.type,
            box=(x0 * columns, y0 * rows, x1 * columns, y1 * rows),
        )
        for number, (x0, y0, x1, y1) in enumerate(answer.boxes, start=1)
    )
    return replace(_said(found, answer.text), detections=(*found.detections, *boxes))
