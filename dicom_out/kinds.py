"""The kinds of result objects that there are, in the order in which they are written, sent and listed."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, SegmentationStorage

from dicom_out.kind import Check, Encoded, Kind, Order, Work
from dicom_out.profile import Options
from dicom_out.seg import encode_seg
from dicom_out.sr import encode_sr
from dicom_out.verify_seg import CheckedSeg, check_seg
from dicom_out.verify_sr import check_sr


def _has_voxels(work: Work, options: Options) -> bool:
    """A segmentation without a frame is not allowed, and one of empty frames looks like a finding nobody sees."""
    return bool(work.frames)


def _seg(order: Order) -> Iterator[Encoded]:
    work, labels = order.work, order.result.findings.labels
    if labels is None:
        return
    pieces = encode_seg(
        order.begin(), order.result, order.source, labels=labels, frames=work.frames, declared=order.declared
    )
    numbers = range(1, len(order.result.findings.segments) + 1)
    yield Encoded(pieces=pieces, segments={number: number for number in numbers})


def _check_seg(check: Check) -> CheckedSeg:
    (seg,) = check.objects
    return check_seg(seg, check.result, check.slices)


def _always(work: Work, options: Options) -> bool:
    return True


def _sr(order: Order) -> Iterator[Encoded]:
    yield Encoded(pieces=encode_sr(order))


def _check_sr(check: Check) -> None:
    (report,) = check.objects
    check_sr(report, check.result, check.slices, check.seg)


KINDS: tuple[Kind, ...] = (
    Kind(
        name="SEG",
        role="SEG",
        sop_class_uid=SegmentationStorage,
        modality="SEG",
        series_offset=0,
        applies=_has_voxels,
        encode=_seg,
        verify=_check_seg,
    ),
    Kind(
        name="SR",
        role="SR",
        sop_class_uid=Comprehensive3DSRStorage,
        modality="SR",
        series_offset=1,
        applies=_always,
        encode=_sr,
        verify=_check_sr,
        settings=("preliminary",),
        needs="SEG",
        fallback="SR-COMPREHENSIVE",
    ),
    Kind(
        name="SR-COMPREHENSIVE",
        role="SR",
        sop_class_uid=ComprehensiveSRStorage,
        modality="SR",
        series_offset=1,
        applies=_always,
        encode=_sr,
        verify=_check_sr,
        settings=("preliminary",),
        needs="SEG",
    ),
)
