"""The kinds of objects that people look at: key images, reports in PDF, presentation states, key objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import (
    ColorSoftcopyPresentationStateStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from dicom_out.gsps import encode_gsps, is_on_images
from dicom_out.keyimages import chosen
from dicom_out.kind import Check, Encoded, Kind, Order, Work
from dicom_out.kos import encode_kos, encode_rejection
from dicom_out.pdf import encode_pdf
from dicom_out.profile import Options
from dicom_out.sc import encode_sc
from dicom_out.verify_gsps import check_gsps
from dicom_out.verify_kos import check_kos, check_rejection
from dicom_out.verify_pdf import check_pdf
from dicom_out.verify_sc import check_sc
from domain.job import ResultObject
from domain.ports import Result

_LINKED = ("SR", "TEXT-SR")
"""Kinds whose objects name their predecessors themselves."""


def _located(work: Work, options: Options) -> bool:
    """A picture without anything on it says nothing."""
    return bool(chosen(work.result))


def _always(work: Work, options: Options) -> bool:
    return True


def _all(files: Sequence[Sequence[bytes]]) -> Iterator[Encoded]:
    for number, pieces in enumerate(files, start=1):
        yield Encoded(pieces=pieces, number=number)


def _sc(order: Order) -> Iterator[Encoded]:
    yield from _all(encode_sc(order.begin, order.source, order.work.key_images, declared=order.declared))


def _pdf(order: Order) -> Iterator[Encoded]:
    yield from _all(
        encode_pdf(
            order.begin,
            order.result,
            order.source,
            order.work.key_images,
            declared=order.declared,
            identified=order.options.identified,
            zone=order.work.settings.zone,
        )
    )


def _gsps(order: Order) -> Iterator[Encoded]:
    is_colour = order.kind.sop_class_uid == ColorSoftcopyPresentationStateStorage
    yield from _all(
        encode_gsps(order.begin, order.result, order.source, is_colour=is_colour, declared=order.declared)
    )


def _kos(order: Order) -> Iterator[Encoded]:
    yield from _all(
        encode_kos(order.begin, order.result, order.source, chosen(order.result), declared=order.declared)
    )


def _rejection(order: Order) -> Iterator[Encoded]:
    superseded = superseded_objects(order.result)
    yield from _all(encode_rejection(order.begin, order.result, order.source, superseded, declared=order.declared))


def superseded_objects(result: Result) -> list[ResultObject]:
    """Return the earlier generations' objects that do not name their successor in a chain of documents."""
    return [
        item
        for item in result.predecessors
        if not item.kind.startswith(_LINKED) and item.sop_class_uid != KeyObjectSelectionDocumentStorage
    ]


def _has_superseded(work: Work, options: Options) -> bool:
    return bool(superseded_objects(work.result))


def _on_grey(work: Work, options: Options) -> bool:
    return is_on_images(work.result, is_colour=False)


def _on_colour(work: Work, options: Options) -> bool:
    return is_on_images(work.result, is_colour=True)


def _by(check_objects: Callable[[Sequence[Dataset], Result], None]) -> Callable[[Check], None]:
    def check(given: Check) -> None:
        check_objects(given.objects, given.result)

    return check


def _check_rejection(check: Check) -> None:
    check_rejection(check.objects, check.result, superseded_objects(check.result))


KINDS_TO_LOOK_AT: tuple[Kind, ...] = (
    Kind(
        name="SC",
        role="SC",
        sop_class_uid=SecondaryCaptureImageStorage,
        modality="OT",
        series_offset=4,
        applies=_located,
        encode=_sc,
        verify=_by(check_sc),
    ),
    Kind(
        name="PDF",
        role="PDF",
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        series_offset=5,
        applies=_always,
        encode=_pdf,
        verify=_by(check_pdf),
        settings=("identified",),
    ),
    Kind(
        name="GSPS",
        role="GSPS",
        sop_class_uid=GrayscaleSoftcopyPresentationStateStorage,
        modality="PR",
        series_offset=6,
        applies=_on_grey,
        encode=_gsps,
        verify=_by(check_gsps),
        fallback="CSPS",
    ),
    Kind(
        name="CSPS",
        role="GSPS",
        sop_class_uid=ColorSoftcopyPresentationStateStorage,
        modality="PR",
        series_offset=7,
        applies=_on_colour,
        encode=_gsps,
        verify=_by(check_gsps),
    ),
    Kind(
        name="KOS",
        role="KOS",
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        modality="KO",
        series_offset=8,
        applies=_located,
        encode=_kos,
        verify=_by(check_kos),
    ),
    Kind(
        name="REJECTION",
        role="REJECTION",
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        modality="KO",
        series_offset=9,
        applies=_has_superseded,
        encode=_rejection,
        verify=_check_rejection,
    ),
)
