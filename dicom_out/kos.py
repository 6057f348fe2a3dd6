"""Key Object Selection (PS3.3 A.35.4, TID 2010): the slices that matter, and the rejection of what is superseded."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_out import codes
from dicom_out.content import CONTAINS, MODIFIES, OBSERVES, Item, code, composite, container, image, text, uidref
from dicom_out.document import written
from dicom_out.general import evidence, series_item, study
from dicom_out.sc import Begin
from dicom_out.source import Source
from domain.codes import Code
from domain.engine import OWN_MANUFACTURER, EngineManifest
from domain.job import ResultObject
from domain.ports import Result

SUPERSEDED = "Superseded by a later analysis of the same series that took more or other images into account."


def encode_kos(
    begin: Begin, result: Result, source: Source, indices: Sequence[int], *, declared: tuple[str, ...]
) -> list[list[bytes]]:
    """Return a selection of the source's slices that matter, as a Part 10 file in pieces; none without any.

    Parameters
    ----------
    indices
        The slices, from 0.
    """
    images = [source.images[k] for k in indices]
    if not images:
        return []
    names = dict.fromkeys((one.sop_class_uid, one.sop_instance_uid, one.frame_number) for one in images)
    shown = [image(None, *uids, frame=frame) for *uids, frame in names]
    about = f"AI {result.manifest.title}: slices on which the findings are shown best."
    instances = [(one.sop_class_uid, one.sop_instance_uid) for one in images]
    ds = begin(1)
    root = _document(ds, codes.OF_INTEREST, [], result.manifest, about, shown)
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(source, instances)
    return [written(ds, root, source, declared)]


def encode_rejection(
    begin: Begin,
    result: Result,
    source: Source,
    superseded: Sequence[ResultObject],
    *,
    declared: tuple[str, ...],
) -> list[list[bytes]]:
    """Return the note that rejects objects of earlier generations (IHE IOCM); none where there are none.

    Parameters
    ----------
    superseded
        What is no longer to be shown.
    """
    if not superseded:
        return []
    named = [code(codes.DOCUMENT_TITLE_MODIFIER, codes.OTHER_FAILURE, MODIFIES)]
    rejected = [_rejected(item) for item in superseded]
    ds = begin(1)
    root = _document(ds, codes.REJECTED_FOR_QUALITY, named, result.manifest, SUPERSEDED, rejected)
    series: dict[str, list[tuple[str, str]]] = {}
    for item in superseded:
        series.setdefault(item.series_instance_uid, []).append((item.sop_class_uid, item.sop_instance_uid))
    ds.CurrentRequestedProcedureEvidenceSequence = [
        study(source.study_instance_uid, [series_item(uid, instances) for uid, instances in series.items()])
    ]
    return [written(ds, root, source, declared)]


def _rejected(item: ResultObject) -> Item:
    """Return a reference to a rejected object: segmentations are images, reports are composite objects."""
    refer = image if item.kind.startswith(("SEG", "SC", "PMAP")) else composite
    return refer(None, item.sop_class_uid, item.sop_instance_uid)


def _document(
    ds: Dataset,
    title: Code,
    modifiers: Sequence[Item],
    manifest: EngineManifest,
    about: str,
    selected: Sequence[Item],
) -> Item:
    """Complete the Key Object Document Series and General Modules (PS3.3 C.17.6); return the content."""
    ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.ReferencedPerformedProcedureStepSequence = []
    observer = [
        code(codes.OBSERVER_TYPE, codes.DEVICE, OBSERVES),
        uidref(codes.DEVICE_OBSERVER_UID, manifest.device_uid, OBSERVES),
        text(codes.DEVICE_OBSERVER_NAME, f"{OWN_MANUFACTURER} {manifest.name}", OBSERVES),
        text(codes.DEVICE_OBSERVER_MANUFACTURER, OWN_MANUFACTURER, OBSERVES),
        text(codes.DEVICE_OBSERVER_MODEL, manifest.title, OBSERVES),
    ]
    described = text(codes.KEY_OBJECT_DESCRIPTION, about, CONTAINS)
    return container(title, [*modifiers, *observer, described, *selected], relationship=None, template="2010")
