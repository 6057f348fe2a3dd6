"""Segmentations as kinds of result objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dicom_out.kind import Check, Encoded, Order, Work
from dicom_out.profile import Options
from dicom_out.seg import encode_seg
from dicom_out.segoptions import SegOptions, SegType
from dicom_out.verify_frames import voxel_counts
from dicom_out.verify_regular import placed
from dicom_out.verify_seg import CheckedSeg, check_seg


def seg_options(kind: SegType, options: Options) -> SegOptions:
    """Return how a segmentation of this type is written under a profile's options."""
    return SegOptions(
        type=kind,
        keep_empty_frames=options.empty_frames,
        max_frames=options.max_frames or None,
        rle=options.compression == "rle" and kind is not SegType.BINARY,
    )


def seg_applies(kind: SegType) -> Callable[[Work, Options], bool]:
    """Return whether a result can have a segmentation of this very type, and one with a frame.

    One without a frame is not allowed, and one of empty frames looks like a finding nobody sees.
    """

    def applies(work: Work, options: Options) -> bool:
        return any(part.type is kind for part in work.seg_parts(seg_options(kind, options), options.grid))

    return applies


def seg_encoder(kind: SegType) -> Callable[[Order], Iterator[Encoded]]:
    """Return what writes a segmentation of this type."""

    def encode(order: Order) -> Iterator[Encoded]:
        wanted = seg_options(kind, order.options)
        for part in order.work.seg_parts(wanted, order.options.grid):
            number = part.index + 1
            pieces = encode_seg(
                order.begin(number),
                order.result,
                order.source,
                part=part,
                placement=order.work.placement(order.options.grid),
                declared=order.declared,
                rle=wanted.rle,
            )
            yield Encoded(
                pieces=pieces,
                number=number,
                segments={segment: part.number_of(segment) for segment in part.segments},
                frames={(frame.segment, frame.slice_index): n for n, frame in enumerate(part.frames, start=1)},
            )

    return encode


def verify_seg(check: Check) -> CheckedSeg:
    """Compare the instances of a segmentation with the findings."""
    result, slices = placed(check)
    voxels = check.voxels if result is check.result else voxel_counts(result.findings)
    return check_seg(check.objects, result, slices, voxels)
