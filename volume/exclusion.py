"""Which instances of a series can be slices of a volume, and why the others cannot."""

from __future__ import annotations

import re

from pydicom.uid import (
    UID,
    CTImageStorage,
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
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from domain.instance import Header
from domain.series import RefusalCode

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

# Words of ImageType that modalities and workstations write on projections, renderings and screenshots. Their voxels
# are no samples of the patient at their position. Parallel reformats (MPR, AVERAGE) are samples and stay.
_RENDERED = frozenset(
    {
        "MIP",
        "MINIP",
        "PROJECTION",
        "VRT",
        "VR",
        "SSD",
        "CPR",
        "CURVED",
        "SCREENSHOT",
        "SCREENSAVE",
        "SCREEN",
        "POSDISP",
    }
)

_REASONS = {
    RefusalCode.OWN_RESULT: "These objects were made by Voxgate itself; own results are never analysed again.",
    RefusalCode.NOT_AN_IMAGE: "These objects hold no image; there is nothing to analyse in them.",
    RefusalCode.SECONDARY_CAPTURE: (
        "These are Secondary Capture images (screenshots, dose or exam summaries), which have no reliable position "
        "in the patient. Send the original images."
    ),
    RefusalCode.NO_FUNCTIONAL_GROUPS: (
        "PerFrameFunctionalGroupsSequence is missing or does not have one item for each frame, so it is unknown "
        "where the frames lie. Send the original images; a copy without these sequences is damaged."
    ),
    RefusalCode.LOCALIZER: (
        "These are localizer images (ImageType says LOCALIZER), not slices of a volume. Send the diagnostic series."
    ),
    RefusalCode.DERIVED_IMAGE: (
        "ImageType says that these are projections, renderings or screenshots. Send the images that "
        "they were made from."
    ),
}


def exclusion(header: Header) -> tuple[RefusalCode, str] | None:
    """Return why an instance can be no slice of a volume, with a sentence; ``None`` when it can be one."""
    code = _code(header)
    if code is None:
        return None
    if code is RefusalCode.UNSUPPORTED_SOP_CLASS:
        return code, _unsupported(header)
    return code, _REASONS[code]


def _code(header: Header) -> RefusalCode | None:
    if header.is_own_result:
        return RefusalCode.OWN_RESULT
    if header.sop_class_uid in SECONDARY_CAPTURE_CLASSES:
        return RefusalCode.SECONDARY_CAPTURE
    if header.sop_class_uid in ENHANCED_CLASSES:
        if header.frame_number is None:
            return RefusalCode.NO_FUNCTIONAL_GROUPS
    elif header.sop_class_uid not in SLICE_CLASSES:
        return RefusalCode.UNSUPPORTED_SOP_CLASS if header.has_pixel_data else RefusalCode.NOT_AN_IMAGE
    elif (header.number_of_frames or 1) > 1:
        return RefusalCode.UNSUPPORTED_SOP_CLASS
    if "LOCALIZER" in header.image_type:
        return RefusalCode.LOCALIZER
    if _RENDERED & {word for value in header.image_type for word in re.split(r"[\W_]+", value.upper())}:
        return RefusalCode.DERIVED_IMAGE
    return None


def _unsupported(header: Header) -> str:
    if header.sop_class_uid in SLICE_CLASSES:
        return "NumberOfFrames is above 1, which this SOP Class does not allow. Send one instance a slice."
    uid = UID(header.sop_class_uid)
    name = "of a private SOP Class" if uid.is_private or uid.name == uid else f"of the SOP Class {uid.name}"
    return (
        f"These images are {name}, which this gateway does not turn into volumes. It takes CT, MR and PET "
        "images, enhanced or one slice an instance; send the series in that form if the modality or PACS can."
    )
