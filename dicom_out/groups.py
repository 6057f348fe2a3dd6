"""Measurement groups: the numbers and statements about one thing (PS3.16 TID 1410, 1411, 1501)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.uid import SegmentationStorage

from dicom_out import codes
from dicom_out.content import (
    CONTAINS,
    MODIFIES,
    OBSERVES,
    Item,
    code,
    composite,
    container,
    image,
    num,
    polyline,
    text,
    uidref,
)
from dicom_out.derived import Tracking, tracking, tracking_of
from dicom_out.kind import Order, Segmented
from dicom_out.lines import Line, Point, drawn_lines, rectangle
from dicom_out.segoptions import LABEL_MAP_STORAGE
from domain.codes import PERCENT, Code
from domain.engine import EngineManifest
from domain.findings import Detection, Evaluation, Measurement, SegmentDescription
from domain.image import Raster

_IMAGE_CLASSES = (SegmentationStorage, LABEL_MAP_STORAGE)
"""Drawings that are images: segmentations."""


def groups_of(order: Order) -> list[Item]:
    """Return the measurement groups, in the order of the findings.

    A segment with voxels has at least two under one tracking UID: the region with its measurements, and a line on one
    slice. OHIF shows only what has coordinates, merges groups by tracking UID, and fails on what has none: therefore
    a segment that was not found has no group, and for OHIF neither have numbers without a place (``statements_of``).
    """
    return [*_of_segments(order), *_of_series(order), *_of_detections(order)]


def _of_segments(order: Order) -> Iterator[Item]:
    manifest = order.result.manifest
    for number, segment in enumerate(order.result.findings.segments, start=1):
        if is_stated(order, number):
            continue
        tracked = tracking_of(order.result, order.source.series_instance_uid, number)
        subject, site = _subject(segment, tracked), _site(segment, manifest)
        lines, where = order.work.lines.get(number, ()), order.segmented.get(number)
        said = _said(order, segment.key)
        if where is not None and number in order.work.present:
            yield _region(order, where, lines, [*subject, *_source_of(order)], [*site, *algorithm(manifest), *said])
        elif said:
            items = [*subject, *_source_of(order), *site, *algorithm(manifest), *said]
            yield container(codes.MEASUREMENT_GROUP, items, template="1501")
        yield from (_planar(line, subject, [*site, *algorithm(manifest)]) for line in lines)


def is_stated(order: Order, number: int) -> bool:
    """Tell whether all that is known of a segment are statements, and no group."""
    has_region = number in order.work.present or bool(order.work.lines.get(number))
    return not has_region and (order.work.masks is not None or order.options.regionless == "statement")


def _of_series(order: Order) -> Iterator[Item]:
    """Yield what was measured in the series as a whole."""
    result, source = order.result, order.source
    subject = [*_tracked(tracking(source.series_instance_uid, result.manifest, "series"))]
    about = algorithm(result.manifest)
    numbers = _numbers(order, None)
    if numbers and order.options.regionless == "group":
        yield container(codes.MEASUREMENT_GROUP, [*subject, *about, *numbers], template="1501")
    yield from (_planar(line, subject, about) for line in drawn_lines(result, source, None))


def _of_detections(order: Order) -> Iterator[Item]:
    manifest, source = order.result.manifest, order.source
    for item in order.result.findings.detections:
        tracked = tracking(source.series_instance_uid, manifest, item.key)
        line = Line(
            points=rectangle(*item.box),
            image=source.images[item.image],
            slice_index=item.image,
            measured=_certainty(item),
        )
        site = [] if manifest.finding_site is None else [code(codes.FINDING_SITE, manifest.finding_site, MODIFIES)]
        yield _planar(line, _subject(item, tracked), [*site, *algorithm(manifest)])


def _certainty(item: Detection) -> Measurement | None:
    if item.probability is None:
        return None
    return Measurement(segment=None, concept=codes.CERTAINTY, value=100 * item.probability, unit=PERCENT)


def statements_of(order: Order) -> list[Item]:
    """Return what is said outside of measurement groups (TID 1500 rows 12 to 14).

    That is: statements about the whole series, what a model wrote, and, said explicitly, that something was looked
    for and not found, with everything the engine says about it. Each has the algorithm below it, since no group gives
    it.
    """
    findings, manifest = order.result.findings, order.result.manifest
    whole = [evaluated(e) for e in findings.evaluations if e.segment is None]
    if order.options.regionless == "statement":
        whole = [*_numbers(order, None), *whole]
    whole += [text(name, said) for name, said in _written(order) if said]
    if not (findings.segments or findings.detections or findings.measurements or whole):
        whole.append(code(codes.PRESENCE, codes.ABSENT))
    statements = [item.with_context(algorithm(manifest)) for item in whole]
    for number, segment in enumerate(findings.segments, start=1):
        if is_stated(order, number):
            tracked = tracking_of(order.result, order.source.series_instance_uid, number)
            subject = _subject(segment, tracked, relationship=MODIFIES)
            context = [*subject, *_site(segment, manifest), *algorithm(manifest)]
            statements += [item.with_context(context) for item in _stated(order, segment)]
    return statements


def _written(order: Order) -> tuple[tuple[Code, str], ...]:
    findings = order.result.findings
    return (codes.FINDING, findings.narrative), (codes.IMPRESSION, findings.impression)


def _stated(order: Order, segment: SegmentDescription) -> list[Item]:
    said = _said(order, segment.key)
    # Where there is no mask at all, nothing says that it is absent; the engine may have its own way to say it
    if order.work.masks is not None and not any(item.value_type == "CODE" for item in said):
        said.insert(0, code(codes.PRESENCE, codes.ABSENT))
    return said


def _region(order: Order, where: Segmented, lines: Sequence[Line], subject: list[Item], said: list[Item]) -> Item:
    """Return a group that refers to the segment: TID 1411, or TID 1410 on images without patient coordinates."""
    uids = where.sop_class_uid, where.sop_instance_uid
    if not isinstance(order.result.grid, Raster):
        region = [
            image(codes.REFERENCED_SEGMENT, *uids, segment=where.number),
            uidref(codes.SOURCE_SERIES_FOR_SEGMENTATION, order.source.series_instance_uid),
        ]
        return container(codes.MEASUREMENT_GROUP, [*subject, *region, *said], template="1411")
    k = order.work.fullest[where.of]
    shown = order.source.images[k]
    region = [
        _frame_of(where, k),
        image(
            codes.SOURCE_IMAGE_FOR_SEGMENTATION, shown.sop_class_uid, shown.sop_instance_uid, frame=shown.frame_number
        ),
    ]
    return container(codes.MEASUREMENT_GROUP, [*subject, *region, *said], template="1410")


def _frame_of(where: Segmented, k: int) -> Item:
    """Return a reference to the segment: its frame, or in a label map, whose frames hold all segments, its number.

    The two exclude each other (PS3.3 C.18.4).
    """
    uids = where.sop_class_uid, where.sop_instance_uid
    if where.sop_class_uid == LABEL_MAP_STORAGE:
        return image(codes.REFERENCED_SEGMENTATION_FRAME, *uids, segment=where.number)
    return image(codes.REFERENCED_SEGMENTATION_FRAME, *uids, frame=where.frames[k])


def _planar(line: Line, subject: Sequence[Item], about: Sequence[Item]) -> Item:
    """Return a TID 1410 Planar ROI group with a line, and what it measures."""
    uids = line.image.sop_class_uid, line.image.sop_instance_uid
    drawn = polyline(codes.IMAGE_REGION, _on_image(line), *uids, frame=line.image.frame_number)
    numbers = [] if line.measured is None else [_measured(line.measured)]
    return container(codes.MEASUREMENT_GROUP, [*subject, drawn, *about, *numbers], template="1410")


def _on_image(line: Line) -> tuple[Point, ...]:
    """Return the points as the image counts them: in a mosaic from its own corner, not from the tile's."""
    tile = line.image.tile
    return line.points if tile is None else tuple((x + tile.column, y + tile.row) for x, y in line.points)


def _subject(item: SegmentDescription | Detection, tracked: Tracking, relationship: str = CONTAINS) -> list[Item]:
    return [
        *_tracked(tracked),
        code(codes.FINDING_CATEGORY, item.category, relationship),
        code(codes.FINDING, item.type, relationship),
    ]


def _tracked(tracked: Tracking) -> list[Item]:
    return [
        text(codes.TRACKING_IDENTIFIER, tracked.identifier, OBSERVES),
        uidref(codes.TRACKING_UID, tracked.uid, OBSERVES),
    ]


def _source_of(order: Order) -> list[Item]:
    """Return a reference to the object in which somebody drew what the engine was pointed at."""
    drawing = None if order.result.prompt is None else order.result.prompt.drawing
    if drawing is None:
        return []
    refer = image if drawing.sop_class_uid in _IMAGE_CLASSES else composite
    return [refer(codes.SOURCE, drawing.sop_class_uid, drawing.sop_instance_uid)]


def _site(segment: SegmentDescription, manifest: EngineManifest) -> list[Item]:
    """Return the finding site with its side: the segment's region, else the engine's, else what was segmented."""
    site = segment.anatomic_region or manifest.finding_site or segment.type
    sides = [c for c in segment.type_modifiers if c.value in codes.SIDES]
    return [code(codes.FINDING_SITE, site, MODIFIES, [code(codes.LATERALITY, side, MODIFIES) for side in sides])]


def algorithm(manifest: EngineManifest) -> list[Item]:
    """Return TID 4019 Algorithm Identification."""
    return [
        text(codes.ALGORITHM_NAME, manifest.algorithm_name, MODIFIES),
        text(codes.ALGORITHM_VERSION, manifest.version, MODIFIES),
        text(codes.ALGORITHM_MANUFACTURER, manifest.manufacturer, MODIFIES),
        code(codes.ALGORITHM_FAMILY, manifest.algorithm_family, MODIFIES),
    ]


def _said(order: Order, segment: str) -> list[Item]:
    evaluations = order.result.findings.evaluations
    return _numbers(order, segment) + [evaluated(e) for e in evaluations if e.segment == segment]


def _numbers(order: Order, segment: str | None) -> list[Item]:
    """Return what was measured, but what a line shows."""
    found = order.result.findings.measurements
    return [_measured(item) for item in found if item.segment == segment and not item.points]


def _measured(measurement: Measurement) -> Item:
    derivation = [] if measurement.derivation is None else [code(codes.DERIVATION, measurement.derivation, MODIFIES)]
    return num(measurement.concept, measurement.value, measurement.unit, derivation)


def evaluated(evaluation: Evaluation) -> Item:
    """Return a qualitative evaluation, coded or as text."""
    value = evaluation.value
    return code(evaluation.concept, value) if isinstance(value, Code) else text(evaluation.concept, value)
