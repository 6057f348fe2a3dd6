"""Probabilities to DICOM Parametric Map (PS3.3 A.75): 32-bit floats, one instance for each segment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from dicom_out.codes import PROBABILITY, QUANTITY, RATIO
from dicom_out.derived import code_item
from dicom_out.encoding import encoded_dataset, part10, pixel_data, tag_of
from dicom_out.frames import Frame, dimensions_of, functional_groups
from dicom_out.general import describe_references
from dicom_out.identity import identity
from dicom_out.placement import Placement
from dicom_out.seg import describe_dimensions, describe_origin, shared_groups
from dicom_out.segpixels import Piece
from dicom_out.source import Source
from domain.codes import LEFT, RIGHT, Code
from domain.findings import Findings, SegmentDescription
from domain.image import Raster
from domain.ports import Result
from domain.volume import Grid

_FLOAT_PIXEL_DATA = 0x7FE00008
_FRAME_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
_LATERALITY = {LEFT: "L", RIGHT: "R", Code("51440002", "SCT", "Bilateral"): "B"}


def mapped_segments(placement: Placement) -> tuple[int, ...]:
    """Return the segments that have a parametric map: each with probabilities, in patient coordinates.

    The object must have a frame of reference (PS3.3 A.75.3), which images without patient coordinates lack.
    """
    findings = placement.findings
    if isinstance(placement.grid, Raster):
        return ()
    return tuple(number for number in range(1, len(findings.probabilities) + 1) if _slices(findings, number))


def encode_parametric_map(
    ds: Dataset,
    result: Result,
    source: Source,
    *,
    segment: int,
    placement: Placement,
    declared: tuple[str, ...],
) -> Iterator[Piece]:
    """Yield a parametric map as a Part 10 file, in pieces.

    Parameters
    ----------
    ds
        Series, equipment and time as ``derived.empty_object`` returns them; is completed.
    segment
        Number of the segment whose probability it is.
    placement
        Where its slices lie.
    declared
        Character set of the object.
    """
    values = placement.findings.probabilities[segment - 1]
    description = result.findings.segments[segment - 1]
    frames = tuple(Frame(0, k) for k in _slices(placement.findings, segment))
    ds.SOPClassUID = ParametricMapStorage
    _describe_image(ds, placement.grid, description, len(frames))
    describe_origin(ds, placement.grid, source)
    describe_dimensions(ds, result, placement, dimensions_of(frames, placement.slices))
    describe_references(ds, source, placement.instances)
    shared = shared_groups(placement.grid)
    shared.FrameVOILUTSequence = [_window()]
    shared.RealWorldValueMappingSequence = [_meaning(description)]
    shared.PixelValueTransformationSequence = [_identity()]
    shared.ParametricMapFrameTypeSequence = [Dataset()]
    shared.ParametricMapFrameTypeSequence[0].FrameType = _FRAME_TYPE
    shared.FrameAnatomySequence = [_anatomy(description, result)]
    ds.SharedFunctionalGroupsSequence = [shared]
    elements = encoded_dataset(ds, declared) | identity(source.header, declared)
    elements[tag_of("PerFrameFunctionalGroupsSequence")] = functional_groups(frames, placement.slices, {})
    yield from part10(ds.SOPClassUID, ds.SOPInstanceUID, elements)
    _, rows, columns = placement.grid.shape
    planes = (np.ascontiguousarray(values[frame.slice_index], "<f4").data.cast("B") for frame in frames)
    yield from pixel_data("OF", 4 * rows * columns * len(frames), planes, tag=_FLOAT_PIXEL_DATA)


def _slices(findings: Findings, segment: int) -> range:
    """Return the slices from the first to the last on which something is possible; what is outside is zero."""
    filled = [k for k, plane in enumerate(findings.probabilities[segment - 1]) if plane.any()]
    return range(filled[0], filled[-1] + 1) if filled else range(0)


def _describe_image(ds: Dataset, grid: Grid | Raster, description: SegmentDescription, frames: int) -> None:
    """Parametric Map Image Module and what goes with it (PS3.3 C.8.32.2, C.7.6.16, C.7.6.24)."""
    _, ds.Rows, ds.Columns = grid.shape
    ds.ImageType = _FRAME_TYPE
    ds.NumberOfFrames = frames
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated = 1, "MONOCHROME2", 32
    ds.PixelPresentation, ds.PresentationLUTShape = "MONOCHROME", "IDENTITY"
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "NO", "NO"
    ds.ContentQualification = "PRODUCT"
    ds.ContentLabel = "PROBABILITY"
    ds.ContentDescription = f"Probability: {description.label}"[:64]
    ds.ContentCreatorName = f"{ds.Manufacturer}^Gateway"
    ds.AcquisitionContextSequence = []


def _window() -> Dataset:
    item = Dataset()
    item.WindowCenter, item.WindowWidth = "0.5", "1"
    return item


def _identity() -> Dataset:
    item = Dataset()
    item.RescaleIntercept, item.RescaleSlope, item.RescaleType = "0", "1", "US"
    return item


def _meaning(description: SegmentDescription) -> Dataset:
    """Return what a value means: the probability of the segment, from 0 to 1 (PS3.3 C.7.6.16.2.11)."""
    item, quantity = Dataset(), Dataset()
    item.LUTLabel = "Probability"
    item.LUTExplanation = f"Probability: {description.label}"[:64]
    item.DoubleFloatRealWorldValueFirstValueMapped, item.DoubleFloatRealWorldValueLastValueMapped = 0.0, 1.0
    item.RealWorldValueIntercept, item.RealWorldValueSlope = 0.0, 1.0
    item.MeasurementUnitsCodeSequence = [code_item(RATIO)]
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [code_item(QUANTITY)]
    quantity.ConceptCodeSequence = [code_item(PROBABILITY)]
    item.QuantityDefinitionSequence = [quantity]
    return item


def _anatomy(description: SegmentDescription, result: Result) -> Dataset:
    """Return where it is, without which dcmqi cannot read the object (PS3.3 C.7.6.16.2.8)."""
    item = Dataset()
    region = description.anatomic_region or result.manifest.finding_site or description.type
    item.AnatomicRegionSequence = [code_item(region)]
    sides = [_LATERALITY[code] for code in description.type_modifiers if code in _LATERALITY]
    item.FrameLaterality = sides[0] if sides else "U"
    return item
