"""Frames of a segmentation or parametric map: where each lies, as functional groups."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_out.codes import SEGMENTATION, SOURCE_IMAGE_FOR_PROCESSING, SPATIAL_RESAMPLING
from dicom_out.encoding import element, sequence, text
from dicom_out.masks import Masks
from dicom_out.source import SourceImage
from domain.codes import Code


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a segment on a slice, or with the number 0 the whole slice."""

    segment: int
    """Segment number, from 1."""
    slice_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Where the frames of one slice lie, and what they show."""

    position: tuple[str, str, str] | None
    """ImagePositionPatient; ``None`` without coordinates."""
    images: tuple[SourceImage, ...]
    """What it was made from, the nearest first."""
    is_resampled: bool = False
    """Whether its pixels are others than those of its one image."""

    @property
    def frame_number(self) -> int | None:
        """Frame of the image, where it is one of several of its instance."""
        return self.images[0].frame_number


@dataclass(frozen=True, slots=True)
class Dimension:
    """One item of Dimension Index Sequence (PS3.3 C.7.6.17)."""

    keyword: str
    group: str


SEGMENT = Dimension("ReferencedSegmentNumber", "SegmentIdentificationSequence")
POSITION = Dimension("ImagePositionPatient", "PlanePositionSequence")
TIME = Dimension("TemporalPositionIndex", "FrameContentSequence")
LABEL = Dimension("FrameLabel", "FrameContentSequence")
_NO_LABEL = "Image"


def frames_of(masks: Masks) -> tuple[Frame, ...]:
    """Return the frames that are not empty, by segment and then in slice order."""
    present = [(number, k) for k in range(masks.shape[0]) for number in masks.present(k)]
    return tuple(Frame(number, k) for number, k in sorted(present))


def slices_of(frames: Sequence[Frame]) -> dict[int, list[int]]:
    """Return the slices of each segment, by segment number."""
    slices: dict[int, list[int]] = {}
    for frame in frames:
        slices.setdefault(frame.segment, []).append(frame.slice_index)
    return slices


def dimensions_of(frames: Sequence[Frame], places: Sequence[Slice]) -> tuple[Dimension, ...]:
    """Return what tells the frames apart: the segment, and the place or the time of the source image.

    Frames of a cine are told apart by time; a single image without patient coordinates has neither place nor time,
    and a label map of it only a name.
    """
    segmented = (SEGMENT,) if frames[0].segment else ()
    if places[0].position is not None:
        return (*segmented, POSITION)
    if places[0].frame_number is not None:
        return (*segmented, TIME)
    return segmented or (LABEL,)


def functional_groups(
    frames: Sequence[Frame],
    places: Sequence[Slice],
    numbers: dict[int, int],
    *,
    derivation: Code = SEGMENTATION,
) -> bytes:
    """Return the Per-Frame Functional Groups Sequence (PS3.3 C.7.6.16.1.2).

    Parameters
    ----------
    places
        Every slice; frames count them from 0.
    numbers
        Number within the object by that of the frame's segment.
    derivation
        CID 7203: how the object came from the source.
    """
    dimensions = dimensions_of(frames, places)
    slices = sorted({frame.slice_index for frame in frames})
    segments = sorted({frame.segment for frame in frames})
    derivations = {k: _derivation(places[k], derivation) for k in slices}
    position = {k: _position(places[k]) for k in slices}
    rank = {k: index + 1 for index, k in enumerate(slices)}
    order = {number: index + 1 for index, number in enumerate(segments)}
    identified = {number: _segment(numbers[number]) if number else b"" for number in segments}

    def content(frame: Frame) -> bytes:
        ranks = (
            order[frame.segment] if dimension is SEGMENT else rank[frame.slice_index] for dimension in dimensions
        )
        return _content(tuple(ranks), places[frame.slice_index], dimensions)

    return sequence(
        "PerFrameFunctionalGroupsSequence",
        [
            derivations[frame.slice_index] + content(frame) + position[frame.slice_index] + identified[frame.segment]
            for frame in frames
        ],
    )


def _derivation(place: Slice, derivation: Code) -> bytes:
    """Derivation Image Functional Group; its codes are successive steps (PS3.3 C.7.6.16.2.6)."""
    steps = (SPATIAL_RESAMPLING, derivation) if place.is_resampled else (derivation,)
    # A tile's pixels stand elsewhere in its image
    sources = [
        _source(image, preserved="NO" if place.is_resampled or image.tile is not None else "YES")
        for image in place.images
    ]
    item = sequence("SourceImageSequence", sources) + _codes("DerivationCodeSequence", steps)
    return sequence("DerivationImageSequence", [item])


def _source(image: SourceImage, *, preserved: str) -> bytes:
    frame = b"" if image.frame_number is None else text("ReferencedFrameNumber", str(image.frame_number))
    return (
        text("ReferencedSOPClassUID", image.sop_class_uid)
        + text("ReferencedSOPInstanceUID", image.sop_instance_uid)
        + frame
        + text("SpatialLocationsPreserved", preserved)
        + _codes("PurposeOfReferenceCodeSequence", (SOURCE_IMAGE_FOR_PROCESSING,))
    )


def _codes(keyword: str, codes: Sequence[Code]) -> bytes:
    return sequence(
        keyword,
        [
            text("CodeValue", code.value)
            + text("CodingSchemeDesignator", code.scheme)
            + text("CodeMeaning", code.meaning)
            for code in codes
        ],
    )


def _content(ranks: tuple[int, ...], place: Slice, dimensions: tuple[Dimension, ...]) -> bytes:
    """Frame Content Functional Group; indices into the dimensions (PS3.3 C.7.6.16.2.2, C.7.6.17.1)."""
    item = b""
    if TIME in dimensions:
        item += element("TemporalPositionIndex", struct.pack("<L", place.frame_number or 1))
    item += element("DimensionIndexValues", struct.pack(f"<{len(ranks)}L", *ranks))
    if LABEL in dimensions:
        item += text("FrameLabel", _NO_LABEL)
    return sequence("FrameContentSequence", [item])


def _position(place: Slice) -> bytes:
    if place.position is None:
        return b""
    return sequence("PlanePositionSequence", [text("ImagePositionPatient", *place.position)])


def _segment(number: int) -> bytes:
    item = element("ReferencedSegmentNumber", struct.pack("<H", number))
    return sequence("SegmentIdentificationSequence", [item])
