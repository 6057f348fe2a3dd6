"""The kinds of result objects that there are, in the order in which they are written, sent and listed."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ParametricMapStorage,
    SegmentationStorage,
)

from dicom_out.kind import Check, Encoded, Kind, Order, Work
from dicom_out.kinds_to_look_at import KINDS_TO_LOOK_AT
from dicom_out.parametric import encode_parametric_map, mapped_segments
from dicom_out.profile import Options
from dicom_out.segkind import seg_applies, seg_encoder, verify_seg
from dicom_out.segoptions import LABEL_MAP_STORAGE, SegType
from dicom_out.sr import encode_sr
from dicom_out.textsr import encode_text_sr
from dicom_out.verify_parametric import check_parametric_maps
from dicom_out.verify_regular import placed
from dicom_out.verify_sr import check_sr
from dicom_out.verify_textsr import check_text_sr


def _always(work: Work, options: Options) -> bool:
    return True


def _sr(order: Order) -> Iterator[Encoded]:
    yield Encoded(pieces=encode_sr(order))


def _has_probabilities(work: Work, options: Options) -> bool:
    return bool(mapped_segments(work.placement(options.grid)))


def _maps(order: Order) -> Iterator[Encoded]:
    placement = order.work.placement(order.options.grid)
    for number, segment in enumerate(mapped_segments(placement), start=1):
        pieces = encode_parametric_map(
            order.begin(number),
            order.result,
            order.source,
            segment=segment,
            placement=placement,
            declared=order.declared,
        )
        yield Encoded(pieces=pieces, number=number)


def _check_maps(check: Check) -> None:
    check_parametric_maps(check.objects, *placed(check))


def _text_sr(name: str, sop_class_uid: str, fallback: str = "") -> Kind:
    return Kind(
        name=name,
        role="TEXT-SR",
        sop_class_uid=sop_class_uid,
        modality="SR",
        series_offset=2,
        applies=_always,
        encode=encode_text_sr,
        verify=check_text_sr,
        settings=("preliminary",),
        fallback=fallback,
    )


KINDS: tuple[Kind, ...] = (
    Kind(
        name="SEG",
        role="SEG",
        sop_class_uid=SegmentationStorage,
        modality="SEG",
        series_offset=0,
        applies=seg_applies(SegType.BINARY),
        encode=seg_encoder(SegType.BINARY),
        verify=verify_seg,
        settings=("empty_frames", "max_frames", "grid"),
    ),
    Kind(
        name="SEG-LABELMAP",
        role="SEG",
        sop_class_uid=LABEL_MAP_STORAGE,
        modality="SEG",
        series_offset=0,
        applies=seg_applies(SegType.LABELMAP),
        encode=seg_encoder(SegType.LABELMAP),
        verify=verify_seg,
        settings=("empty_frames", "max_frames", "compression", "grid"),
        fallback="SEG",
    ),
    Kind(
        name="SEG-FRACTIONAL",
        role="SEG",
        sop_class_uid=SegmentationStorage,
        modality="SEG",
        series_offset=0,
        applies=seg_applies(SegType.FRACTIONAL),
        encode=seg_encoder(SegType.FRACTIONAL),
        verify=verify_seg,
        settings=("empty_frames", "max_frames", "compression", "grid"),
        fallback="SEG",
    ),
    Kind(
        name="SR",
        role="SR",
        sop_class_uid=Comprehensive3DSRStorage,
        modality="SR",
        series_offset=1,
        applies=_always,
        encode=_sr,
        verify=check_sr,
        settings=("preliminary", "regionless"),
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
        verify=check_sr,
        settings=("preliminary", "regionless"),
        needs="SEG",
    ),
    _text_sr("TEXT-SR-COMPREH", ComprehensiveSRStorage, fallback="TEXT-SR-ENHANCED"),
    _text_sr("TEXT-SR-ENHANCED", EnhancedSRStorage, fallback="TEXT-SR"),
    _text_sr("TEXT-SR", BasicTextSRStorage),
    Kind(
        name="PMAP",
        role="PMAP",
        sop_class_uid=ParametricMapStorage,
        modality="OT",
        series_offset=3,
        applies=_has_probabilities,
        encode=_maps,
        verify=_check_maps,
        settings=("grid",),
    ),
    *KINDS_TO_LOOK_AT,
)
