"""Findings to DICOM Segmentation and Label Map Segmentation (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from dicom_out.codes import BACKGROUND, SIDES
from dicom_out.colour import cielab
from dicom_out.derived import code_item, tracking_of
from dicom_out.encoding import encoded_dataset, part10, tag_of
from dicom_out.frames import Dimension, dimensions_of, functional_groups
from dicom_out.general import describe_body_part, describe_loss, describe_references
from dicom_out.identity import identity
from dicom_out.placement import Placement
from dicom_out.segoptions import LABEL_MAP_STORAGE, SegType
from dicom_out.segpixels import Piece, encoded_pixels, pixel_bytes
from dicom_out.segplan import FULL, SegPart
from dicom_out.source import Source, string_values
from domain.codes import Code
from domain.engine import EngineManifest, derived_uid
from domain.findings import SegmentDescription
from domain.image import Raster
from domain.ports import Result
from domain.volume import Grid

SOP_CLASSES = {
    SegType.BINARY: SegmentationStorage,
    SegType.LABELMAP: LABEL_MAP_STORAGE,
    SegType.FRACTIONAL: SegmentationStorage,
}


def encode_seg(
    ds: Dataset,
    result: Result,
    source: Source,
    *,
    part: SegPart,
    placement: Placement,
    declared: tuple[str, ...],
    rle: bool = False,
) -> Iterator[Piece]:
    """Yield a segmentation as a Part 10 file, in pieces that are made while they are written.

    Parameters
    ----------
    ds
        Series, equipment and time as ``derived.empty_object`` returns them; is completed.
    part
        Which instance of the segmentation, as ``segplan.plan_seg`` returns it.
    placement
        Where its slices lie.
    declared
        Character set of the object.
    rle
        Compress, where the type allows it.
    """
    rle = rle and part.type is not SegType.BINARY
    ds.SOPClassUID = SOP_CLASSES[part.type]
    _describe_image(ds, result, source, part, placement.grid)
    describe_dimensions(ds, result, placement, dimensions_of(part.frames, placement.slices))
    describe_references(ds, source, placement.instances)
    described = [
        _segment(part.number_of(number), number, result, source.series_instance_uid) for number in part.segments
    ]
    # The background last: OHIF 3.13 takes the colour of segment n from the n-th item, whatever number that has
    ds.SegmentSequence = [*described, *([_background()] if part.type is SegType.LABELMAP else [])]
    ds.SharedFunctionalGroupsSequence = [shared_groups(placement.grid)]
    elements = encoded_dataset(ds, declared) | identity(source.header, declared)
    numbers = {number: part.number_of(number) for number in part.segments}
    elements[tag_of("PerFrameFunctionalGroupsSequence")] = functional_groups(part.frames, placement.slices, numbers)
    _, rows, columns = placement.grid.shape
    syntax = RLELossless if rle else ExplicitVRLittleEndian
    yield from part10(ds.SOPClassUID, ds.SOPInstanceUID, elements, transfer_syntax=syntax)
    yield from encoded_pixels(part, pixels=rows * columns, rle=rle)


def _describe_image(ds: Dataset, result: Result, source: Source, part: SegPart, grid: Grid | Raster) -> None:
    """Segmentation Image and Multi-frame Modules (PS3.3 C.8.20.2, C.7.6.16)."""
    _, ds.Rows, ds.Columns = grid.shape
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.NumberOfFrames = len(part.frames)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 1 if part.type is SegType.BINARY else 8 * pixel_bytes(part)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    ds.SegmentationType, ds.SegmentsOverlap = part.type.value, part.overlap
    if part.type is SegType.FRACTIONAL:
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "PROBABILITY", FULL
    if part.type is SegType.LABELMAP:
        ds.add_new("PixelPaddingValue", "US", 0)  # the background (PS3.3 C.8.20.2)
    ds.ContentLabel = "SEGMENTATION"
    ds.ContentDescription = result.manifest.title[:64]
    ds.ContentCreatorName = f"{ds.Manufacturer}^Gateway"
    describe_origin(ds, grid, source)


def describe_origin(ds: Dataset, grid: Grid | Raster, source: Source) -> None:
    """Frame of reference, or in place of it the orientation of the picture; losses and the part of the body."""
    header = source.header
    if isinstance(grid, Raster):
        # Type 2C in the General Image Module where there is no Image Orientation (PS3.3 C.7.6.1)
        ds.PatientOrientation = string_values(header, "PatientOrientation") or None
    else:
        ds.FrameOfReferenceUID = str(header.FrameOfReferenceUID)
        ds.PositionReferenceIndicator = ""
    describe_loss(ds, source)
    describe_body_part(ds, header, has_side=False)  # each segment, or its frames, say the side


def describe_dimensions(ds: Dataset, result: Result, placement: Placement, dimensions: Sequence[Dimension]) -> None:
    """Multi-frame Dimension Module (PS3.3 C.7.6.17)."""
    organisation = derived_uid("dimensions", result.job_id, *(["regular"] if placement.is_resampled else []))
    ds.DimensionOrganizationSequence = [Dataset()]
    ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    ds.DimensionIndexSequence = [_dimension(organisation, item) for item in dimensions]


def _dimension(organisation: str, dimension: Dimension) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organisation
    item.DimensionIndexPointer = tag_of(dimension.keyword)
    item.FunctionalGroupPointer = tag_of(dimension.group)
    item.DimensionDescriptionLabel = dimension.keyword
    return item


def _background() -> Dataset:
    """Return the item for pixels of no segment: every value in a label map is described (PS3.3 C.8.20.2.3)."""
    item = Dataset()
    item.SegmentNumber = 0
    item.SegmentLabel = "Background"
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = "Background"
    item.SegmentedPropertyCategoryCodeSequence = [code_item(BACKGROUND)]
    item.SegmentedPropertyTypeCodeSequence = [code_item(BACKGROUND)]
    item.RecommendedDisplayCIELabValue = list(cielab((0, 0, 0)))
    return item


def _segment(number: int, of: int, result: Result, series: str) -> Dataset:
    """Return one item of Segment Sequence (PS3.3 C.8.20.4): segment ``of`` of the findings as ``number``."""
    description, manifest = result.findings.segments[of - 1], result.manifest
    tracked = tracking_of(result, series, of)
    drawn = result.prompt is not None and result.prompt.drawing is not None
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = description.label[:64]
    item.SegmentAlgorithmType = "SEMIAUTOMATIC" if drawn else "AUTOMATIC"
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


def shared_groups(grid: Grid | Raster) -> Dataset:
    """Return the groups that all frames share; on images without patient coordinates there are none.

    Spacing comes from the positions, never from the header: a SpacingBetweenSlices that contradicts the positions
    makes readers rebuild another volume. Where the distance varies there is none to state, only the median thickness.
    """
    item = Dataset()
    if isinstance(grid, Raster):
        return item
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
    item.PixelMeasuresSequence, item.PlaneOrientationSequence = [measures], [orientation]
    return item
