"""Segmentations of every type, split, overlapping, on cine and single images, and parametric maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from factories import ct_series
from picture_results import picture_result, xa_cine
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from results import ball, grid_of, lung, manifest, result_of

from dicom_out.masks import masks_of
from dicom_out.profile import Options, Profile
from dicom_out.segoptions import LABEL_MAP_STORAGE, SegOptions
from dicom_out.segplan import plan_seg
from dicom_out.writer import Writer
from domain.codes import LEFT
from domain.engine import EngineManifest
from domain.errors import VerificationFailed
from domain.findings import Findings
from domain.job import ResultObject
from domain.ports import Result

SHAPE = (9, 31, 37)
TYPES = ("binary", "labelmap", "fractional")


def parts(count: int) -> EngineManifest:
    """Return an engine with that many segments."""
    segments = (replace(lung(LEFT), key=f"part_{n}", label=f"Part {n}") for n in range(1, count + 1))
    return manifest(segments=tuple(segments))


def three(folder: Path, *, overlapping: bool = False) -> Result:
    """Return three balls on an oblique series, the second in the first where they overlap, with probabilities."""
    series = ct_series(voxels=np.zeros(SHAPE, np.int16), orientation=(0.8, 0.6, 0, -0.6, 0.8, 0))
    grid, _ = grid_of(series)
    centres = ((4, 15, 11), (5, 15, 13) if overlapping else (5, 15, 28), (2, 6, 30))
    masks = tuple(ball(grid, grid.to_lps(c), r) for c, r in zip(centres, (6.0, 4.0, 3.0), strict=True))
    engine = parts(3)
    findings = Findings(
        labels=None,
        masks=masks,
        segments=engine.segments,
        probabilities=tuple((mask * np.float32(0.3 + 0.2 * n)).astype(np.float32) for n, mask in enumerate(masks)),
    )
    return result_of(series, folder / "source", findings=findings, engine=engine)


def write(result: Result, folder: Path, options: Options, objects: Sequence[str] = ("SEG",)) -> list[ResultObject]:
    """Write what such a profile asks for, verify it, and return it."""
    writer = writer_of(options, objects)
    written = writer.write(result, folder)
    writer.verify(result, written)
    return list(written)


def writer_of(options: Options, objects: Sequence[str] = ("SEG",)) -> Writer:
    return Writer(default=Profile(name="test", objects=tuple(objects), options=options))  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", ["none", "rle"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_passes_its_check_and_is_read_by_highdicom(tmp_path: Path, kind: str, compression: str) -> None:
    result = three(tmp_path)
    options = Options(segmentation=kind, compression=compression)  # type: ignore[arg-type]
    (written,) = write(result, tmp_path / "results", options)
    seg = highdicom.seg.segread(written.path)
    assert seg.SegmentationType == kind.upper()
    assert (seg.file_meta.TransferSyntaxUID == RLELossless) == (compression == "rle" and kind != "binary")
    volume = seg.get_volume(combine_segments=False, rescale_fractional=True)
    place = np.rint(result.patient_grid.to_index(volume.affine[:3, 3])).astype(int)[0]
    expected = result.findings.probabilities if kind == "fractional" else result.findings.masks
    step = int(np.sign(result.patient_grid.to_index(volume.affine[:3, 3] + volume.affine[:3, 0])[0] - place))
    found = np.zeros((*SHAPE, 3), np.float32)
    for offset in range(volume.shape[0]):
        found[place + step * offset] = volume.array[offset]
    for number in range(3):
        np.testing.assert_allclose(
            found[..., number], np.asarray(expected[number], np.float32), atol=0.5 / 255 + 1e-6
        )


def test_overlapping_segments_are_told_apart(tmp_path: Path) -> None:
    result = three(tmp_path, overlapping=True)
    (written,) = write(result, tmp_path / "results", Options())
    seg = highdicom.seg.segread(written.path)
    assert seg.SegmentsOverlap == "YES"
    volume = seg.get_volume(combine_segments=False)
    assert [int(volume.array[..., n].sum()) for n in range(3)] == [int(m.sum()) for m in result.findings.masks]


def test_overlapping_segments_are_never_a_label_map(tmp_path: Path) -> None:
    (written,) = write(three(tmp_path, overlapping=True), tmp_path / "results", Options(segmentation="labelmap"))
    assert (written.kind, dcmread(written.path).SegmentationType) == ("SEG", "BINARY")


def test_fractions_without_probabilities_are_binary(tmp_path: Path) -> None:
    result = three(tmp_path)
    result = replace(result, findings=replace(result.findings, probabilities=()))
    (written,) = write(result, tmp_path / "results", Options(segmentation="fractional"))
    assert dcmread(written.path).SegmentationType == "BINARY"


@pytest.mark.parametrize("kind", TYPES)
def test_too_many_frames_are_split_by_segments(tmp_path: Path, kind: str) -> None:
    result = three(tmp_path)
    written = write(result, tmp_path / "results", Options(segmentation=kind, max_frames=3), ("SEG", "SR"))  # type: ignore[arg-type]
    segs = [dcmread(item.path) for item in written if item.kind.startswith("SEG")]
    assert len(segs) > 1
    assert len({seg.SeriesInstanceUID for seg in segs}) == 1
    assert [seg.InstanceNumber for seg in segs] == list(range(1, len(segs) + 1))
    labels = [item.SegmentLabel for seg in segs for item in seg.SegmentSequence if item.SegmentNumber]
    assert labels == ["Part 1", "Part 2", "Part 3"]
    for seg in segs:
        assert seg.NumberOfFrames <= 3 or len(seg.SegmentSequence) == 1 + (kind == "labelmap")


def test_empty_frames_are_kept_on_demand(tmp_path: Path) -> None:
    result = three(tmp_path)
    (written,) = write(result, tmp_path / "results", Options(empty_frames=True))
    assert dcmread(written.path).NumberOfFrames == 3 * SHAPE[0]
    (written,) = write(result, tmp_path / "map", Options(segmentation="labelmap", empty_frames=True))
    assert dcmread(written.path).NumberOfFrames == SHAPE[0]


def test_nothing_found_is_a_segmentation_only_where_empty_frames_are_kept(tmp_path: Path) -> None:
    result = three(tmp_path)
    nothing = replace(result, findings=Findings(labels=np.zeros(SHAPE, np.uint8), segments=result.findings.segments))
    assert write(nothing, tmp_path / "1", Options()) == []
    (written,) = write(nothing, tmp_path / "2", Options(empty_frames=True))
    assert not dcmread(written.path).pixel_array.any()


def test_the_256th_segment_needs_16_bits(tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((2, 16, 17), np.int16))
    masks = np.zeros((256, 2, 16, 17), np.bool_)
    for number in range(256):
        masks[number, number % 2].flat[number] = True
    engine = parts(256)
    findings = Findings(labels=None, masks=tuple(masks), segments=engine.segments)
    result = result_of(series, tmp_path / "source", findings=findings, engine=engine)
    for compression in ("none", "rle"):
        options = Options(segmentation="labelmap", compression=compression)
        (written,) = write(result, tmp_path / compression, options)
        seg = dcmread(written.path)
        assert (seg.BitsAllocated, seg.SOPClassUID) == (16, LABEL_MAP_STORAGE)
        assert sorted(np.unique(highdicom.seg.segread(written.path).pixel_array)) == list(range(257))


def test_single_bits_are_not_compressed() -> None:
    with pytest.raises(ValueError, match="BINARY"):
        SegOptions(rle=True)
    with pytest.raises(ValueError, match="max_frames"):
        SegOptions(max_frames=0)


def test_a_segment_is_not_split(tmp_path: Path) -> None:
    findings = three(tmp_path).findings
    planned = plan_seg(findings, masks_of(findings), SegOptions(max_frames=1))
    assert [part.segments for part in planned] == [(1,), (2,), (3,)]
    assert all(len(part.frames) > 1 for part in planned)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("frames", [1, 5])
def test_images_without_patient_coordinates_have_segmentations(tmp_path: Path, kind: str, frames: int) -> None:
    result = picture_result(xa_cine(frames), tmp_path)
    (written,) = write(result, tmp_path / "results", Options(segmentation=kind))  # type: ignore[arg-type]
    seg = dcmread(written.path)
    assert "FrameOfReferenceUID" not in seg
    assert "PatientOrientation" in seg
    groups = [*seg.SharedFunctionalGroupsSequence, *seg.PerFrameFunctionalGroupsSequence]
    assert not any("PlanePositionSequence" in group or "PixelMeasuresSequence" in group for group in groups)
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert ("ReferencedFrameNumber" in source) == (frames > 1)
        if frames > 1:
            assert group.FrameContentSequence[0].TemporalPositionIndex == source.ReferencedFrameNumber
    dimensions = [str(item.DimensionDescriptionLabel) for item in seg.DimensionIndexSequence]
    expected = ["ReferencedSegmentNumber"] * (kind != "labelmap") + ["TemporalPositionIndex"] * (frames > 1)
    assert dimensions == (expected or ["FrameLabel"])


def fails(result: Result, folder: Path, options: Options, change: Callable[[Dataset], object], match: str) -> None:
    """Change what was written and expect the check to say ``match``."""
    objects = ("PMAP",) if match.startswith("PMAP") else ("SEG",)
    writer = writer_of(options, objects)
    written = writer.write(result, folder)
    ds = dcmread(written[0].path)
    change(ds)
    ds.save_as(written[0].path, enforce_file_format=True)
    with pytest.raises(VerificationFailed, match=match):
        writer.verify(result, written)


def one_pixel(ds: Dataset) -> None:
    """Change the first pixel."""
    ds.PixelData = bytes([ds.PixelData[0] ^ 3]) + ds.PixelData[1:]


def other_frame(ds: Dataset) -> None:
    """Name another frame of the source."""
    source = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedFrameNumber = 4


def other_time(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].TemporalPositionIndex = 3


def claimed_place(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = "2.25.1"


@pytest.mark.parametrize("kind", TYPES)
def test_one_changed_pixel_fails(tmp_path: Path, kind: str) -> None:
    fails(three(tmp_path), tmp_path / "results", Options(segmentation=kind), one_pixel, "1 voxel|2 voxel|no segment")  # type: ignore[arg-type]


@pytest.mark.parametrize("empty_frames", [False, True])
def test_each_single_bit_that_differs_is_found(tmp_path: Path, empty_frames: bool) -> None:
    result = three(tmp_path, overlapping=True)
    options = Options(empty_frames=empty_frames)
    (written,) = write(result, tmp_path / "results", options)
    data = bytearray(written.path.read_bytes())
    bits = dcmread(written.path).NumberOfFrames * SHAPE[1] * SHAPE[2]
    start = len(data) - -(-bits // 16) * 2
    for bit in np.random.default_rng(1).choice(bits, 60, replace=False).tolist():
        data[start + bit // 8] ^= 1 << bit % 8
        written.path.write_bytes(data)
        with pytest.raises(VerificationFailed, match=r"1 voxel\(s\) on 1 slice"):
            writer_of(options).verify(result, [written])
        data[start + bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (one_pixel, "2 voxel"),
        (other_frame, "another time"),
        (other_time, "another time"),
        (claimed_place, "a place in the patient"),
    ],
)
def test_faults_on_a_cine_are_found(tmp_path: Path, change: Callable[[Dataset], object], match: str) -> None:
    fails(picture_result(xa_cine(5), tmp_path), tmp_path / "results", Options(), change, match)


@pytest.mark.parametrize("kind", TYPES)
def test_a_missing_frame_fails(tmp_path: Path, kind: str) -> None:
    def change(ds: Dataset) -> None:
        frame = ds.Rows * ds.Columns * ds.BitsAllocated
        ds.NumberOfFrames -= 8
        ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:-8]
        kept = ds.PixelData[: -(-frame * ds.NumberOfFrames // 8)]
        ds.PixelData = kept + b"\0" * (len(kept) % 2)

    result = three(tmp_path)
    fails(result, tmp_path / "results", Options(segmentation=kind, empty_frames=True), change, r"voxel\(s\) on")  # type: ignore[arg-type]


def test_overlap_that_is_lost_fails(tmp_path: Path) -> None:
    result = three(tmp_path, overlapping=True)
    first, second, third = result.findings.masks
    apart = replace(result, findings=replace(result.findings, masks=(first & ~second, second, third)))
    writer = writer_of(Options())
    with pytest.raises(VerificationFailed, match="voxel"):
        writer.verify(result, writer.write(apart, tmp_path / "results"))


def test_probabilities_have_parametric_maps(tmp_path: Path) -> None:
    result = three(tmp_path)
    written = write(result, tmp_path / "results", Options(), ("PMAP",))
    assert len(written) == 3
    for item, expected in zip(written, result.findings.probabilities, strict=True):
        found = highdicom.pm.ParametricMap.from_dataset(dcmread(item.path))
        values = np.frombuffer(found.FloatPixelData, "<f4").reshape(-1, *SHAPE[1:])
        np.testing.assert_array_equal(values, expected[expected.any(axis=(1, 2))])


def test_a_changed_value_of_a_parametric_map_fails(tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.FloatPixelData = b"\0\0\0\x3f" + ds.FloatPixelData[4:]

    fails(three(tmp_path), tmp_path / "results", Options(), change, "PMAP: frame 1 is not")


def test_images_without_patient_coordinates_have_no_parametric_map(tmp_path: Path) -> None:
    result = picture_result(xa_cine(5), tmp_path)
    assert result.findings.probabilities
    assert write(result, tmp_path / "results", Options(), ("PMAP",)) == []


def test_probabilities_that_are_no_numbers_are_not_sent(tmp_path: Path) -> None:
    result = three(tmp_path)
    broken = np.array(result.findings.probabilities[0])
    broken[4, 15, 11] = np.nan
    values = (broken, *result.findings.probabilities[1:])
    result = replace(result, findings=replace(result.findings, probabilities=values))
    with pytest.raises(VerificationFailed):
        write(result, tmp_path / "results", Options(segmentation="fractional"))


@pytest.mark.parametrize("kind", ["labelmap", "fractional"])
def test_compressed_frames_that_are_damaged_fail(tmp_path: Path, kind: str) -> None:
    result = three(tmp_path)
    writer = writer_of(Options(segmentation=kind, compression="rle"))  # type: ignore[arg-type]
    (written,) = writer.write(result, tmp_path / "results")
    data = bytearray(written.path.read_bytes())
    first = data.rindex(b"\xe0\x7f\x10\x00OB")
    random, failed = np.random.default_rng(1), 0
    for place in random.integers(first + 12, len(data), 60).tolist():
        was, data[place] = data[place], data[place] ^ int(random.integers(1, 256))
        written.path.write_bytes(data)
        try:
            writer.verify(result, [written])
        except VerificationFailed:
            failed += 1
        data[place] = was
    assert failed > 40  # the rest is offsets, padding, or says the same in another way


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_segmentation_that_is_cut_short_fails(tmp_path: Path, share: float) -> None:
    result = three(tmp_path)
    writer = writer_of(Options())
    (written,) = writer.write(result, tmp_path / "results")
    data = written.path.read_bytes()
    written.path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VerificationFailed):
        writer.verify(result, [written])
