"""Segmentations: each segment's largest slice, as a mask on its plane or on the image it was made from."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from domain.errors import DrawingRefused
from volume.drawings.items import code, first, image_refs, items, number, text, triple
from volume.drawings.sketch import ImageRef, Mask, Plane, SketchedObject

MOST_PIXELS = 1 << 29
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

Frames = npt.NDArray[Any]


def segments(ds: Dataset) -> list[SketchedObject]:
    """Return one object for each segment that has pixels."""
    groups = list(items(ds, "PerFrameFunctionalGroupsSequence"))
    if "ImageOrientationSlide" in ds or any("PlanePositionSlideSequence" in group for group in groups[:1]):
        raise DrawingRefused("It is drawn on a slide of microscopy, which is no volume.")
    frames = _frames(ds, len(groups))
    found = []
    for item in items(ds, "SegmentSequence"):
        segment = number(item, "SegmentNumber")
        best = _largest(ds, groups, frames, segment or 0)
        if best is not None and segment:
            found.append(
                SketchedObject(
                    mask=replace(_placed(ds, groups[best[0]]), pixels=best[1]),
                    number=segment,
                    label=text(item, "SegmentLabel"),
                    category=code(first(item, "SegmentedPropertyCategoryCodeSequence")),
                    type=code(first(item, "SegmentedPropertyTypeCodeSequence")),
                    tracking_identifier=text(item, "TrackingID"),
                    tracking_uid=text(item, "TrackingUID"),
                )
            )
    return found


def source_images(ds: Dataset) -> Iterator[ImageRef]:
    """Yield the images that frames were made from."""
    for group in items(ds, "PerFrameFunctionalGroupsSequence"):
        yield from _sources(group)


def _sources(group: Dataset) -> list[ImageRef]:
    return [
        image
        for derivation in items(group, "DerivationImageSequence")
        for image in image_refs(items(derivation, "SourceImageSequence"))
    ]


def _largest(
    ds: Dataset, groups: list[Dataset], frames: Frames, segment: int
) -> tuple[int, npt.NDArray[np.bool_]] | None:
    """Return the frame in which a segment is largest, with its pixels."""
    best: tuple[int, npt.NDArray[np.bool_]] | None = None
    most, is_map = 0, text(ds, "SegmentationType") == "LABELMAP"
    level = (number(ds, "MaximumFractionalValue") or 255) / 2 if text(ds, "SegmentationType") == "FRACTIONAL" else 0
    for index, group in enumerate(groups):
        own = number(first(group, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
        if not is_map and own != segment:
            continue
        pixels: npt.NDArray[np.bool_] = frames[index] == segment if is_map else frames[index] > level
        area = int(np.count_nonzero(pixels))
        if area > most:
            best, most = (index, pixels), area
    return best


def _placed(ds: Dataset, group: Dataset) -> Mask:
    shared = first(ds, "SharedFunctionalGroupsSequence")

    def of(sequence: str, keyword: str, count: int) -> Any:
        return triple(first(group, sequence), keyword, count) or triple(first(shared, sequence), keyword, count)

    position = of("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = of("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = of("PixelMeasuresSequence", "PixelSpacing", 2)
    known = position is not None and orientation is not None and spacing is not None and min(spacing) > 0
    sources = _sources(group)
    return Mask(
        pixels=np.zeros((0, 0), bool),
        plane=Plane(position_mm=position, orientation=orientation, spacing_mm=spacing) if known else None,
        image=sources[0] if len(sources) == 1 else None,
    )


def _frames(ds: Dataset, count: int) -> Frames:
    """Return all frames, shape ``(frames, rows, columns)``; nothing is allocated by a header that claims too much."""
    rows, columns, frames = (number(ds, name) or 0 for name in ("Rows", "Columns", "NumberOfFrames"))
    if rows < 1 or columns < 1 or frames < 1 or frames != count:
        raise DrawingRefused("Rows, Columns, NumberOfFrames and PerFrameFunctionalGroupsSequence do not agree.")
    if rows * columns * frames > MOST_PIXELS:
        raise DrawingRefused(f"The segmentation has more than {MOST_PIXELS} pixels.")
    if ds.file_meta.TransferSyntaxUID == _DEFLATED_FRAMES:
        return _inflated(ds, rows, columns, frames)
    pixels: Frames = pixel_array(ds)
    return pixels.reshape(frames, rows, columns)


def _inflated(ds: Dataset, rows: int, columns: int, frames: int) -> Frames:
    """Return the frames of Deflated Image Frame Compression (PS3.5 A.4.13), which pydicom does not decode."""
    is_bit = ds.BitsAllocated == 1
    size = -(-rows * columns // 8) if is_bit else rows * columns
    if ds.BitsAllocated not in (1, 8):
        raise DrawingRefused("Deflated frames of more than 8 bits are not taken.")
    found = np.zeros((frames, rows * columns), np.uint8)
    for index, packed in enumerate(generate_frames(ds.PixelData, number_of_frames=frames)):
        plain = np.frombuffer(zlib.decompressobj(wbits=-15).decompress(packed, size), np.uint8)
        found[index] = np.unpackbits(plain, bitorder="little")[: rows * columns] if is_bit else plain
    return found.reshape(frames, rows, columns)
