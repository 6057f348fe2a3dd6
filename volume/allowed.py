"""What is read of a header for the context of a stack: the whole list. What is not in it never reaches a model."""

from __future__ import annotations

from collections.abc import Mapping

_SHARED = "SharedFunctionalGroupsSequence"
_REQUEST = "RequestAttributesSequence"

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "patient_age_y": ("PatientAge",),
    "patient_sex": ("PatientSex",),
    "patient_height_m": ("PatientSize",),
    "patient_weight_kg": ("PatientWeight",),
    "indication": (
        "ReasonForStudy",
        "ReasonForTheRequestedProcedure",
        f"{_REQUEST}.ReasonForTheRequestedProcedure",
        "RequestedProcedureDescription",
        f"{_REQUEST}.RequestedProcedureDescription",
        "AdmittingDiagnosesDescription",
        "AdditionalPatientHistory",
    ),
    "indication_codes": (
        "ReasonForRequestedProcedureCodeSequence",
        f"{_REQUEST}.ReasonForRequestedProcedureCodeSequence",
        "AdmittingDiagnosesCodeSequence",
    ),
    "modality": ("Modality",),
    "body_part_examined": ("BodyPartExamined",),
    "body_part": ("AnatomicRegionSequence", f"{_SHARED}.FrameAnatomySequence.AnatomicRegionSequence"),
    "laterality": ("ImageLaterality", "Laterality", f"{_SHARED}.FrameAnatomySequence.FrameLaterality"),
    "view_position": ("ViewPosition",),
    "view": ("ViewCodeSequence",),
    "patient_position": ("PatientPosition",),
    "contrast_agent": ("ContrastBolusAgent",),
    "contrast_agent_codes": ("ContrastBolusAgentSequence",),
    "contrast_phase": (f"{_SHARED}.ContrastBolusUsageSequence.ContrastBolusAgentPhase",),
    "convolution_kernel": ("ConvolutionKernel", f"{_SHARED}.CTReconstructionSequence.ConvolutionKernel"),
    "tube_voltage_kv": ("KVP", f"{_SHARED}.CTXRayDetailsSequence.KVP"),
    "slice_thickness_mm": ("SliceThickness", f"{_SHARED}.PixelMeasuresSequence.SliceThickness"),
    "magnetic_field_strength_t": ("MagneticFieldStrength",),
    "manufacturer": ("Manufacturer",),
    "manufacturer_model_name": ("ManufacturerModelName",),
    "pixel_spacing_mm": (
        "PixelSpacing",
        f"{_SHARED}.PixelMeasuresSequence.PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
    ),
    "pixel_spacing_origin": ("PixelSpacingCalibrationType",),
    "burned_in_annotation": ("BurnedInAnnotation",),
    "recognizable_visual_features": ("RecognizableVisualFeatures",),
    "series_description": ("SeriesDescription",),
    "study_description": ("StudyDescription",),
    "instance": ("InstanceNumber",),
}
"""Everything of which something reaches a model, by what it is read for. Text passes the scrubber besides."""

DISTANCES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
"""Read for the distance between two of them."""

NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson",
    "ReferringPhysicianName", "ConsultingPhysicianName", "RequestingPhysician", "PerformingPhysicianName",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "OperatorsName",
)  # fmt: skip
IDENTIFIERS = (
    "PatientID", "OtherPatientIDs", "OtherPatientIDsSequence.PatientID", "AccessionNumber", "AdmissionID",
    "ServiceEpisodeID", "StudyID", "RequestedProcedureID", f"{_REQUEST}.RequestedProcedureID",
    f"{_REQUEST}.ScheduledProcedureStepID", f"{_REQUEST}.AccessionNumber", "PerformedProcedureStepID",
    "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "MedicalRecordLocator",
    "PatientTelephoneNumbers",
)  # fmt: skip
PLACES = ("InstitutionName", "InstitutionAddress", "PatientAddress")
"""Read so that they can be taken out of free text."""

READ = frozenset({*(path for paths in ALLOWED.values() for path in paths), *DISTANCES, *NAMES, *IDENTIFIERS, *PLACES})
"""All of it."""
