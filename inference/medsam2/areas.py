"""What is measured in an image or a cine: areas, in mm² only where the scale in the patient is beyond doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domain.codes import PERCENT, Code
from domain.findings import Evaluation, Measurement, SegmentDescription
from domain.image import Image
from inference.measures import AREA, MAXIMUM, MEAN, MINIMUM, PIXELS, SQUARE_MILLIMETRE, diameters
from inference.medsam2.measure import COMMENT
from volume.calibration import Calibration, plausible_spacing

# PS3.16 knows this of two ventricles only, and no number of a frame.
AREA_CHANGE = Code("FAC", "99VOXGATE", "Fractional area change")
LARGEST_FRAME = Code("FRAME_MAX", "99VOXGATE", "Number of the frame with the largest area")
SMALLEST_FRAME = Code("FRAME_MIN", "99VOXGATE", "Number of the frame with the smallest area")
NO_UNITS = Code("1", "UCUM", "no units")

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """One object through the frames.

    Attributes
    ----------
    pixels
        How many pixels it has on each frame.
    calibration
        What holds for all of them: a region of an ultrasound image must contain the object on every frame.
    """

    segment: str
    mask: npt.NDArray[np.bool_]
    pixels: npt.NDArray[np.int64]
    calibration: Calibration

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        """Frames with the object, from 0."""
        found: npt.NDArray[np.int64] = np.flatnonzero(self.pixels)
        return found

    @property
    def largest(self) -> int:
        """First of the frames on which it is largest."""
        return int(self.pixels.argmax())

    @property
    def smallest(self) -> int:
        """First of the frames on which it is smallest; where it is not found, it has no size."""
        return int(self.frames[self.pixels[self.frames].argmin()])

    def area(self, pixels: float) -> tuple[float, Code]:
        """Return so many pixels as an area."""
        if self.calibration.spacing_mm is None:
            return float(pixels), PIXELS
        row_mm, column_mm = self.calibration.spacing_mm
        return pixels * row_mm * column_mm, SQUARE_MILLIMETRE


def traced(image: Image, labels: Labels, segments: Sequence[SegmentDescription]) -> list[Traced]:
    """Return each object that was found at all."""
    found = []
    for number, segment in enumerate(segments, start=1):
        mask = labels == number
        pixels = mask.sum(axis=(1, 2))
        if pixels.any():
            found.append(Traced(segment=segment.key, mask=mask, pixels=pixels, calibration=_calibration(image, mask)))
    return found


def _calibration(image: Image, mask: npt.NDArray[np.bool_]) -> Calibration:
    if image.modality != "US":
        return Calibration(None, "an X-ray projection magnifies, and has no scale in the patient")
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    return plausible_spacing(image, (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)))


def area_measurements(found: Sequence[Traced]) -> tuple[Measurement, ...]:
    """Return the area of each object: in a cine the largest, the smallest, their fraction and the mean.

    Only frames on which the object was found count, also for the mean. One image has its diameters too.
    """
    return tuple(item for one in found for item in (_in_time(one) if len(one.pixels) > 1 else _in_image(one)))


def _in_image(one: Traced) -> Iterator[Measurement]:
    value, unit = one.area(one.pixels[0])
    yield Measurement(segment=one.segment, concept=AREA, value=value, unit=unit, label="Area")
    if one.calibration.spacing_mm is not None:
        yield from diameters(one.segment, one.mask, one.calibration.spacing_mm)


def _in_time(one: Traced) -> Iterator[Measurement]:
    largest, smallest = one.pixels[one.largest], one.pixels[one.smallest]
    for label, derivation, pixels in (
        ("Largest area", MAXIMUM, largest),
        ("Smallest area", MINIMUM, smallest),
        ("Mean area", MEAN, one.pixels[one.frames].mean()),
    ):
        value, unit = one.area(pixels)
        yield Measurement(
            segment=one.segment, concept=AREA, value=value, unit=unit, derivation=derivation, label=label
        )
    yield Measurement(
        segment=one.segment, concept=AREA_CHANGE, value=100 * float(1 - smallest / largest), unit=PERCENT,
        label="Fractional area change",
    )  # fmt: skip
    for label, concept, frame in (
        ("Frame of largest area", LARGEST_FRAME, one.largest),
        ("Frame of smallest area", SMALLEST_FRAME, one.smallest),
    ):
        yield Measurement(segment=one.segment, concept=concept, value=frame + 1.0, unit=NO_UNITS, label=label)


def area_statements(found: Sequence[Traced], image: Image, looked_at: int) -> tuple[Evaluation, ...]:
    """Return what qualifies the areas: why they are in pixels, on how many frames the object is, and when.

    Parameters
    ----------
    looked_at
        So many frames were asked for.
    """
    said = []
    for one in found:
        if len(one.pixels) > 1:
            largest, smallest = (_frame(image, k) for k in (one.largest, one.smallest))
            text = f"On {len(one.frames)} of {looked_at} frames; largest on {largest}, smallest on {smallest}."
            said.append(Evaluation(segment=one.segment, concept=COMMENT, value=text))
        if one.calibration.spacing_mm is None:
            text = f"The area is in pixels: {one.calibration.reason}."
            said.append(Evaluation(segment=one.segment, concept=COMMENT, value=text))
    return tuple(said)


def _frame(image: Image, k: int) -> str:
    """Name a frame as DICOM counts, with its time after the first where that is known."""
    times = image.frame_times_ms
    return f"frame {k + 1} ({times[k]:.0f} ms)" if k < len(times) else f"frame {k + 1}"
