"""Measurement groups: one segment's numbers and statements (PS3.16 TID 1410, 1411, 1501)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from dicom_out import codes
from dicom_out.content import CONTAINS, MODIFIES, OBSERVES, code, container, image, num, polyline, text, uidref
from dicom_out.derived import Tracking, tracking
from dicom_out.source import Source, SourceImage
from domain.codes import MILLIMETRE, Code
from domain.engine import EngineManifest
from domain.findings import Evaluation, Measurement, SegmentDescription
from domain.ports import Result
from volume.diameters import LongAxis

if TYPE_CHECKING:
    from dicom_out.kind import Segmented


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The long axis of a segment and the slice on which it lies."""

    axis: LongAxis
    image: SourceImage


def groups_of(
    result: Result, source: Source, lines: Mapping[int, Line], segmented: Mapping[int, Segmented]
) -> list[Dataset]:
    """Return the measurement groups of the segments.

    A segment with voxels has two under one tracking UID: the volume with its measurements, and the long axis on one
    slice. OHIF shows only what has coordinates, merges groups by tracking UID, and fails on a group without any:
    therefore a segment that was not found has no group (see ``statements_of``). Only where an engine gives no masks
    at all its numbers are in groups without a region.

    Parameters
    ----------
    lines
        By segment number; a segment without voxels has none.
    segmented
        Where each segment lies in the SEG that goes with the report; empty where none does, and then the numbers of a
        segment are in a group without a region.
    """
    groups = []
    for number, segment in enumerate(result.findings.segments, start=1):
        tracked = tracking(source.series_instance_uid, result.manifest, segment.key)
        if number in lines:
            if number in segmented:
                groups.append(_volumetric(result, source, segmented[number], segment, tracked))
            else:
                groups.append(_without_region(result, segment, tracked))
            groups.append(_planar(result.manifest, segment, tracked, lines[number]))
        elif result.findings.labels is None:
            groups.append(_without_region(result, segment, tracked))
    return groups


def statements_of(result: Result, source: Source, lines: Mapping[int, Line]) -> list[Dataset]:
    """Return what is said outside of measurement groups (TID 1500 rows 12 to 14).

    That is: statements about the whole series, the narrative, and, said explicitly, that something was looked for and
    not found, with everything the engine says about it. Each has the algorithm below it, since no group gives it.
    """
    findings, manifest = result.findings, result.manifest
    whole = [evaluated(e) for e in findings.evaluations if e.segment is None]
    if findings.narrative:
        whole.append(text(codes.FINDING, findings.narrative))
    if not findings.segments and not whole:
        whole.append(code(codes.PRESENCE, codes.ABSENT))
    statements = [_about(item, algorithm(manifest)) for item in whole]
    for number, segment in enumerate(findings.segments, start=1):
        if number in lines or findings.labels is None:
            continue
        tracked = tracking(source.series_instance_uid, manifest, segment.key)
        subject = _subject(segment, tracked, relationship=MODIFIES)
        context = [*subject, *_site(segment, manifest), *algorithm(manifest)]
        said = _said(result, segment)
        if not any(item.ValueType == "CODE" for item in said):  # the engine may have its own way to say it
            said.insert(0, code(codes.PRESENCE, codes.ABSENT))
        statements += [_about(item, context) for item in said]
    return statements


def _about(item: Dataset, context: list[Dataset]) -> Dataset:
    """Return a statement with what it is about below it."""
    item.ContentSequence = [*context, *item.get("ContentSequence", ())]
    return item


def _volumetric(
    result: Result, source: Source, segmented: Segmented, segment: SegmentDescription, tracked: Tracking
) -> Dataset:
    """Return a TID 1411 Volumetric ROI group that refers to the segment."""
    region = [
        image(
            codes.REFERENCED_SEGMENT, segmented.sop_class_uid, segmented.sop_instance_uid, segment=segmented.number
        ),
        uidref(codes.SOURCE_SERIES_FOR_SEGMENTATION, source.series_instance_uid),
    ]
    stated = _said(result, segment)
    items = [*_subject(segment, tracked), *region, *_site(segment, result.manifest), *algorithm(result.manifest)]
    return container(codes.MEASUREMENT_GROUP, [*items, *stated], template="1411")


def _planar(manifest: EngineManifest, segment: SegmentDescription, tracked: Tracking, line: Line) -> Dataset:
    """Return a TID 1410 Planar ROI group with the long axis."""
    uids = line.image.sop_class_uid, line.image.sop_instance_uid
    drawn = polyline(codes.IMAGE_REGION, line.axis.ends, *uids, frame=line.image.frame_number)
    items = [*_subject(segment, tracked), drawn, *_site(segment, manifest), *algorithm(manifest)]
    length = num(codes.LONG_AXIS, line.axis.length_mm, MILLIMETRE)
    return container(codes.MEASUREMENT_GROUP, [*items, length], template="1410")


def _without_region(result: Result, segment: SegmentDescription, tracked: Tracking) -> Dataset:
    """Return a TID 1501 group: an engine without masks says something about a structure."""
    items = [*_subject(segment, tracked), *_site(segment, result.manifest), *algorithm(result.manifest)]
    return container(codes.MEASUREMENT_GROUP, [*items, *_said(result, segment)], template="1501")


def _subject(segment: SegmentDescription, tracked: Tracking, relationship: str = CONTAINS) -> list[Dataset]:
    return [
        text(codes.TRACKING_IDENTIFIER, tracked.identifier, OBSERVES),
        uidref(codes.TRACKING_UID, tracked.uid, OBSERVES),
        code(codes.FINDING_CATEGORY, segment.category, relationship),
        code(codes.FINDING, segment.type, relationship),
    ]


def _site(segment: SegmentDescription, manifest: EngineManifest) -> list[Dataset]:
    """Return the finding site with its side: the segment's region, else the engine's, else what was segmented."""
    site = segment.anatomic_region or manifest.finding_site or segment.type
    sides = [c for c in segment.type_modifiers if c.value in codes.SIDES]
    return [code(codes.FINDING_SITE, site, MODIFIES, [code(codes.LATERALITY, side, MODIFIES) for side in sides])]


def algorithm(manifest: EngineManifest) -> list[Dataset]:
    """Return TID 4019 Algorithm Identification."""
    return [
        text(codes.ALGORITHM_NAME, manifest.algorithm_name, MODIFIES),
        text(codes.ALGORITHM_VERSION, manifest.version, MODIFIES),
        text(codes.ALGORITHM_MANUFACTURER, manifest.manufacturer, MODIFIES),
        code(codes.ALGORITHM_FAMILY, manifest.algorithm_family, MODIFIES),
    ]


def _said(result: Result, segment: SegmentDescription) -> list[Dataset]:
    measured = [_measured(m) for m in result.findings.measurements if m.segment == segment.key]
    return measured + [evaluated(e) for e in result.findings.evaluations if e.segment == segment.key]


def _measured(measurement: Measurement) -> Dataset:
    derivation = [] if measurement.derivation is None else [code(codes.DERIVATION, measurement.derivation, MODIFIES)]
    return num(measurement.concept, measurement.value, measurement.unit, derivation)


def evaluated(evaluation: Evaluation) -> Dataset:
    """Return a qualitative evaluation, coded or as text."""
    value = evaluation.value
    return code(evaluation.concept, value) if isinstance(value, Code) else text(evaluation.concept, value)
