"""What every SR document of ours has: its modules, its evidence, and who observed."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_out import codes
from dicom_out.content import OBSERVES, Item, code, encoded_content, text, uidref
from dicom_out.encoding import encoded_dataset, part10
from dicom_out.general import series_item, study
from dicom_out.identity import identity
from dicom_out.kind import Order
from dicom_out.source import Source, decoded
from domain.engine import OWN_MANUFACTURER, EngineManifest
from domain.job import ResultObject


def describe_document(order: Order, ds: Dataset) -> None:
    """SR Document Series and General Modules (PS3.3 C.17.1, C.17.2)."""
    result, source = order.result, order.source
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    homes = source.by_series(source.instances)
    series = [series_item(uid, instances) for uid, instances in homes.pop(source.study_instance_uid).items()]
    listed: dict[str, dict[tuple[str, str], None]] = {}
    for item in order.segmented.values():
        listed.setdefault(item.series_instance_uid, {})[item.sop_class_uid, item.sop_instance_uid] = None
    series += [series_item(uid, list(instances)) for uid, instances in listed.items()]
    drawing = None if result.prompt is None else result.prompt.drawing
    if drawing is not None:
        series.append(series_item(drawing.series_instance_uid, [(drawing.sop_class_uid, drawing.sop_instance_uid)]))
    ds.CurrentRequestedProcedureEvidenceSequence = [study(source.study_instance_uid, series)]
    if homes:  # images of earlier studies that were compared with
        ds.PertinentOtherEvidenceSequence = [
            study(other, [series_item(uid, instances) for uid, instances in others.items()])
            for other, others in homes.items()
        ]
    former = [_predecessor(source.study_instance_uid, sr) for sr in result.predecessors if _is_earlier(order, sr)]
    if order.options.preliminary:
        ds.PreliminaryFlag = order.options.preliminary.upper()
    if former:
        ds.PredecessorDocumentsSequence = former
    requests = [_request(source, item) for item in source.header.get("RequestAttributesSequence") or ()]
    if requests:
        ds.ReferencedRequestSequence = requests


def _is_earlier(order: Order, former: ResultObject) -> bool:
    """Tell whether an object of the earlier generation is what this document replaces: the same variant."""
    return (former.variant or former.kind) == order.variant


def _predecessor(study_instance_uid: str, sr: ResultObject) -> Dataset:
    return study(study_instance_uid, [series_item(sr.series_instance_uid, [(sr.sop_class_uid, sr.sop_instance_uid)])])


def _request(source: Source, attributes: Dataset) -> Dataset:
    """Return the order that the images answer, which the report then answers too (PS3.3 C.17.2.5)."""
    item = Dataset()
    item.StudyInstanceUID = attributes.get("StudyInstanceUID") or source.study_instance_uid
    item.ReferencedStudySequence = []
    item.AccessionNumber = attributes.get("AccessionNumber") or str(
        decoded(source.header, "AccessionNumber").value or ""
    )
    item.PlacerOrderNumberImagingServiceRequest = attributes.get("PlacerOrderNumberImagingServiceRequest") or ""
    item.FillerOrderNumberImagingServiceRequest = attributes.get("FillerOrderNumberImagingServiceRequest") or ""
    item.RequestedProcedureID = attributes.get("RequestedProcedureID") or ""
    item.RequestedProcedureDescription = attributes.get("RequestedProcedureDescription") or ""
    item.RequestedProcedureCodeSequence = attributes.get("RequestedProcedureCodeSequence") or []
    return item


def observer(manifest: EngineManifest) -> list[Item]:
    """Return TID 1002 and 1004: the observer is a device, and the device is the model."""
    return [
        code(codes.OBSERVER_TYPE, codes.DEVICE, OBSERVES),
        uidref(codes.DEVICE_OBSERVER_UID, manifest.device_uid, OBSERVES),
        text(codes.DEVICE_OBSERVER_NAME, f"{OWN_MANUFACTURER} {manifest.name}", OBSERVES),
        text(codes.DEVICE_OBSERVER_MANUFACTURER, OWN_MANUFACTURER, OBSERVES),
        text(codes.DEVICE_OBSERVER_MODEL, manifest.title, OBSERVES),
        text(codes.DEVICE_OBSERVER_SERIAL, manifest.device_uid, OBSERVES),
    ]


def written(ds: Dataset, root: Item, source: Source, declared: tuple[str, ...]) -> list[bytes]:
    """Return a document with its content as a Part 10 file, in pieces."""
    elements = encoded_dataset(ds, declared) | encoded_content(root, declared) | identity(source.header, declared)
    return part10(ds.SOPClassUID, ds.SOPInstanceUID, elements)
