"""Objects in which somebody drew on a synthetic series, as PACS workstations send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    generate_uid,
)

NODULE = ("108369006", "SCT", "Neoplasm")
Series = Sequence[Dataset]


def item(**attributes: Any) -> Dataset:
    """Return an item of a sequence."""
    ds = Dataset()
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _object(series: Series, sop_class: str, modality: str, **attributes: Any) -> Dataset:
    ds = item(
        SOPClassUID=sop_class,
        SOPInstanceUID=generate_uid(),
        StudyInstanceUID=series[0].StudyInstanceUID,
        SeriesInstanceUID=generate_uid(),
        Modality=modality,
        Manufacturer="TEST",
        PatientName="CANARY^PHI",
        PatientID="CANARYID",
        **attributes,
    )
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _reference(image: Dataset) -> Dataset:
    return item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)


def _named(value_type: str, relation: str, name: tuple[str, str, str], **attributes: Any) -> Dataset:
    return item(
        ValueType=value_type, RelationshipType=relation, ConceptNameCodeSequence=[_coded(*name)], **attributes
    )


REGION = ("111030", "DCM", "Image Region")


def scoord(image: Dataset, graphic: str, points: Any, name: tuple[str, str, str] = REGION) -> Dataset:
    """Return a region on an image; ``points`` are columns and rows, 0\\0 is the corner of the first pixel."""
    selected = item(ValueType="IMAGE", RelationshipType="SELECTED FROM", ReferencedSOPSequence=[_reference(image)])
    return _named(
        "SCOORD", "CONTAINS", name, GraphicType=graphic,
        GraphicData=np.ravel(points).tolist(), ContentSequence=[selected],
    )  # fmt: skip


def scoord3d(image: Dataset, graphic: str, points: Any) -> Dataset:
    """Return a region in the patient."""
    return _named(
        "SCOORD3D", "CONTAINS", REGION, GraphicType=graphic, GraphicData=np.ravel(points).tolist(),
        ReferencedFrameOfReferenceUID=image.FrameOfReferenceUID,
    )  # fmt: skip


def num(region: Dataset, name: tuple[str, str, str] = ("410668003", "SCT", "Length")) -> Dataset:
    """Return a measurement that was taken from a region, as OHIF writes it."""
    region.RelationshipType = "INFERRED FROM"
    return _named("NUM", "CONTAINS", name, ContentSequence=[region])


def report(
    series: Series,
    *groups: Sequence[Dataset],
    identifiers: Sequence[str] = (),
    uids: Sequence[str] = (),
    finding: tuple[str, str, str] | None = NODULE,
    **attributes: Any,
) -> Dataset:
    """Return a TID 1500 report with a measurement group for each of ``groups``."""
    made = []
    for index, regions in enumerate(groups):
        identifier = identifiers[index] if identifiers else f"Lesion {index + 1}"
        uid = uids[index] if uids else generate_uid()
        children = [
            _named("TEXT", "HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), TextValue=identifier),
            _named("UIDREF", "HAS OBS CONTEXT", ("112040", "DCM", "Tracking Unique Identifier"), UID=uid),
        ]
        if finding is not None:
            said = ("121071", "DCM", "Finding")
            children.append(_named("CODE", "CONTAINS", said, ConceptCodeSequence=[_coded(*finding)]))
        group = ("125007", "DCM", "Measurement Group")
        made.append(_named("CONTAINER", "CONTAINS", group, ContentSequence=[*children, *regions]))
    measurements = _named("CONTAINER", "CONTAINS", ("126010", "DCM", "Imaging Measurements"), ContentSequence=made)
    evidence = item(
        SeriesInstanceUID=series[0].SeriesInstanceUID, ReferencedSOPSequence=[_reference(image) for image in series]
    )
    return _object(
        series,
        Comprehensive3DSRStorage,
        "SR",
        **{"ContentDate": "20240103", "ContentTime": "120000", **attributes},
        ValueType="CONTAINER",
        ConceptNameCodeSequence=[_coded("126000", "DCM", "Imaging Measurement Report")],
        CurrentRequestedProcedureEvidenceSequence=[
            item(StudyInstanceUID=series[0].StudyInstanceUID, ReferencedSeriesSequence=[evidence])
        ],
        ContentSequence=[measurements],
    )


def presentation(
    series: Series, image: Dataset, graphic: str, points: Any, *, units: str = "PIXEL", **attributes: Any
) -> Dataset:
    """Return a presentation state that draws one thing on an image, shown as a whole unless told otherwise."""
    area = item(
        DisplayedAreaTopLeftHandCorner=attributes.pop("top_left", [1, 1]),
        DisplayedAreaBottomRightHandCorner=attributes.pop("bottom_right", [int(image.Columns), int(image.Rows)]),
        PresentationSizeMode="SCALE TO FIT",
    )
    drawn = item(
        GraphicAnnotationUnits=units, GraphicDimensions=2, NumberOfGraphicPoints=len(points),
        GraphicData=np.ravel(points).tolist(), GraphicType=graphic, GraphicFilled="N",
    )  # fmt: skip
    annotation = item(
        ReferencedImageSequence=[_reference(image)], GraphicLayer="DRAWN", GraphicObjectSequence=[drawn]
    )
    own = item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedImageSequence=[_reference(image)])
    return _object(
        series, GrayscaleSoftcopyPresentationStateStorage, "PR", ContentLabel="DRAWN", ReferencedSeriesSequence=[own],
        DisplayedAreaSelectionSequence=[area], GraphicAnnotationSequence=[annotation], **attributes,
    )  # fmt: skip


def structure_set(
    series: Series, rois: dict[str, Sequence[Any]], *, kind: str = "CLOSED_PLANAR", **attributes: Any
) -> Dataset:
    """Return a structure set without ContourImageSequence in its contours: frame of reference and plane must do."""
    frame = str(series[0].FrameOfReferenceUID)
    referenced = item(
        SeriesInstanceUID=series[0].SeriesInstanceUID, ContourImageSequence=list(map(_reference, series))
    )
    study = item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID=series[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[referenced],
    )  # fmt: skip
    numbered = list(enumerate(rois.items(), start=1))
    return _object(
        series,
        RTStructureSetStorage,
        "RTSTRUCT",
        **{"StructureSetLabel": "PLAN", "StructureSetDate": "20240103", "StructureSetTime": "120000", **attributes},
        ReferencedFrameOfReferenceSequence=[item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])],
        StructureSetROISequence=[
            item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=frame) for n, (name, _) in numbered
        ],
        ROIContourSequence=[
            item(
                ReferencedROINumber=number,
                ContourSequence=[
                    item(
                        ContourGeometricType=kind, NumberOfContourPoints=len(points),
                        ContourData=[f"{value:.10f}"[:16] for value in np.ravel(points)],
                    )
                    for points in contours
                ],
            )
            for number, (_, contours) in numbered
        ],
    )  # fmt: skip


def segmentation(
    series: Series, masks: np.ndarray, *, labels: Sequence[str] = ("Lesion",), uids: Sequence[str] = ()
) -> Dataset:
    """Return a binary segmentation; ``masks`` has shape ``(segments, slices, rows, columns)``."""
    frames, groups = [], []
    for number, slices in enumerate(masks, start=1):
        for image, mask in zip(series, slices, strict=True):
            if mask.any():
                frames.append(mask)
                groups.append(
                    item(
                        PlanePositionSequence=[item(ImagePositionPatient=image.ImagePositionPatient)],
                        SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
                    )
                )
    described = [
        item(
            SegmentNumber=number,
            SegmentLabel=label,
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=[_coded("49755003", "SCT", "Morphologically Abnormal Structure")],
            SegmentedPropertyTypeCodeSequence=[_coded(*NODULE)],
            TrackingID=label,
            TrackingUID=uids[number - 1] if uids else generate_uid(),
        )
        for number, label in enumerate(labels, start=1)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=series[0].ImageOrientationPatient)],
        PixelMeasuresSequence=[item(PixelSpacing=series[0].PixelSpacing, SliceThickness="2.5")],
    )
    ds = _object(
        series, SegmentationStorage, "SEG", FrameOfReferenceUID=series[0].FrameOfReferenceUID,
        Rows=masks.shape[2], Columns=masks.shape[3], NumberOfFrames=len(frames), SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0,
        SegmentationType="BINARY", SegmentSequence=described, SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
        ReferencedSeriesSequence=[
            item(
                SeriesInstanceUID=series[0].SeriesInstanceUID,
                ReferencedInstanceSequence=list(map(_reference, series)),
            )
        ],
    )  # fmt: skip
    packed = np.packbits(np.ravel(frames), bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    ds["PixelData"].VR = "OB"
    return ds


def referenced(seg: Dataset, segment: int = 1) -> Dataset:
    """Return what a report says of a segment whose region is in a segmentation."""
    reference = item(
        ReferencedSOPClassUID=seg.SOPClassUID,
        ReferencedSOPInstanceUID=seg.SOPInstanceUID,
        ReferencedSegmentNumber=segment,
    )
    name = ("121191", "DCM", "Referenced Segment")
    return _named("IMAGE", "CONTAINS", name, ReferencedSOPSequence=[reference])


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle, the first one again at the end."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]


def in_patient(image: Dataset, points: Any) -> np.ndarray:
    """Return LPS positions in mm of points on an image, whose 0\\0 is the corner of the first pixel."""
    position = np.array([float(x) for x in image.ImagePositionPatient])
    cosines = np.array([float(x) for x in image.ImageOrientationPatient])
    rows_mm, columns_mm = (float(x) for x in image.PixelSpacing)
    centred = np.asarray(points, float) - 0.5
    found: np.ndarray = position + centred[:, :1] * columns_mm * cosines[:3] + centred[:, 1:] * rows_mm * cosines[3:]
    return found
