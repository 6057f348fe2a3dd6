"""Findings to DICOM Segmentation (PS3.3 A.51): BINARY, Explicit VR Little Endian, empty frames left out."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from dicom_out.codes import SIDES
from dicom_out.colour import cielab
from dicom_out.derived import code_item, tracking
from dicom_out.encoding import element, encoded_dataset, part10, tag_of
from dicom_out.frames import Frame, Labels, functional_groups, packed
from dicom_out.identity import identity
from dicom_out.source import Source, string_values
from domain.codes import Code
from domain.engine import EngineManifest, derived_uid
from domain.findings import SegmentDescription
from domain.ports import Result
from domain.volume import Grid

_LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")


def encode_seg(
    ds: Dataset,
    result: Result,
    source: Source,
    *,
    labels: Labels,
    frames: tuple[Frame, ...],
    declared: tuple[str, ...],
) -> list[bytes]:
    """Return a segmentation as a Part 10 file, in pieces.

    Parameters
    ----------
    ds
        Series, equipment and time as ``derived.empty_object`` returns them; is completed.
    labels
        Masks on the grid of ``result``.
    frames
        The frames that are not empty; at least one.
    declared
        Character set of the object.
    """
    ds.SOPClassUID = SegmentationStorage
    _describe_image(ds, result, source, frames=len(frames))
    _describe_references(ds, source)
    ds.SegmentSequence = [
        _segment(number, description, result.manifest, source.series_instance_uid)
        for number, description in enumerate(result.findings.segments, start=1)
    ]
    ds.SharedFunctionalGroupsSequence = [_shared(result.patient_grid)]
    elements = encoded_dataset(ds, declared) | identity(source.header, declared)
    groups = functional_groups(frames, source.images)
    elements[tag_of("PerFrameFunctionalGroupsSequence")] = groups
    elements[tag_of("PixelData")] = element("PixelData", packed(labels, frames))
    return part10(ds.SOPClassUID, ds.SOPInstanceUID, elements)


def _describe_image(ds: Dataset, result: Result, source: Source, *, frames: int) -> None:
    """Segmentation Image and Multi-frame Modules (PS3.3 C.8.20.2, C.7.6.16)."""
    _, ds.Rows, ds.Columns = result.grid.shape
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.NumberOfFrames = frames
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 1, 0, 0
    ds.SegmentationType, ds.SegmentsOverlap = "BINARY", "NO"
    ds.ContentLabel = "SEGMENTATION"
    ds.ContentDescription = result.manifest.title[:64]
    ds.ContentCreatorName = f"{ds.Manufacturer}^Gateway"
    ds.FrameOfReferenceUID = str(source.header.FrameOfReferenceUID)
    ds.PositionReferenceIndicator = ""
    _describe_loss(ds, source.header)
    _describe_body_part(ds, source.header)
    organisation = derived_uid("dimensions", result.job_id)
    ds.DimensionOrganizationSequence = [Dataset()]
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    ds.DimensionIndexSequence = [
        _dimension(organisation, "ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        _dimension(organisation, "ImagePositionPatient", "PlanePositionSequence"),
    ]


def _describe_loss(ds: Dataset, header: Dataset) -> None:
    """Lossy compression of the source is said of the segmentation too (PS3.3 C.8.20.2)."""
    lossy = string_values(header, "LossyImageCompression") == ["01"]
    ds.LossyImageCompression = "01" if lossy else "00"
    for keyword in _LOSSY:
        values = string_values(header, keyword)
        if lossy and values:
            setattr(ds, keyword, values)


def _describe_body_part(ds: Dataset, header: Dataset) -> None:
    """Copy the body part and its side, where the source says them."""
    for keyword in ("BodyPartExamined", "Laterality"):
        values = string_values(header, keyword)
        if values:
            setattr(ds, keyword, values[0])


def _dimension(organisation: str, keyword: str, group: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organisation
    item.DimensionIndexPointer = tag_of(keyword)
    item.FunctionalGroupPointer = tag_of(group)
    item.DimensionDescriptionLabel = keyword
    return item


def _describe_references(ds: Dataset, source: Source) -> None:
    """Common Instance Reference Module: without it viewers do not find the source (PS3.3 C.12.2)."""
    series = Dataset()
    series.SeriesInstanceUID = source.series_instance_uid
    series.ReferencedInstanceSequence = DicomSequence()
    for sop_class_uid, sop_instance_uid in source.instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        series.ReferencedInstanceSequence.append(item)
    ds.ReferencedSeriesSequence = [series]


def _segment(number: int, description: SegmentDescription, manifest: EngineManifest, series: str) -> Dataset:
    """Return one item of Segment Sequence (PS3.3 C.8.20.4)."""
    tracked = tracking(series, manifest, description.key)
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = description.label[:64]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = manifest.algorithm_name[:64]
    item.SegmentationAlgorithmIdentificationSequence = [_algorithm(manifest)]
    item.SegmentedPropertyCategoryCodeSequence = [code_item(description.category)]
    item.SegmentedPropertyTypeCodeSequence = [_property_type(description)]
    if description.anatomic_region is not None:
        item.AnatomicRegionSequence = [_region(description.anatomic_region, description.type_modifiers)]
    item.RecommendedDisplayCIELabValue = list(cielab(description.colour_rgb))
    item.TrackingID, item.TrackingUID = tracked.identifier, tracked.uid
    return item


def _algorithm(manifest: EngineManifest) -> Dataset:
    """Return an item of Segmentation Algorithm Identification Sequence (PS3.3 10.16)."""
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [code_item(manifest.algorithm_family)]
    item.AlgorithmName = manifest.algorithm_name[:64]
    item.AlgorithmVersion = manifest.version[:64]
    item.AlgorithmSource = manifest.manufacturer[:64]
    return item


def _property_type(description: SegmentDescription) -> Dataset:
    item = code_item(description.type)
    if description.type_modifiers:
        item.SegmentedPropertyTypeModifierCodeSequence = [code_item(code) for code in description.type_modifiers]
    return item


def _region(region: Code, modifiers: tuple[Code, ...]) -> Dataset:
    item = code_item(region)
    sides = [code_item(code) for code in modifiers if code.value in SIDES]
    if sides:
        item.AnatomicRegionModifierSequence = sides
    return item


def _shared(grid: Grid) -> Dataset:
    """Return the groups that all frames share.

    Spacing comes from the positions, never from the header: a SpacingBetweenSlices that contradicts the positions
    makes readers rebuild another volume. Where the distance varies there is none to state, only the median thickness.
    """
    _, row_mm, column_mm = (format_number_as_ds(value) for value in grid.spacing_mm)
    measures = Dataset()
    if grid.slice_distance_mm is None:
        measures.SliceThickness = format_number_as_ds(float(np.median(np.diff(grid.along_mm))))
    else:
        measures.SliceThickness = measures.SpacingBetweenSlices = format_number_as_ds(grid.slice_distance_mm)
    measures.PixelSpacing = [row_mm, column_mm]
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    cosines = [*axes[:, 2], *axes[:, 1]]  # direction of the rows first, then of the columns (C.7.6.2.1.1)
    orientation = Dataset()
    orientation.ImageOrientationPatient = [format_number_as_ds(round(float(value), 12) + 0.0) for value in cosines]
    item = Dataset()
    item.PixelMeasuresSequence, item.PlaneOrientationSequence = [measures], [orientation]
    return item
