"""What is measured in each object, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from domain.codes import HOUNSFIELD_UNIT, Code
from domain.context import StudyContext
from domain.findings import Evaluation, Measurement, SegmentDescription
from domain.prompt import Prompt
from domain.volume import Volume
from inference.measures import diameters, intensities, volume_ml

ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MR_SIGNAL = Code("110852", "DCM", "MR signal intensity")
INTENSITY = Code("INTENSITY", "99VOXGATE", "Stored intensity after the Modality LUT")
ARBITRARY = Code("[arb'U]", "UCUM", "arbitrary unit")
COMMENT = Code("121106", "DCM", "Comment")

CUT = "Reaches the first or the last slice; what lies beyond is not imaged."

SEEDED = "The prompt was a mask, which is the result on its own slice or frame."

Labels = npt.NDArray[np.uint8]


def measurements(
    volume: Volume, labels: Labels, segments: Sequence[SegmentDescription], context: StudyContext
) -> tuple[Measurement, ...]:
    """Return volume, diameters and intensities of each segment that has voxels."""
    concept, unit = _intensity(volume, context)
    inside = labels != 0
    values, owners = volume.voxels[inside].astype(np.float64), labels[inside]
    found: list[Measurement] = []
    for number, segment in enumerate(segments, start=1):
        own = values[owners == number]
        if own.size == 0:
            continue
        found.append(volume_ml(segment.key, own.size, volume.grid))
        found += diameters(segment.key, labels == number, volume.grid.spacing_mm[1:])
        found += intensities(segment.key, own, concept, unit)
    return tuple(found)


def _intensity(volume: Volume, context: StudyContext) -> tuple[Code, Code]:
    if volume.unit == "HU":
        return ATTENUATION, HOUNSFIELD_UNIT
    return (MR_SIGNAL if context.modality == "MR" else INTENSITY), ARBITRARY


def cut_off(labels: Labels, segments: Sequence[SegmentDescription]) -> Iterator[Evaluation]:
    """Yield the statement that a segment reaches an end of the volume."""
    for number, segment in enumerate(segments, start=1):
        if any((labels[end] == number).any() for end in (0, -1)):
            yield Evaluation(segment=segment.key, concept=COMMENT, value=CUT)


def pointed_at(prompt: Prompt, segments: Sequence[SegmentDescription]) -> Iterator[Evaluation]:
    """Yield what each segment was made from: with a mask its own slice shows what was drawn, not what was found."""
    for item, segment in zip(prompt.objects, segments, strict=True):
        text = SEEDED if item.masks else f"The prompt was {item.in_words}."
        yield Evaluation(segment=segment.key, concept=COMMENT, value=text)


def shared_with_earlier(
    shared: npt.NDArray[np.int64], segments: Sequence[SegmentDescription], what: str
) -> Iterator[Evaluation]:
    """Yield the statement that voxels or pixels of a segment went to an earlier one.

    Parameters
    ----------
    shared
        For each segment, how many an earlier one has.
    """
    for count, segment in zip(shared.tolist(), segments, strict=True):
        if count:
            text = f"{count} {what} that belong to an earlier object too are counted there."
            yield Evaluation(segment=segment.key, concept=COMMENT, value=text)
