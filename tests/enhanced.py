"""Enhanced images made of single-frame ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedCTImageStorage, generate_uid

_PER_FRAME = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ConvolutionKernel", "KVP", "SliceLocation",
)  # fmt: skip


def enhanced(
    series: Sequence[Dataset],
    *,
    sop_class_uid: UID = EnhancedCTImageStorage,
    stacks: Sequence[str] = (),
    times: Sequence[int] = (),
    shared_orientation: bool = True,
) -> Dataset:
    """Return one enhanced image (PS3.3 A.38) with one frame for each instance of ``series``, in their order.

    Parameters
    ----------
    stacks, times
        StackID and TemporalPositionIndex of each frame.
    shared_orientation
        ImageOrientationPatient and PixelSpacing stand once for all frames, or in every frame.
    """
    ds = copy.deepcopy(series[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class_uid
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword in _PER_FRAME:
        ds.pop(keyword, None)
    ds.NumberOfFrames = len(series)
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.AcquisitionDateTime = "20240102101200"
    ds.LossyImageCompression, ds.BurnedInAnnotation, ds.PresentationLUTShape = "00", "NO", "IDENTITY"
    ds.PixelData = b"".join(frame.PixelData for frame in series)
    organisation = generate_uid()
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organisation)]
    index = _item(DimensionOrganizationUID=organisation, DimensionIndexPointer=0x00209057)
    index.FunctionalGroupPointer = 0x00209111
    ds.DimensionIndexSequence = [index]
    groups = [_groups(frame) for frame in series]
    shared = Dataset()
    if shared_orientation:
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            shared[keyword] = groups[0][keyword]
            for group in groups:
                del group[keyword]
    for k, group in enumerate(groups):
        content = _item(InStackPositionNumber=k + 1, DimensionIndexValues=[k + 1], StackID="1")
        if stacks:
            content.StackID = stacks[k]
        if times:
            content.TemporalPositionIndex = times[k]
        group.FrameContentSequence = [content]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], groups
    return ds


def _groups(frame: Dataset) -> Dataset:
    group = Dataset()
    group.PlanePositionSequence = [_item(ImagePositionPatient=frame.ImagePositionPatient)]
    group.PlaneOrientationSequence = [_item(ImageOrientationPatient=frame.ImageOrientationPatient)]
    group.PixelMeasuresSequence = [_item(PixelSpacing=frame.PixelSpacing, SliceThickness=frame.SliceThickness)]
    if "RescaleSlope" in frame:
        rescale = _item(RescaleSlope=frame.RescaleSlope, RescaleIntercept=frame.RescaleIntercept)
        rescale.RescaleType = frame.RescaleType
        group.PixelValueTransformationSequence = [rescale]
    return group


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def shuffled(series: Sequence[Dataset], seed: int = 1) -> list[Dataset]:
    """Return the instances in another order."""
    return [series[k] for k in np.random.default_rng(seed).permutation(len(series))]
