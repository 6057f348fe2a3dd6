"""Coded concepts of the result objects (PS3.16 Annex D, CID 6, 218, 240, 7005, 7201)."""

from __future__ import annotations

from domain.codes import Code


def dcm(value: str, meaning: str) -> Code:
    """Return a concept of the DICOM controlled terminology."""
    return Code(value, "DCM", meaning)


def sct(value: str, meaning: str) -> Code:
    """Return a concept of the SNOMED CT subset of DICOM."""
    return Code(value, "SCT", meaning)


# Segmentation
BACKGROUND = dcm("125040", "Background")
SEGMENTATION = dcm("113076", "Segmentation")
SPATIAL_RESAMPLING = dcm("113085", "Spatial resampling")
QUANTITY = sct("246205007", "Quantity")
PROBABILITY = dcm("110854", "Fractional Probabilistic Segmentation")
RATIO = Code("{ratio}", "UCUM", "ratio")
SOURCE_IMAGE_FOR_PROCESSING = dcm("121322", "Source Image for Image Processing Operation")
PROCESSING_EQUIPMENT = dcm("109102", "Processing Equipment")

# Key objects and encapsulated documents (CID 7010, 7011, TID 2010)
OF_INTEREST = dcm("113000", "Of Interest")
REJECTED_FOR_QUALITY = dcm("113001", "Rejected for Quality Reasons")
DOCUMENT_TITLE_MODIFIER = dcm("113011", "Document Title Modifier")
KEY_OBJECT_DESCRIPTION = dcm("113012", "Key Object Description")
OTHER_FAILURE = dcm("111220", "Other failure")
DIAGNOSTIC_IMAGING_REPORT = Code("18748-4", "LN", "Diagnostic imaging report")

# Root and context of a report (TID 1500, 1001, 1004, 1600)
IMAGING_MEASUREMENT_REPORT = dcm("126000", "Imaging Measurement Report")
LANGUAGE = dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE = dcm("121005", "Observer Type")
DEVICE = dcm("121007", "Device")
DEVICE_OBSERVER_UID = dcm("121012", "Device Observer UID")
DEVICE_OBSERVER_NAME = dcm("121013", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER = dcm("121014", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL = dcm("121015", "Device Observer Model Name")
DEVICE_OBSERVER_SERIAL = dcm("121016", "Device Observer Serial Number")
PROCEDURE_REPORTED = dcm("121058", "Procedure reported")
IMAGE_LIBRARY = dcm("111028", "Image Library")
IMAGE_LIBRARY_GROUP = dcm("126200", "Image Library Group")
MODALITY = dcm("121139", "Modality")
FRAME_OF_REFERENCE = dcm("112227", "Frame of Reference UID")
SOURCE = sct("260753009", "Source")

# Measurement groups (TID 1410, 1411, 1501, 4019)
IMAGING_MEASUREMENTS = dcm("126010", "Imaging Measurements")
MEASUREMENT_GROUP = dcm("125007", "Measurement Group")
TRACKING_IDENTIFIER = dcm("112039", "Tracking Identifier")
TRACKING_UID = dcm("112040", "Tracking Unique Identifier")
FINDING_CATEGORY = sct("276214006", "Finding category")
FINDING = dcm("121071", "Finding")
FINDING_SITE = sct("363698007", "Finding Site")
LATERALITY = sct("272741003", "Laterality")
REFERENCED_SEGMENT = dcm("121191", "Referenced Segment")
SOURCE_SERIES_FOR_SEGMENTATION = dcm("121232", "Source series for segmentation")
REFERENCED_SEGMENTATION_FRAME = dcm("121214", "Referenced Segmentation Frame")
SOURCE_IMAGE_FOR_SEGMENTATION = dcm("121233", "Source image for segmentation")
CERTAINTY = dcm("111012", "Certainty of Finding")
IMAGE_REGION = dcm("111030", "Image Region")
SOURCE_IMAGE = dcm("121324", "Source Image")
DERIVATION = dcm("121401", "Derivation")
ALGORITHM_NAME = dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = dcm("111003", "Algorithm Version")
ALGORITHM_MANUFACTURER = dcm("122405", "Algorithm Manufacturer")
ALGORITHM_FAMILY = dcm("111000", "Algorithm Family")
LONG_AXIS = sct("103339001", "Long Axis")
VOLUME = sct("118565006", "Volume")
PRESENCE = dcm("121052", "Presence of property")
ABSENT = sct("272519000", "Absent")

# A report in words (TID 2000, CID 7001, 7002)
DIAGNOSTIC_IMAGING_REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
PROCEDURE_DESCRIPTIONS = dcm("121064", "Current Procedure Descriptions")
PROCEDURE_DESCRIPTION = dcm("121065", "Procedure Description")
FINDINGS = dcm("121070", "Findings")
IMPRESSIONS = dcm("121072", "Impressions")
IMPRESSION = dcm("121073", "Impression")

QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")

SIDES = frozenset({"7771000", "24028007", "51440002", "66459002"})
"""CID 244: left, right, bilateral, unilateral (SCT)."""

MODALITIES = {
    "1.2.840.10008.5.1.4.1.1.2": dcm("CT", "Computed Tomography"),
    "1.2.840.10008.5.1.4.1.1.2.1": dcm("CT", "Computed Tomography"),
    "1.2.840.10008.5.1.4.1.1.2.2": dcm("CT", "Computed Tomography"),
    "1.2.840.10008.5.1.4.1.1.4": dcm("MR", "Magnetic Resonance"),
    "1.2.840.10008.5.1.4.1.1.4.1": dcm("MR", "Magnetic Resonance"),
    "1.2.840.10008.5.1.4.1.1.4.4": dcm("MR", "Magnetic Resonance"),
    "1.2.840.10008.5.1.4.1.1.128": dcm("PT", "Positron emission tomography"),
    "1.2.840.10008.5.1.4.1.1.128.1": dcm("PT", "Positron emission tomography"),
    "1.2.840.10008.5.1.4.1.1.130": dcm("PT", "Positron emission tomography"),
}
"""CID 29, by SOP Class of the source."""

PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
    **{
        modality: Code("43468-8", "LN", "XR unspecified body region")
        for modality in ("CR", "DX", "MG", "XR", "RG", "RF", "XA", "IO", "PX")
    },
}
"""CID 100: what was imaged where the source does not say, by modality."""
IMAGING_PROCEDURE = sct("363679005", "Imaging procedure")
"""CID 100: of every other modality."""
MODALITY_CODES = {
    code.value: code
    for code in (
        dcm("CR", "Computed Radiography"),
        dcm("DX", "Digital Radiography"),
        dcm("MG", "Mammography"),
        dcm("US", "Ultrasound"),
        dcm("XC", "External-camera Photography"),
        dcm("DMS", "Dermoscopy"),
        dcm("ES", "Endoscopy"),
        dcm("GM", "General Microscopy"),
        dcm("OP", "Ophthalmic Photography"),
        dcm("RF", "Radiofluoroscopy"),
        dcm("XA", "X-Ray Angiography"),
        dcm("NM", "Nuclear Medicine"),
        dcm("RG", "Radiographic imaging"),
        dcm("IO", "Intra-oral Radiography"),
        dcm("PX", "Panoramic X-Ray"),
    )
}
"""CID 29, by the Modality of the source where its SOP Class does not say it."""
