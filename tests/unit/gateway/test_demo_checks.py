from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from domain.errors import VerificationFailed
from domain.volume import Grid
from gateway.demo_checks import SegmentCheck, labels_on, seg_volumes_ml, sr_volumes_ml


def code(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "x"
    return item


def seg(masks: dict[float, np.ndarray], number: int = 1) -> Dataset:
    """A SEG with one frame for each z, 16 columns wide so that frames end on bytes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SegmentSequence = [Dataset()]
    ds.SegmentSequence[0].SegmentNumber = number
    ds.Rows, ds.Columns = next(iter(masks.values())).shape
    ds.NumberOfFrames = len(masks)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
    ds.PixelData = b"".join(np.packbits(mask.ravel(), bitorder="little").tobytes() for mask in masks.values())
    measures = Dataset()
    measures.PixelSpacing, measures.SpacingBetweenSlices, measures.SliceThickness = [0.5, 0.8], 2.5, 2.5
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_groups(z, number) for z in masks]
    return ds


def _groups(z: float, number: int) -> Dataset:
    position, segment, groups = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, z]
    segment.ReferencedSegmentNumber = number
    groups.PlanePositionSequence, groups.SegmentIdentificationSequence = [position], [segment]
    return groups


def grid(slices: int) -> Grid:
    affine = np.array([[0, 0, 0.8, 0], [0, 0.5, 0, 0], [2.5, 0, 0, 10.0], [0, 0, 0, 1]])
    return Grid(shape=(slices, 4, 16), affine=affine, frame_of_reference_uid="1.2")


def mask(voxels: int) -> np.ndarray:
    flat = np.zeros(64, np.uint8)
    flat[:voxels] = 1
    return flat.reshape(4, 16)


def test_volume_is_counted_in_the_frames() -> None:
    assert seg_volumes_ml(seg({10.0: mask(10), 12.5: mask(30)})) == pytest.approx({1: 40 * 0.5 * 0.8 * 2.5 / 1000})


def test_frames_are_laid_where_their_positions_say() -> None:
    labels = labels_on(grid(3), seg({15.0: mask(5)}, number=2))
    assert labels.sum(axis=(1, 2)).tolist() == [0, 0, 10]


@pytest.mark.parametrize("z", [11.0, 17.5, 7.5])
def test_a_frame_between_or_beyond_the_slices_is_found(z: float) -> None:
    with pytest.raises(VerificationFailed):
        labels_on(grid(3), seg({z: mask(5)}))


def test_volumes_are_read_from_the_groups_of_the_report() -> None:
    number, tracking, group, root = Dataset(), Dataset(), Dataset(), Dataset()
    number.ConceptNameCodeSequence = [code("118565006", "SCT")]
    number.MeasuredValueSequence = [Dataset()]
    number.MeasuredValueSequence[0].NumericValue = "12.5"
    tracking.ConceptNameCodeSequence, tracking.UID = [code("112040", "DCM")], "2.25.7"
    group.ValueType, group.ContentSequence = "CONTAINER", [tracking, number]
    root.ValueType, root.ContentSequence = "CONTAINER", [group]
    assert sr_volumes_ml(root) == {"2.25.7": 12.5}


@pytest.mark.parametrize(
    ("seg_ml", "sr_ml", "truth_ml", "holds"),
    [
        (100.0, 100.0, None, True),
        (100.0, None, None, True),
        (100.0, 101.0, None, False),
        (100.0, 100.0, 104.0, True),
        (100.0, 100.0, 110.0, False),
        (0.0, 0.0, 110.0, False),
    ],
)
def test_holds_where_both_objects_agree_with_each_other_and_the_truth(
    seg_ml: float, sr_ml: float | None, truth_ml: float | None, holds: bool
) -> None:
    assert SegmentCheck(label="x", seg_ml=seg_ml, sr_ml=sr_ml, truth_ml=truth_ml).holds is holds
