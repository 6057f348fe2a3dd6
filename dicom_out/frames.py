"""Frames of a binary segmentation: which there are, their bits, and their functional groups."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_out.codes import SEGMENTATION, SOURCE_IMAGE_FOR_PROCESSING
from dicom_out.encoding import element, sequence, text
from dicom_out.source import SourceImage
from domain.codes import Code

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a segment on a slice."""

    segment: int
    """Segment number, from 1."""
    slice_index: int


def frames_of(labels: Labels) -> tuple[Frame, ...]:
    """Return the frames that are not empty, by segment and then in slice order."""
    present = [(int(number), k) for k, plane in enumerate(labels) for number in _labels_in(plane)]
    return tuple(Frame(number, k) for number, k in sorted(present) if number)


def _labels_in(plane: Labels) -> Labels:
    """Return the labels of one slice; looks at the ends of runs only, which is an order faster than sorting."""
    flat = plane.ravel()
    runs = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[runs], flat[0]))


def slices_of(frames: Sequence[Frame]) -> dict[int, list[int]]:
    """Return the slices of each segment, by segment number."""
    slices: dict[int, list[int]] = {}
    for frame in frames:
        slices.setdefault(frame.segment, []).append(frame.slice_index)
    return slices


def packed(labels: Labels, frames: Sequence[Frame]) -> bytes:
    """Return the bits of the frames, one after the other without padding between them (PS3.5 Section 8.1.1).

    The first pixel is the lowest bit. Eight frames always fill whole bytes.
    """
    pieces = []
    for start in range(0, len(frames), 8):
        masks = [labels[frame.slice_index] == frame.segment for frame in frames[start : start + 8]]
        pieces.append(np.packbits(np.stack(masks), axis=None, bitorder="little").tobytes())
    return b"".join(pieces)


def functional_groups(frames: Sequence[Frame], images: Sequence[SourceImage]) -> bytes:
    """Return the Per-Frame Functional Groups Sequence (PS3.3 C.7.6.16.1.2) of a segmentation.

    The position is the one the source wrote, so that position and reference name the same slice to the last digit.
    """
    slices = sorted({frame.slice_index for frame in frames})
    segments = sorted({frame.segment for frame in frames})
    derivation = {k: _derivation(images[k]) for k in slices}
    position = {k: _position(images[k]) for k in slices}
    rank = {k: index + 1 for index, k in enumerate(slices)}
    order = {number: index + 1 for index, number in enumerate(segments)}
    return sequence(
        "PerFrameFunctionalGroupsSequence",
        [
            derivation[frame.slice_index]
            + _content(order[frame.segment], rank[frame.slice_index])
            + position[frame.slice_index]
            + _segment(frame.segment)
            for frame in frames
        ],
    )


def _derivation(image: SourceImage) -> bytes:
    """Derivation Image Functional Group (PS3.3 C.7.6.16.2.6)."""
    frame = b"" if image.frame_number is None else text("ReferencedFrameNumber", str(image.frame_number))
    source = (
        text("ReferencedSOPClassUID", image.sop_class_uid)
        + text("ReferencedSOPInstanceUID", image.sop_instance_uid)
        + frame
        + text("SpatialLocationsPreserved", "YES")
        + _code("PurposeOfReferenceCodeSequence", SOURCE_IMAGE_FOR_PROCESSING)
    )
    item = sequence("SourceImageSequence", [source]) + _code("DerivationCodeSequence", SEGMENTATION)
    return sequence("DerivationImageSequence", [item])


def _code(keyword: str, code: Code) -> bytes:
    parts = text("CodeValue", code.value) + text("CodingSchemeDesignator", code.scheme)
    return sequence(keyword, [parts + text("CodeMeaning", code.meaning)])


def _content(segment_rank: int, slice_rank: int) -> bytes:
    """Frame Content Functional Group; indices into the two dimensions (PS3.3 C.7.6.17.1)."""
    return sequence(
        "FrameContentSequence", [element("DimensionIndexValues", struct.pack("<LL", segment_rank, slice_rank))]
    )


def _position(image: SourceImage) -> bytes:
    return sequence("PlanePositionSequence", [text("ImagePositionPatient", *image.position)])


def _segment(number: int) -> bytes:
    item = element("ReferencedSegmentNumber", struct.pack("<H", number))
    return sequence("SegmentIdentificationSequence", [item])
