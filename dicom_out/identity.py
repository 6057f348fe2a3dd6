"""Identity of derived objects: whose they are and what study they belong to, copied byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from dicom_out.encoding import element, encoded, tag_of
from dicom_out.source import decoded, raw_value, string_values
from volume.charset import UNICODE

_ALWAYS = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip
"""Type 1 and 2 of the Patient and General Study Modules (PS3.3 C.7.1.1, C.7.2.1)."""
_WHERE_PRESENT = (
    "StudyDescription", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthTime", "OtherPatientNames",
    "PatientAge", "PatientSize", "PatientWeight", "AdmissionID", "TimezoneOffsetFromUTC",
    # Not human (PS3.3 C.7.1.1): required together
    "PatientSpeciesDescription", "PatientBreedDescription", "PatientSexNeutered", "ResponsiblePerson",
    "ResponsiblePersonRole", "ResponsibleOrganization",
    # How the source was de-identified holds for what is derived from it
    "PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified",
)  # fmt: skip
_CLINICAL_TRIAL = (
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
)  # fmt: skip
"""Clinical Trial Subject Module (PS3.3 C.7.1.3): all or none."""
_SEQUENCES = (
    "IssuerOfAccessionNumberSequence", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "PatientSpeciesCodeSequence", "PatientBreedCodeSequence", "BreedRegistrationSequence",
    "DeidentificationMethodCodeSequence", "ProcedureCodeSequence",
)  # fmt: skip


def character_set(header: Dataset, own_texts: Sequence[str]) -> tuple[str, ...]:
    """Return the character set of an object derived from ``header``; empty for the default repertoire.

    It is the source's, so that names and identifiers keep their bytes, by which peers compare them, unless a text of
    ours needs another: then everything is written in Unicode. (DCMTK warns of a report with code extensions, as in
    Japan, and reads it; a patient whose name differs between objects of a study is worse.)
    """
    if all(text.isascii() for text in own_texts):
        return tuple(string_values(header, "SpecificCharacterSet"))
    return UNICODE


def identity(header: Dataset, declared: tuple[str, ...]) -> dict[int, bytes]:
    """Return the encoded identity attributes, Specific Character Set among them, by tag.

    Parameters
    ----------
    header
        As ``source.source_header`` returns it.
    declared
        As ``character_set`` returns it.
    """
    keywords = [*_ALWAYS, *(k for k in _WHERE_PRESENT if (raw_value(header, k) or b"").strip(b" \0"))]
    if string_values(header, "ClinicalTrialSponsorName") and string_values(header, "ClinicalTrialProtocolID"):
        keywords += [keyword for keyword in _CLINICAL_TRIAL if keyword in header]
    same = declared == tuple(string_values(header, "SpecificCharacterSet"))
    copied = {tag_of(keyword): _copied(header, keyword, None if same else declared) for keyword in keywords}
    for keyword in _SEQUENCES:
        if keyword in header and header[keyword].value:
            copied[tag_of(keyword)] = encoded(header[keyword], declared)
    if declared:
        copied[tag_of("SpecificCharacterSet")] = element("SpecificCharacterSet", "\\".join(declared).encode("ascii"))
    return copied


def _copied(header: Dataset, keyword: str, declared: tuple[str, ...] | None) -> bytes:
    """Return an attribute with its bytes as they are, or decoded and written in ``declared``."""
    raw = raw_value(header, keyword)
    if raw is not None and declared is None:
        return element(keyword, raw)
    return encoded(decoded(header, keyword), declared or character_set(header, ()))
