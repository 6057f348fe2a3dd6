"""Attributes that several kinds of objects have from their source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydicom.dataset import Dataset

from dicom_out.derived import code_item
from dicom_out.source import Source, SourceImage, string_values
from domain.codes import Code

_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
_UNPAIRED = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "COCCYX",
        "CSPINE", "CTSPINE", "ESOPHAGUS", "HEAD", "HEADNECK", "HEART", "LARYNX", "LIVER", "LSPINE", "LSSPINE",
        "MEDIASTINUM", "NECK", "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "NOSE", "PANCREAS", "PELVIS",
        "PROSTATE", "SKULL", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "THORAX", "THYROID", "TLSPINE",
        "TRACHEA", "TSPINE", "UTERUS", "WHOLEBODY",
    }
)  # fmt: skip
"""Body parts that are not paired (PS3.16 Annex L)."""


def describe_body_part(ds: Dataset, header: Dataset, *, has_side: bool = True) -> None:
    """Copy the body part and, where such an object has one, its side (PS3.3 C.7.3.1).

    Laterality is absent where the part is not a paired one, and empty where the source does not say the side, or not
    the part: what is not known to be unpaired is not ours to guess.
    """
    part = string_values(header, "BodyPartExamined")
    if part:
        ds.BodyPartExamined = part[0]
    if not has_side or (part and part[0] in _UNPAIRED):
        return
    side = string_values(header, "Laterality") or string_values(header, "ImageLaterality")
    ds.Laterality = side[0] if side and side[0] in ("L", "R") else ""


def describe_loss(ds: Dataset, source: Source) -> None:
    """Say of what is derived from images that one of them was compressed with loss (PS3.3 C.7.6.1.1.5)."""
    lossy = any(image.is_lossy for image in source.images)
    ds.LossyImageCompression = "01" if lossy else "00"
    for keyword in _LOSSY:
        values = string_values(source.header, keyword)
        if lossy and values:
            setattr(ds, keyword, values)


def describe_annotation(ds: Dataset, source: Source) -> None:
    """Say of what shows a source's images that it may identify the patient (PS3.3 C.7.6.1, C.24.2).

    Whatever the source has burned in is in it: BurnedInAnnotation is YES, even where the source says NO.
    """
    ds.BurnedInAnnotation = "YES"
    if any(image.is_recognizable for image in source.images):
        ds.RecognizableVisualFeatures = "YES"


def reference(image: SourceImage, purpose: Code | None = None) -> Dataset:
    """Return a reference to a source image or frame (PS3.3 Table 10-3)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    if image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    if purpose is not None:
        item.PurposeOfReferenceCodeSequence = [code_item(purpose)]
    return item


def instance_of(image: SourceImage, frame: int | None = None) -> Dataset:
    """Return a reference to a source instance, or to one frame of it."""
    item = _instance(image.sop_class_uid, image.sop_instance_uid)
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def describe_references(ds: Dataset, source: Source, instances: Iterable[tuple[str, str]]) -> None:
    """Common Instance Reference Module (PS3.3 C.12.2): without it viewers do not find what is referred to."""
    homes = source.by_series(instances)
    ds.ReferencedSeriesSequence = _referenced(homes.pop(source.study_instance_uid))
    others = []
    for uid, series in homes.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = uid, _referenced(series)
        others.append(item)
    if not ds.ReferencedSeriesSequence:
        del ds.ReferencedSeriesSequence
    if others:
        ds.StudiesContainingOtherReferencedInstancesSequence = others


def _referenced(series: Mapping[str, Sequence[tuple[str, str]]]) -> list[Dataset]:
    items = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = [_instance(*uids) for uids in instances]
        items.append(item)
    return items


def evidence(source: Source, instances: Iterable[tuple[str, str]]) -> list[Dataset]:
    """Return the items of Current Requested Procedure Evidence Sequence, one a study (PS3.3 C.17.2)."""
    return [
        study(uid, [series_item(name, listed) for name, listed in series.items()])
        for uid, series in source.by_series(instances).items()
        if series
    ]


def series_item(uid: str, instances: Iterable[tuple[str, str]]) -> Dataset:
    """Return a series with its instances, as documents list them (PS3.3 Table C.17-3a)."""
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedSOPSequence = [_instance(*uids) for uids in dict.fromkeys(instances)]
    return item


def study(uid: str, series: list[Dataset]) -> Dataset:
    """Return a study with its series."""
    item = Dataset()
    item.StudyInstanceUID, item.ReferencedSeriesSequence = uid, series
    return item


def _instance(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item
