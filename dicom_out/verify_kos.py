"""The check of key object selections: they name what they should, and list it as evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydicom.dataset import Dataset

from dicom_out.keyslices import mask_on
from dicom_out.verify_references import SourceNames
from domain.errors import VerificationFailed
from domain.job import ResultObject
from domain.ports import Result

_OF_INTEREST, _REJECTED = "113000", "113001"


def check_kos(objects: Sequence[Dataset], result: Result) -> None:
    """Compare a selection of slices, read from its file, with the findings and the source.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    (ds,) = objects
    source = SourceNames.of(result)
    _check_title(ds, _OF_INTEREST)
    selected = _selected(ds)
    slices = [source.indices(item, "KOS") for item in selected]
    if not slices or len(set(slices)) != len(slices):
        raise VerificationFailed("KOS: it names no image, or one twice.")
    if source.check_evidence(ds, "KOS") != {str(item.ReferencedSOPInstanceUID) for item in selected}:
        raise VerificationFailed("KOS: its evidence is not what it names.")
    if not all(any(_is_of_interest(result, k) for k in shown) for shown in slices):
        raise VerificationFailed("KOS: it names an image on which nothing was found.")


def check_rejection(objects: Sequence[Dataset], result: Result, superseded: Collection[ResultObject]) -> None:
    """Compare a rejection note, read from its file, with the objects that it must reject.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    (ds,) = objects
    _check_title(ds, _REJECTED)
    if not any(_name(item) == "113011" for item in ds.ContentSequence):
        raise VerificationFailed("KOS: the rejection has no reason.")
    wanted = {(item.sop_class_uid, item.sop_instance_uid) for item in superseded}
    said = {(str(x.ReferencedSOPClassUID), str(x.ReferencedSOPInstanceUID)) for x in _selected(ds)}
    listed = {
        (str(series.SeriesInstanceUID), str(x.ReferencedSOPClassUID), str(x.ReferencedSOPInstanceUID))
        for study in ds.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for x in series.ReferencedSOPSequence
    }
    if said != wanted:
        raise VerificationFailed("KOS: it rejects other objects than the superseded ones.")
    if listed != {(item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid) for item in superseded}:
        raise VerificationFailed("KOS: its evidence is not what it rejects.")
    studies = {str(study.StudyInstanceUID) for study in ds.CurrentRequestedProcedureEvidenceSequence}
    if studies != {SourceNames.of(result).study}:
        raise VerificationFailed("KOS: its evidence is of another study.")


def _check_title(ds: Dataset, title: str) -> None:
    if ds.ConceptNameCodeSequence[0].CodeValue != title:
        raise VerificationFailed("KOS: its title is another.")
    if ds.ContentTemplateSequence[0].TemplateIdentifier != "2010":
        raise VerificationFailed("KOS: it does not follow TID 2010.")


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _selected(ds: Dataset) -> list[Dataset]:
    items = [item for item in ds.ContentSequence if item.ValueType in ("IMAGE", "COMPOSITE", "WAVEFORM")]
    return [item.ReferencedSOPSequence[0] for item in items]


def _is_of_interest(result: Result, k: int) -> bool:
    findings = result.findings
    if any(detection.image == k for detection in findings.detections):
        return True
    if any(m.points and round(m.points[0][0]) == k for m in findings.measurements):
        return True
    if findings.shape is None or k >= findings.shape[0]:
        return False
    masks = (mask_on(findings, number, k) for number in range(1, len(findings.segments) + 1))
    return any(mask is not None and mask.any() for mask in masks)
