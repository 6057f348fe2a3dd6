"""Frames, colours, long axes and files of results."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from factories import ct_series
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGExtended12Bit
from results import MEAN, lung, manifest, result_of

from dicom_out.colour import cielab
from dicom_out.files import write_durably
from dicom_out.frames import Frame, frames_of
from dicom_out.kind import WriterSettings
from dicom_out.masks import Masks, masks_of
from dicom_out.segpixels import packed
from dicom_out.writer import Writer
from domain.codes import LEFT, Code
from domain.engine import OWN_MANUFACTURER
from domain.errors import OutOfSpace, StorageError
from domain.findings import Findings, Measurement
from volume.diameters import long_axis

SMALL = arrays(
    np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9)), elements=st.integers(0, 3)
)


def masks_with(labels: np.ndarray, count: int) -> Masks:
    segments = tuple(replace(lung(LEFT), key=str(number)) for number in range(count))
    masks = masks_of(Findings(labels=labels, segments=segments))
    assert masks is not None
    return masks


@given(SMALL)
def test_every_voxel_is_in_exactly_one_frame(labels: np.ndarray) -> None:
    masks = masks_with(labels, 3)
    assert [sum(counts.values()) for counts in masks.pixels] == [int(np.count_nonzero(plane)) for plane in labels]
    frames = frames_of(masks)
    bits = np.unpackbits(np.frombuffer(b"".join(packed(masks, frames)), np.uint8), bitorder="little")
    pixels = labels[0].size
    rebuilt = np.zeros_like(labels)
    for index, frame in enumerate(frames):
        mask = bits[index * pixels : (index + 1) * pixels].reshape(labels.shape[1:])
        assert mask.any()
        rebuilt[frame.slice_index] += mask * np.uint8(frame.segment)
    np.testing.assert_array_equal(rebuilt, labels)
    assert list(frames) == sorted(frames, key=lambda frame: (frame.segment, frame.slice_index))


def test_a_label_on_the_first_pixel_only_has_a_frame() -> None:
    labels = np.zeros((2, 3, 3), np.uint8)
    labels[1, 0, 0] = 7
    assert frames_of(masks_with(labels, 7)) == (Frame(7, 1),)


@given(SMALL)
@settings(max_examples=25, deadline=None)
def test_any_labels_come_back_through_the_file(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("any")
    slices, rows, columns = labels.shape
    if slices < 2:
        labels = np.concatenate([labels, np.zeros_like(labels)])
    series = ct_series(voxels=np.zeros((labels.shape[0], rows, columns), np.int16))
    segments = tuple(replace(lung(LEFT), key=f"part_{n}", label=f"Part {n}") for n in range(1, 4))
    engine = manifest(segments=segments)
    result = result_of(series, folder / "source", labels, engine=engine)
    writer = Writer()
    writer.verify(result, writer.write(result, folder / "results"))


@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (224, 120, 90), (0, 0, 255), (1, 2, 3)])
def test_colours_are_those_of_highdicom(rgb: tuple[int, int, int]) -> None:
    theirs = highdicom.color.CIELabColor.from_rgb(*rgb).value
    np.testing.assert_allclose(cielab(rgb), theirs, atol=40)


def test_a_run_of_n_pixels_measures_n_pixels() -> None:
    mask = np.zeros((9, 12), np.bool_)
    mask[4, 2:9] = True
    axis = long_axis(mask, (0.5, 0.8))
    assert axis.length_mm == pytest.approx(7 * 0.8)
    assert sorted(axis.ends) == [(2.0, 4.5), (9.0, 4.5)]


def test_a_single_pixel_has_an_axis() -> None:
    mask = np.zeros((3, 3), np.bool_)
    mask[2, 2] = True
    assert long_axis(mask, (1.0, 2.0)).length_mm == pytest.approx(2.0)


@given(st.floats(3, 14), st.floats(18, 22), st.floats(18, 22), st.tuples(st.floats(0.5, 1.5), st.floats(0.5, 1.5)))
@settings(max_examples=30)
def test_the_axis_of_a_disc_is_its_diameter(radius: float, x: float, y: float, spacing: tuple[float, float]) -> None:
    rows, columns = np.mgrid[:60, :60]
    mask = np.hypot((rows - 1.5 * y) * spacing[0], (columns - 1.5 * x) * spacing[1]) <= radius
    assert long_axis(mask, spacing).length_mm == pytest.approx(2 * radius, abs=2 * max(spacing))


def written_twice(folder: Path) -> tuple[Path, ...]:
    labels = np.zeros((3, 5, 7), np.uint8)
    labels[1, 2:4, 2:5], labels[2, 1, 1] = 1, 2
    result = result_of(ct_series(voxels=np.zeros((3, 5, 7), np.int16)), folder / "source", labels)
    writer = Writer(WriterSettings(software_version="0.1.0"))
    first = writer.write(result, folder / "1")
    second = writer.write(result, folder / "2")
    assert [item.path.read_bytes() for item in first] == [item.path.read_bytes() for item in second]
    return tuple(item.path for item in first)


def test_the_same_result_gives_the_same_bytes_and_says_who_made_it(tmp_path: Path) -> None:
    seg, report = (dcmread(path) for path in written_twice(tmp_path))
    device = manifest().device_uid
    for ds in (seg, report):
        assert (ds.Manufacturer, ds.ManufacturerModelName) == (OWN_MANUFACTURER, "Lungs in CT")
        assert list(ds.SoftwareVersions) == ["1.0.0", "Voxgate 0.1.0"]
        assert ds.ContributingEquipmentSequence[0].DeviceUID == device == ds.DeviceSerialNumber
        assert ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert seg.SeriesNumber + 1 == report.SeriesNumber
    assert seg.SeriesDescription == report.SeriesDescription == "AI Voxgate Lungs in CT"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert [item.TrackingID for item in seg.SegmentSequence] == ["lungs left_lung", "lungs right_lung"]
    assert {item.SegmentAlgorithmType for item in seg.SegmentSequence} == {"AUTOMATIC"}


def test_numbers_keep_what_a_decimal_string_holds(tmp_path: Path) -> None:
    labels = np.zeros((3, 5, 7), np.uint8)
    labels[1] = 1
    series = ct_series(voxels=np.zeros((3, 5, 7), np.int16))
    values = (1e-17 / 3, -123456789.123456789, 1e300 / 3, 0.0)
    numbers = tuple(
        Measurement(segment="left_lung", concept=Code(str(i), "99X", "x"), value=value, unit=MEAN)
        for i, value in enumerate(values)
    )
    findings = Findings(labels=labels, segments=manifest().segments, measurements=numbers)
    result = result_of(series, tmp_path / "source", findings=findings)
    writer = Writer()
    writer.verify(result, writer.write(result, tmp_path / "results"))


def test_a_report_of_nothing_measured_has_no_segmentation(tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((3, 5, 7), np.int16))
    result = result_of(series, tmp_path / "source", findings=Findings(labels=None, narrative="Clear."))
    writer = Writer()
    objects = writer.write(result, tmp_path / "results")
    writer.verify(result, objects)
    assert [item.kind for item in objects] == ["SR"]


@pytest.mark.parametrize("said", ["by the last image", "by its transfer syntax", "by none"])
def test_a_segmentation_says_that_an_image_of_its_source_was_compressed_with_loss(said: str, tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((4, 16, 20), np.int16))
    if said == "by the last image":
        series[3].LossyImageCompression = "01"
    labels = np.ones((4, 16, 20), np.uint8)
    findings = Findings(labels=labels, segments=(lung(LEFT),))
    result = result_of(series, tmp_path / "source", findings=findings, engine=manifest(segments=findings.segments))
    if said == "by its transfer syntax":
        path = result.source_paths[2]
        ds = dcmread(path)
        ds.file_meta.TransferSyntaxUID = JPEGExtended12Bit  # pixels are not looked at
        ds.PixelData = encapsulate([bytes(8)])
        ds.save_as(path)
    (seg, *_) = Writer().write(result, tmp_path / "results")
    assert dcmread(seg.path).LossyImageCompression == ("00" if said == "by none" else "01")


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    write_durably(tmp_path / "new" / "seg.dcm", [b"ab", b"c"])
    write_durably(tmp_path / "new" / "seg.dcm", [b"d"])
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {"seg.dcm": b"d"}


def test_a_full_disk_and_a_forbidden_one_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        write_durably(tmp_path / "file" / "seg.dcm", [b"x"])
    with pytest.raises(OutOfSpace):
        write_durably(tmp_path / "seg.dcm", FullDisk())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


class FullDisk(list[bytes]):
    """Pieces whose writing fails as on a full disk."""

    def __iter__(self) -> Iterator[bytes]:
        raise OSError(errno.ENOSPC, "")


def test_findings_on_another_grid_are_refused(tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((3, 5, 7), np.int16))
    result = result_of(series, tmp_path / "source", np.ones((3, 5, 7), np.uint8))
    with pytest.raises(ValueError, match="one source instance"):
        Writer().write(replace(result, source_paths=result.source_paths[:2]), tmp_path / "results")
