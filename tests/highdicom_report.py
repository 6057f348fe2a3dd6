"""The report of a volume's findings as highdicom writes it, by its templates and from the same findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_out.lines import Line
from domain.codes import Code
from domain.engine import EngineManifest, derived_uid
from domain.findings import Measurement, SegmentDescription
from domain.ports import Result

CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
ACQUIRES = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_SOURCE = Code("260753009", "SCT", "Source")
_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


def highdicom_report(
    result: Result,
    sources: Sequence[Dataset],
    seg: Dataset,
    lines: Mapping[int, Sequence[Line]],
    *,
    procedure: Code,
    language: Code,
) -> hd.sr.Comprehensive3DSR:
    """Return TID 1500 about segments that all have voxels, with a line for each.

    Parameters
    ----------
    sources
        Headers, one for each slice.
    seg
        Header of the segmentation, whose segments are numbered as the findings'.
    lines
        What is drawn of each segment.
    """
    groups = [
        group
        for number, segment in enumerate(result.findings.segments, start=1)
        for group in _groups(number, segment, result, sources, seg, lines[number])
    ]
    report = hd.sr.MeasurementReport(
        observation_context=_observer(result.manifest),
        procedure_reported=_coded(procedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(_coded(language)),
    )
    root = report[0]
    at = next(i for i, item in enumerate(root.ContentSequence) if item.name == codes.DCM.ImagingMeasurements)
    root.ContentSequence.insert(at, _library(sources))
    root.ContentSequence.append(_whole(result))
    return hd.sr.Comprehensive3DSR(
        evidence=[*sources, seg],
        content=root,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        is_complete=True,
    )


def _coded(code: Code) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _observer(manifest: EngineManifest) -> hd.sr.ObservationContext:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=manifest.device_uid,
        name=f"Voxgate {manifest.name}",
        manufacturer_name="Voxgate",
        model_name=manifest.title,
        serial_number=manifest.device_uid,
    )
    context = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return hd.sr.ObservationContext(observer_device_context=context)


def _groups(
    number: int,
    segment: SegmentDescription,
    result: Result,
    sources: Sequence[Dataset],
    seg: Dataset,
    lines: Sequence[Line],
) -> Iterator[Any]:
    series, manifest = str(sources[0].SeriesInstanceUID), result.manifest
    findings = result.findings
    about: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            derived_uid("tracking", series, manifest.name, segment.key), f"{manifest.name} {segment.key}"
        ),
        "finding_category": _coded(segment.category),
        "finding_type": _coded(segment.type),
        "finding_sites": [_site(segment, manifest)],
        "algorithm_id": _algorithm(manifest),
    }
    yield hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **about,
        referenced_segment=hd.sr.ReferencedSegment(
            seg.SOPClassUID, seg.SOPInstanceUID, number, source_series=hd.sr.SourceSeriesForSegmentation(series)
        ),
        measurements=[_measured(item) for item in findings.measurements if item.segment == segment.key],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(_coded(item.concept), _coded(item.value))
            for item in findings.evaluations
            if item.segment == segment.key and isinstance(item.value, Code)
        ],
    )
    for line in lines:
        image = hd.sr.SourceImageForRegion(line.image.sop_class_uid, line.image.sop_instance_uid)
        yield hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            **about,
            referenced_region=hd.sr.ImageRegion("POLYLINE", np.array(line.points), image),
            measurements=[] if line.measured is None else [_measured(line.measured)],
        )


def _site(segment: SegmentDescription, manifest: EngineManifest) -> hd.sr.FindingSite:
    site = segment.anatomic_region or manifest.finding_site or segment.type
    return hd.sr.FindingSite(_coded(site), laterality=_coded(segment.type_modifiers[0]))


def _algorithm(manifest: EngineManifest) -> hd.sr.AlgorithmIdentification:
    return hd.sr.AlgorithmIdentification(
        name=manifest.algorithm_name,
        version=manifest.version,
        manufacturer=manifest.manufacturer,
        family=_coded(manifest.algorithm_family),
    )


def _measured(item: Measurement) -> hd.sr.Measurement:
    derivation = None if item.derivation is None else _coded(item.derivation)
    return hd.sr.Measurement(_coded(item.concept), item.value, _coded(item.unit), derivation=derivation)


def _library(sources: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    """Return TID 1600 without what highdicom adds to each image: its size, spacing, position and orientation."""
    group = hd.sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=CONTAINS)
    shared = hd.sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, sources[0].FrameOfReferenceUID, ACQUIRES)
    modality = hd.sr.CodeContentItem(codes.DCM.Modality, codes.cid29.ComputedTomography, ACQUIRES)
    group.ContentSequence = hd.sr.ContentSequence([modality, shared])
    for source in sources:
        entry = hd.sr.ImageContentItem(
            _coded(_SOURCE), source.SOPClassUID, source.SOPInstanceUID, relationship_type=CONTAINS
        )
        group.ContentSequence.append(entry)
    library = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def _whole(result: Result) -> hd.sr.ContainerContentItem:
    """Return statements about the whole series, with the algorithm below each."""
    whole = hd.sr.ContainerContentItem(_coded(_EVALUATIONS), relationship_type=CONTAINS)
    whole.ContentSequence = hd.sr.ContentSequence()
    for item in result.findings.evaluations:
        if item.segment is None:
            said = hd.sr.TextContentItem(_coded(item.concept), str(item.value), CONTAINS)
            said.ContentSequence = hd.sr.ContentSequence(_algorithm(result.manifest))
            whole.ContentSequence.append(said)
    return whole
