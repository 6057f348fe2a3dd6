"""What an instance is to be worked on as, by its SOP Class: a slice of a volume, one image, a cine, or nothing."""

from __future__ import annotations

from typing import Final

from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DermoscopicPhotographyImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    OphthalmicPhotography8BitImageStorage,
    OphthalmicPhotography16BitImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLEndoscopicImageStorage,
    VLMicroscopicImageStorage,
    VLPhotographicImageStorage,
    VLSlideCoordinatesMicroscopicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from domain.instance import Header
from domain.series import StackKind

SLICE_CLASSES: frozenset[str] = frozenset({CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage})
"""SOP Classes whose instances are one slice each."""

ENHANCED_CLASSES: frozenset[str] = frozenset(
    {
        EnhancedCTImageStorage,
        EnhancedMRImageStorage,
        EnhancedPETImageStorage,
        LegacyConvertedEnhancedCTImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
        LegacyConvertedEnhancedPETImageStorage,
    }
)
"""SOP Classes whose instances are many slices, placed by functional groups."""

SECONDARY_CAPTURE_CLASSES: frozenset[str] = frozenset(
    {
        SecondaryCaptureImageStorage,
        MultiFrameSingleBitSecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)

RADIOGRAPH_CLASSES: frozenset[str] = frozenset(
    {
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalMammographyXRayImageStorageForPresentation,
        DigitalIntraOralXRayImageStorageForPresentation,
    }
)

FLUOROSCOPY_CLASSES: frozenset[str] = frozenset({XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage})

_RETIRED_ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6"
_RETIRED_ULTRASOUND_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3"
ULTRASOUND_CLASSES: frozenset[str] = frozenset(
    {
        UltrasoundImageStorage,
        UltrasoundMultiFrameImageStorage,
        _RETIRED_ULTRASOUND,
        _RETIRED_ULTRASOUND_MULTI_FRAME,
    }
)

PHOTOGRAPH_CLASSES: frozenset[str] = frozenset(
    {
        VLEndoscopicImageStorage,
        VLMicroscopicImageStorage,
        VLSlideCoordinatesMicroscopicImageStorage,
        VLPhotographicImageStorage,
        DermoscopicPhotographyImageStorage,
        OphthalmicPhotography8BitImageStorage,
        OphthalmicPhotography16BitImageStorage,
    }
)

IMAGE_CLASSES: Final[frozenset[str]] = (
    SECONDARY_CAPTURE_CLASSES | RADIOGRAPH_CLASSES | FLUOROSCOPY_CLASSES | ULTRASOUND_CLASSES | PHOTOGRAPH_CLASSES
)
"""SOP Classes whose instances are images of their own: no coordinates in the patient join them."""

PROJECTION_CLASSES: Final[frozenset[str]] = RADIOGRAPH_CLASSES | FLUOROSCOPY_CLASSES
"""X-ray projections: the object lies nearer to the source than the detector, so that it is magnified."""

FOR_PROCESSING_CLASSES: frozenset[str] = frozenset(
    {
        DigitalXRayImageStorageForProcessing,
        DigitalMammographyXRayImageStorageForProcessing,
        DigitalIntraOralXRayImageStorageForProcessing,
    }
)

TOMOSYNTHESIS_CLASSES: frozenset[str] = frozenset({BreastTomosynthesisImageStorage})
WHOLE_SLIDE_CLASSES: frozenset[str] = frozenset({VLWholeSlideMicroscopyImageStorage})


def kind_of(header: Header) -> StackKind:
    """Return what an instance that is not excluded (``volume.exclusion``) is worked on as."""
    if header.sop_class_uid not in IMAGE_CLASSES:
        return StackKind.VOLUME
    return StackKind.CINE if (header.number_of_frames or 1) > 1 else StackKind.IMAGE
