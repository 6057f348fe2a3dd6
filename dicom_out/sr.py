"""Findings to a DICOM Comprehensive 3D SR (PS3.3 A.35.13) after TID 1500 Imaging Measurement Report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset

from dicom_out import codes
from dicom_out.content import ACQUIRES, MODIFIES, OBSERVES, code, container, image, text, uidref
from dicom_out.encoding import encoded_dataset, part10
from dicom_out.groups import groups_of, statements_of
from dicom_out.identity import identity
from dicom_out.kind import Order, Segmented
from dicom_out.source import Source, decoded, string_values
from domain.codes import Code
from domain.engine import OWN_MANUFACTURER, EngineManifest
from domain.job import ResultObject
from domain.ports import Result

_PROCEDURES = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence")


def encode_sr(order: Order) -> list[bytes]:
    """Return a report as a Part 10 file, in pieces.

    The content is the same for Comprehensive 3D and Comprehensive SR: every region is drawn on a source image.
    """
    result, source = order.result, order.source
    ds = order.begin()
    _describe_document(ds, result, source, order.segmented)
    if order.options.preliminary:
        ds.PreliminaryFlag = order.options.preliminary.upper()
    root = container(codes.IMAGING_MEASUREMENT_REPORT, _tree(order), relationship=None, template="1500")
    ds.update(root)
    elements = encoded_dataset(ds, order.declared) | identity(source.header, order.declared)
    return part10(ds.SOPClassUID, ds.SOPInstanceUID, elements)


def _describe_document(ds: Dataset, result: Result, source: Source, segmented: Mapping[int, Segmented]) -> None:
    """SR Document Series and General Modules (PS3.3 C.17.1, C.17.2)."""
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    series = [_series(source.series_instance_uid, source.instances)]
    listed: dict[str, dict[tuple[str, str], None]] = {}
    for item in segmented.values():
        listed.setdefault(item.series_instance_uid, {})[item.sop_class_uid, item.sop_instance_uid] = None
    series += [_series(uid, list(instances)) for uid, instances in listed.items()]
    ds.CurrentRequestedProcedureEvidenceSequence = [_study(source.study_instance_uid, series)]
    former = [_predecessor(source.study_instance_uid, sr) for sr in result.predecessors if sr.kind == "SR"]
    if former:
        ds.PredecessorDocumentsSequence = former
    requests = [_request(source, item) for item in source.header.get("RequestAttributesSequence") or ()]
    if requests:
        ds.ReferencedRequestSequence = requests


def _series(uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        item.ReferencedSOPSequence.append(reference)
    return item


def _study(uid: str, series: list[Dataset]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID, item.ReferencedSeriesSequence = uid, series
    return item


def _predecessor(study: str, sr: ResultObject) -> Dataset:
    return _study(study, [_series(sr.series_instance_uid, [(sr.sop_class_uid, sr.sop_instance_uid)])])


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


def _tree(order: Order) -> list[Dataset]:
    """Return the content below the root, in the order of TID 1500."""
    result, source, lines = order.result, order.source, order.work.lines
    said = statements_of(result, source, lines)
    tree = [
        code(codes.LANGUAGE, codes.ENGLISH, MODIFIES),
        *_observer(result.manifest),
        code(codes.PROCEDURE_REPORTED, _procedure(source), MODIFIES),
        _image_library(source),
        container(codes.IMAGING_MEASUREMENTS, groups_of(result, source, lines, order.segmented)),
    ]
    return [*tree, container(codes.QUALITATIVE_EVALUATIONS, said)] if said else tree


def _observer(manifest: EngineManifest) -> list[Dataset]:
    """Return TID 1002 and 1004: the observer is a device, and the device is the model."""
    return [
        code(codes.OBSERVER_TYPE, codes.DEVICE, OBSERVES),
        uidref(codes.DEVICE_OBSERVER_UID, manifest.device_uid, OBSERVES),
        text(codes.DEVICE_OBSERVER_NAME, f"{OWN_MANUFACTURER} {manifest.name}", OBSERVES),
        text(codes.DEVICE_OBSERVER_MANUFACTURER, OWN_MANUFACTURER, OBSERVES),
        text(codes.DEVICE_OBSERVER_MODEL, manifest.title, OBSERVES),
        text(codes.DEVICE_OBSERVER_SERIAL, manifest.device_uid, OBSERVES),
    ]


def _procedure(source: Source) -> Code:
    """Return the imaging procedure, never the analysis (IHE AIR): as the source codes it, else by modality."""
    header = source.header
    for keyword in _PROCEDURES:
        for item in header.get(keyword) or ():
            value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
            if value and scheme and item.get("CodeMeaning"):
                return Code(str(value), str(scheme), str(item.CodeMeaning))
    return codes.PROCEDURES.get(_modality(source), codes.PROCEDURES["XR"])


def _modality(source: Source) -> str:
    known = codes.MODALITIES.get(source.images[0].sop_class_uid)
    return known.value if known else (string_values(source.header, "Modality") or [""])[0]


def _image_library(source: Source) -> Dataset:
    """Return TID 1600: every image that was analysed, and what they share."""
    shared = [uidref(codes.FRAME_OF_REFERENCE, str(source.header.FrameOfReferenceUID), ACQUIRES)]
    modality = codes.MODALITIES.get(source.images[0].sop_class_uid)
    if modality is not None:
        shared.insert(0, code(codes.MODALITY, modality, ACQUIRES))
    entries = [image(codes.SOURCE, *uids) for uids in source.instances]
    return container(codes.IMAGE_LIBRARY, [container(codes.IMAGE_LIBRARY_GROUP, [*shared, *entries])])
