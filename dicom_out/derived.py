"""What the objects of one job have in common: UIDs, series, equipment, time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime, tzinfo

from pydicom.dataset import Dataset

from dicom_out.codes import PROCESSING_EQUIPMENT
from dicom_out.source import Source, string_values
from domain.codes import Code
from domain.engine import OWN_MANUFACTURER, EngineManifest, derived_uid
from domain.ports import Result

_SERIES_OF_ONE_ENGINE = 20
_ENGINES = 45
"""Of so many different series numbers."""


def instance_uid(job_id: str, variant: str, number: int = 1) -> str:
    """Return the SOP Instance UID of a job's object: the same job writes the same object."""
    return derived_uid("instance", variant, job_id, *([str(number)] if number > 1 else []))


def series_uid(job_id: str, variant: str) -> str:
    """Return the series UID of a job's object; each variant has a series of its own."""
    return derived_uid("series", variant, job_id)


@dataclass(frozen=True, slots=True)
class Tracking:
    """What ties a segment, its measurements and its line together, over re-runs and generations."""

    identifier: str
    uid: str


def tracking(series_instance_uid: str, manifest: EngineManifest, segment: str) -> Tracking:
    """Return the tracking pair of a segment: the same for every job of the engine on the same series."""
    return Tracking(
        f"{manifest.name} {segment}"[:64], derived_uid("tracking", series_instance_uid, manifest.name, segment)
    )


def tracking_of(result: Result, series_instance_uid: str, number: int) -> Tracking:
    """Return the tracking pair of segment ``number``, from 1: that of the drawing it was pointed at by, if any."""
    own = tracking(series_instance_uid, result.manifest, result.findings.segments[number - 1].key)
    prompt = result.prompt
    if prompt is None or len(prompt.objects) < number or not prompt.objects[number - 1].tracking_uid:
        return own
    drawn = prompt.objects[number - 1]
    return Tracking(drawn.tracking_identifier or own.identifier, drawn.tracking_uid)


def code_item(code: Code) -> Dataset:
    """Return a Code Sequence item (PS3.3 Section 8); long values have an attribute of their own."""
    item = Dataset()
    keyword = "CodeValue" if len(code.value) <= 16 else "LongCodeValue"
    setattr(item, keyword, code.value)
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning[:64]
    return item


def empty_object(
    result: Result,
    source: Source,
    *,
    kind: str,
    modality: str,
    series_offset: int,
    number: int,
    software_version: str,
    zone: tzinfo | None,
) -> Dataset:
    """Return series, equipment and time of an object; identity and content are added by its writer.

    Parameters
    ----------
    kind
        Name of the variant, from which UIDs are derived.
    number
        Which instance of the series, from 1.
    """
    manifest, started = result.manifest, local_time(result.started_at, source.header, zone)
    ds = Dataset()
    ds.Modality = modality
    ds.SOPInstanceUID = instance_uid(result.job_id, kind, number)
    ds.SeriesInstanceUID = series_uid(result.job_id, kind)
    ds.SeriesNumber = _series_number(source.header, manifest.name) + series_offset
    ds.SeriesDescription = f"AI {OWN_MANUFACTURER} {manifest.title}"[:64]
    ds.InstanceNumber = number
    day, time = started.strftime("%Y%m%d"), started.strftime("%H%M%S")
    ds.InstanceCreationDate = ds.SeriesDate = ds.ContentDate = day
    ds.InstanceCreationTime = ds.SeriesTime = ds.ContentTime = time
    ds.Manufacturer = OWN_MANUFACTURER
    ds.ManufacturerModelName = manifest.title[:64]
    ds.DeviceSerialNumber = manifest.device_uid
    ds.SoftwareVersions = _versions(manifest, software_version)
    ds.ContributingEquipmentSequence = [_contribution(manifest, software_version, started)]
    schemes = private_schemes(result)
    if schemes:
        ds.CodingSchemeIdentificationSequence = schemes
    return ds


def local_time(moment: datetime, header: Dataset, zone: tzinfo | None) -> datetime:
    """Return ``moment`` as the dates of the source are meant.

    With Timezone Offset From UTC every date of an object is in that zone (PS3.3 C.12.1.1.8), the copied ones too;
    without it dates are local, as the acquisition's were.
    """
    declared = string_values(header, "TimezoneOffsetFromUTC")
    if declared:
        return moment.astimezone(datetime.strptime(declared[0], "%z").tzinfo)
    return moment.astimezone(zone)


def _series_number(header: Dataset, engine: str) -> int:
    """Return a number that lists the result beside its source, behind all that was acquired, and by engine."""
    digits = (string_values(header, "SeriesNumber") or ["0"])[0]
    base = int(digits) % 100_000 if digits.isdecimal() else 0
    return base * 1000 + 100 + _SERIES_OF_ONE_ENGINE * (zlib.crc32(engine.encode()) % _ENGINES)


def _versions(manifest: EngineManifest, software_version: str) -> list[str]:
    return [manifest.version, f"{OWN_MANUFACTURER} {software_version}"]


def _contribution(manifest: EngineManifest, software_version: str, started: datetime) -> Dataset:
    """Return the algorithm as contributing equipment (IHE AIR: its Device UID names the very model)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(PROCESSING_EQUIPMENT)]
    item.Manufacturer = OWN_MANUFACTURER
    item.ManufacturerModelName = manifest.title[:64]
    item.SoftwareVersions = _versions(manifest, software_version)
    item.DeviceSerialNumber = manifest.device_uid
    item.DeviceUID = manifest.device_uid
    item.ContributionDateTime = started.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = f"{manifest.algorithm_name} {manifest.version}"
    return item


def codes_of(result: Result) -> list[Code]:
    """Return every code of the engine that an object of this result may hold."""
    manifest, findings = result.manifest, result.findings
    codes: list[Code | str | None] = [manifest.algorithm_family, manifest.finding_site]
    for segment in findings.segments:
        codes += [segment.category, segment.type, *segment.type_modifiers, segment.anatomic_region]
    for measurement in findings.measurements:
        codes += [measurement.concept, measurement.unit, measurement.derivation]
    for evaluation in findings.evaluations:
        codes += [evaluation.concept, evaluation.value]
    for detection in findings.detections:
        codes += [detection.category, detection.type]
    return [code for code in codes if isinstance(code, Code)]


def own_texts(result: Result) -> list[str]:
    """Return every text of ours that an object of this result may hold; they choose its character set."""
    manifest, findings = result.manifest, result.findings
    said = [evaluation.value for evaluation in findings.evaluations if isinstance(evaluation.value, str)]
    names = [text for segment in findings.segments for text in (segment.key, segment.label)]
    about = [manifest.name, manifest.title, manifest.version, manifest.algorithm_name, manifest.manufacturer]
    names += [item.label for item in findings.measurements]
    names += [text for item in findings.detections for text in (item.key, item.label)]
    drawn = [] if result.prompt is None else [item.tracking_identifier for item in result.prompt.objects]
    texts = [*about, *names, *drawn, *said, findings.narrative, findings.impression]
    return [*texts, *(code.meaning for code in codes_of(result))]


def private_schemes(result: Result) -> list[Dataset]:
    """Return items of Coding Scheme Identification Sequence: who answers for private codes (PS3.3 C.12.1.1.1)."""
    items = []
    for scheme in sorted({code.scheme for code in codes_of(result) if code.scheme.startswith("99")}):
        item = Dataset()
        item.CodingSchemeDesignator = scheme
        item.CodingSchemeName = f"Private codes of {result.manifest.manufacturer}"[:64]
        item.CodingSchemeResponsibleOrganization = result.manifest.manufacturer
        items.append(item)
    return items
