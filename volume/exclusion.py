"""Which instances of a series can be worked on, as slices of a volume or as images, and why the others cannot."""

from __future__ import annotations

import re
from functools import lru_cache

from pydicom.uid import UID

from domain.instance import Header
from domain.series import RefusalCode
from volume import mosaic
from volume.kinds import (
    ENHANCED_CLASSES,
    FOR_PROCESSING_CLASSES,
    IMAGE_CLASSES,
    SECONDARY_CAPTURE_CLASSES,
    SLICE_CLASSES,
    TOMOSYNTHESIS_CLASSES,
    WHOLE_SLIDE_CLASSES,
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


_UNSUPPORTED: tuple[tuple[frozenset[str], str], ...] = (
    (
        SLICE_CLASSES,
        "NumberOfFrames is above 1, which this SOP Class does not allow. Send one instance a slice.",
    ),
    (
        FOR_PROCESSING_CLASSES,
        "These images are For Processing: raw values of the detector, which are not meant to be read "
        "(PresentationIntentType). Send the images For Presentation.",
    ),
    (
        TOMOSYNTHESIS_CLASSES,
        "This is breast tomosynthesis, whose slices are reconstructed from few directions and form no volume. It is "
        "not analysed; send the mammograms.",
    ),
    (
        WHOLE_SLIDE_CLASSES,
        "This is whole-slide microscopy, whose frames are tiles of one large image. It is not analysed.",
    ),
)


def exclusion(header: Header) -> tuple[RefusalCode, str] | None:
    """Return why an instance is not worked on, with a sentence; ``None`` when it is (see ``volume.kinds``)."""
    code = _code(header)
    if code is None:
        return None
    if code is RefusalCode.UNSUPPORTED_SOP_CLASS:
        return code, _unsupported(header)
    if code is RefusalCode.SIEMENS_MOSAIC:
        return code, _not_taken_apart(header)
    return code, _REASONS[code]


def _code(header: Header) -> RefusalCode | None:
    if header.is_own_result:
        return RefusalCode.OWN_RESULT
    if header.sop_class_uid in IMAGE_CLASSES:
        # Of these only captures can be localizers and renderings; elsewhere the words mean other things.
        return _by_image_type(header.image_type) if header.sop_class_uid in SECONDARY_CAPTURE_CLASSES else None
    if header.sop_class_uid in ENHANCED_CLASSES:
        if header.frame_number is None:
            return RefusalCode.NO_FUNCTIONAL_GROUPS
    elif header.sop_class_uid not in SLICE_CLASSES:
        return RefusalCode.UNSUPPORTED_SOP_CLASS if header.has_pixel_data else RefusalCode.NOT_AN_IMAGE
    elif (header.number_of_frames or 1) > 1:
        return RefusalCode.UNSUPPORTED_SOP_CLASS
    return _by_image_type(header.image_type, header.tile is not None)


@lru_cache
def _by_image_type(image_type: tuple[str, ...], is_tile: bool = False) -> RefusalCode | None:
    if mosaic.WORD in image_type and not is_tile:
        return RefusalCode.SIEMENS_MOSAIC
    if "LOCALIZER" in image_type:
        return RefusalCode.LOCALIZER
    if _RENDERED & {word for value in image_type for word in re.split(r"[\W_]+", value.upper())}:
        return RefusalCode.DERIVED_IMAGE
    return None


def _not_taken_apart(header: Header) -> str:
    return (
        "ImageType says MOSAIC: each image holds all slices of a volume side by side, and they are not taken apart "
        f"unless it is proven where they lie. {mosaic.cause(header)} Have the scanner save the series without "
        "mosaic, or as Enhanced MR."
    )


def _unsupported(header: Header) -> str:
    for classes, reason in _UNSUPPORTED:
        if header.sop_class_uid in classes:
            return reason
    uid = UID(header.sop_class_uid)
    name = "of a private SOP Class" if uid.is_private or uid.name == uid else f"of the SOP Class {uid.name}"
    return (
        f"These images are {name}, which this gateway does not work on. It takes CT, MR and PET images (enhanced or "
        "one slice an instance), radiographs, ultrasound, angiography, photographs and secondary captures; send the "
        "images in such a form if the modality or PACS can."
    )
