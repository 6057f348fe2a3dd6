"""Siemens mosaics: taken apart where all that says how the slices lie goes together, refused by name where not."""

from __future__ import annotations

import gzip
import re
import time
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from enhanced import enhanced
from factories import headers_of, save
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaics import csa, image_elements, laid_out, mosaic, plan, series_elements, slices_of_mr
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from domain.errors import AssemblyError
from domain.instance import Mosaic
from domain.series import RefusalCode, Stack
from domain.volume import Volume
from volume.assembly import assemble
from volume.csa import CsaFault, mosaic_of, read_csa, read_mosaic
from volume.digest import inspect
from volume.grouping import group
from volume.header import header_of
from volume.header_json import header_from_json, header_to_json
from volume.numbers import listed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it calls itself experimental
    from nibabel.nicom import csareader, dicomwrappers


def noise(count: int = 7, rows: int = 12, columns: int = 10, seed: int = 1) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(1, 4000, (count, rows, columns)).astype(np.int16)


def volume_of(datasets: Sequence[Dataset]) -> Volume:
    """Return the only volume in some instances, by way of files, as intake reads them."""
    (stack, paths), folder = stacks_of(datasets)
    with folder:
        assert stack[0].refusal is None, stack[0].refusal
        return assemble(stack[0], paths)


def stacks_of(
    datasets: Sequence[Dataset],
) -> tuple[tuple[tuple[Stack, ...], dict[str, Path]], TemporaryDirectory[str]]:
    folder = TemporaryDirectory()
    headers = [inspect(path)[0] for path in save(datasets, Path(folder.name))]
    paths = {h.sop_instance_uid: p for h, p in zip(headers, sorted(Path(folder.name).iterdir()), strict=True)}
    return (group(headers), paths), folder


def refusal_of(ds: Dataset) -> str:
    (stack,) = group(headers_of([ds]))
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.SIEMENS_MOSAIC
    assert "without mosaic, or as Enhanced MR" in stack.refusal.reason
    return stack.refusal.reason


def by_slices(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return an affine of (row, column, slice) for (slice, row, column)."""
    return affine[:, [2, 0, 1, 3]]


rotations = st.tuples(st.floats(0, 360), st.floats(-90, 90), st.floats(0, 360))
lengths = st.floats(0.5, 6).map(lambda x: round(x, 4))


@settings(max_examples=25, deadline=None)
@given(
    turned=rotations,
    count=st.integers(2, 17),
    spacing=lengths,
    in_plane=st.tuples(lengths, lengths),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    descending=st.booleans(),
)
def test_a_mosaic_is_the_volume_of_its_single_slices_and_of_nibabel(
    turned: tuple[float, float, float],
    count: int,
    spacing: float,
    in_plane: tuple[float, float],
    origin: tuple[float, float, float],
    descending: bool,
) -> None:
    axes = Rotation.from_euler("xyz", turned, degrees=True).as_matrix()
    slices = slices_of_mr(
        noise(count),
        spacing_mm=spacing,
        in_plane_spacing_mm=in_plane,
        origin_mm=origin,
        orientation=[*axes[:, 0], *axes[:, 1]],
    )
    whole = mosaic(slices[::-1] if descending else slices)
    apart, single = volume_of([whole]), volume_of(slices)
    assert np.array_equal(apart.voxels, single.voxels)
    assert np.abs(apart.grid.affine - single.grid.affine).max() < 1e-3
    assert apart.sop_instance_uids == (str(whole.SOPInstanceUID),) * count
    numbers = tuple(range(1, count + 1))
    assert apart.frame_numbers == (numbers[::-1] if descending else numbers)

    judge = dicomwrappers.wrapper_from_data(whole)  # type: ignore[no-untyped-call]
    theirs = np.moveaxis(judge.get_data(), 2, 0)[:: -1 if descending else 1]
    assert np.array_equal(apart.voxels, theirs)
    affine = by_slices(judge.affine)
    if descending:
        affine[:3, 3] += affine[:3, 0] * (count - 1)
        affine[:3, 0] *= -1
    assert np.abs(apart.grid.affine - affine).max() < 1e-3


def test_the_private_header_is_read_as_nibabel_reads_it() -> None:
    slices = slices_of_mr(noise())
    data = csa(image_elements(slices))
    tags = csareader.read(data)["tags"]  # type: ignore[no-untyped-call]
    theirs = {name: tuple(map(str, element["items"])) for name, element in tags.items()}
    ours = read_csa(data)
    assert ours.keys() == theirs.keys()
    assert [float(x) for x in ours["SliceNormalVector"]] == [float(x) for x in theirs["SliceNormalVector"]]
    assert ours["NumberOfImagesInMosaic"] == theirs["NumberOfImagesInMosaic"] == ("7",)


@pytest.mark.parametrize("name", ["siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz"])
def test_a_mosaic_of_a_real_scanner_lies_where_nibabel_says(name: str, tmp_path: Path) -> None:
    data = files("nibabel.nicom.tests") / "data" / name
    ds = dcmread(BytesIO(gzip.decompress(data.read_bytes())))
    (path,) = save([ds], tmp_path)
    header, _ = inspect(path)
    assert header.mosaic is not None
    assert len(header.mosaic.planned_mm) == 48  # the protocol is there, and was compared
    (stack,) = group([header])
    volume = assemble(stack, {header.sop_instance_uid: path})
    judge = dicomwrappers.wrapper_from_data(ds)  # type: ignore[no-untyped-call]
    assert np.array_equal(volume.voxels, np.moveaxis(judge.get_data(), 2, 0))
    assert np.abs(volume.grid.affine - by_slices(judge.affine)).max() < 1e-3
    assert volume.grid.shape == (48, 128, 128)


def test_several_mosaics_are_a_stack_each_named_by_what_differs() -> None:
    series = []
    for number, b_value in enumerate(["0", "1000", "1000"], start=1):
        ds = mosaic(slices_of_mr(noise(seed=number)), number=number)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
        ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", b_value)
        series.append(ds)
    (stacks, paths), folder = stacks_of(series)
    with folder:
        assert [stack.name for stack in stacks] == [
            "axial, b-value 0, acquisition 1",
            "axial, b-value 1000, acquisition 2",
            "axial, b-value 1000, acquisition 3",
        ]
        for seed, stack in enumerate(stacks, start=1):
            assert np.array_equal(assemble(stack, paths).voxels, noise(seed=seed))


def test_a_compressed_mosaic_is_decoded_once_and_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = slices_of_mr(noise())
    whole = mosaic(slices)
    whole.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(volume_of([whole]).voxels, volume_of(slices).voxels)


def test_a_mosaic_survives_the_index(tmp_path: Path) -> None:
    (path,) = save([mosaic(slices_of_mr(noise()))], tmp_path)
    header = replace(inspect(path)[0], patient=None)
    assert header.mosaic is not None
    assert header_from_json(header_to_json(header)) == header
    assert len(header_to_json(header)) < 2500


def test_messages_about_tiles_call_them_tiles() -> None:
    (stack,) = group(headers_of([mosaic(slices_of_mr(noise()))]))
    assert listed(stack.headers) == "tile 1 to 7"


# -- Proof ----------------------------------------------------------------------------------------------------------

SLICES = slices_of_mr(noise())


def with_image(**changes: tuple[str, Sequence[str]] | None) -> Dataset:
    said = {name: value for name, value in (image_elements(SLICES) | changes).items() if value is not None}
    return mosaic(SLICES, image_header=csa(said))


def with_plan(**changes: str) -> Dataset:
    return mosaic(SLICES, series_header=csa(series_elements(SLICES, **changes)))


def changed(**values: object) -> Dataset:
    ds = mosaic(SLICES)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def shifted(k: int, axis: str, mm: float) -> Dataset:
    name = f"sSliceArray.asSlice[{k}].sPosition.{axis}"
    return with_plan(**{name: str(float(plan(SLICES)[name]) + mm)})


def with_public_count(count: int) -> Dataset:
    ds = mosaic(SLICES)
    ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
    return ds


HEADER = csa(image_elements(SLICES))

UNPROVEN: list[tuple[str, Callable[[], Dataset], str]] = [
    ("no header", lambda: mosaic(SLICES, image_header=None), "CSA header .* it is missing"),
    ("no header at all", lambda: mosaic(SLICES, image_header=None, series_header=None), "it is missing"),
    ("another form", lambda: mosaic(SLICES, image_header=HEADER[8:]), "the form SV10"),
    ("cut off", lambda: mosaic(SLICES, image_header=HEADER[:-40]), "cut off or damaged"),
    ("damaged", lambda: mosaic(SLICES, image_header=HEADER[:12] + b"\xff" + HEADER[13:]), "damaged"),
    ("protocol damaged", lambda: mosaic(SLICES, series_header=b"SV10\4\3\2\1\0"), "cut off or damaged"),
    ("no count", lambda: with_image(NumberOfImagesInMosaic=None), "NumberOfImagesInMosaic .* missing"),
    ("count of none", lambda: with_image(NumberOfImagesInMosaic=("US", ["0"])), "NumberOfImagesInMosaic .* missing"),
    ("other count", lambda: with_public_count(8), "contradicts the attribute NumberOfImagesInMosaic"),
    ("more than planned", lambda: with_image(NumberOfImagesInMosaic=("US", ["8"])), "another number of slices"),
    ("not divisible", lambda: with_image(NumberOfImagesInMosaic=("US", ["60"])), "cannot be divided by 8"),
    ("no normal", lambda: with_image(SliceNormalVector=None), "SliceNormalVector .* missing"),
    ("other normal", lambda: with_image(SliceNormalVector=("FD", ["0", "0.01", "0.99995"])), "is not the normal"),
    ("reversed", lambda: with_image(SliceNormalVector=("FD", ["0", "0", "-1"])), "lie elsewhere"),
    ("renumbered", lambda: with_image(ProtocolSliceNumber=("IS", ["6"])), "another order"),
    ("renumbered by plan", lambda: with_plan(**{"sSliceArray.ucImageNumbTra": "0x1"}), "another order"),
    ("no spacing", lambda: mosaic(slices_without_spacing(), series_header=None), "SpacingBetweenSlices is missing"),
    ("other spacing", lambda: changed(SpacingBetweenSlices="3.31"), "lie elsewhere"),
    ("thickness is no distance", lambda: changed(SpacingBetweenSlices="3.0"), "lie elsewhere"),
    ("one slice elsewhere", lambda: shifted(3, "dTra", 0.02), "lie elsewhere"),
    ("one slice aside", lambda: shifted(3, "dSag", 0.02), "lie elsewhere"),
    ("moved already", lambda: changed(ImagePositionPatient=list(SLICES[0].ImagePositionPatient)), "lie elsewhere"),
    ("other size", lambda: with_plan(**extents("dReadoutFOV", "20.1")), "not the size of a tile"),
    ("mixed sizes", lambda: with_plan(**{"sSliceArray.asSlice[2].dReadoutFOV": "99"}), "differ in size"),
    ("unreadable plan", lambda: with_plan(**{"sSliceArray.asSlice[2].sPosition.dTra": "x"}), "cannot be read"),
    ("no position", lambda: changed(ImagePositionPatient=None), "is missing"),
    ("no place", lambda: changed(PixelSpacing=[0, 1]), "is no place"),
    ("not orthonormal", lambda: changed(ImageOrientationPatient=[1, 0.2, 0, 0, 1, 0]), "perpendicular"),
]  # fmt: skip


def slices_without_spacing() -> list[Dataset]:
    slices = slices_of_mr(noise())
    for ds in slices:
        del ds.SpacingBetweenSlices
    return slices


def extents(name: str, value: str) -> dict[str, str]:
    return {f"sSliceArray.asSlice[{k}].{name}": value for k in range(len(SLICES))}


@pytest.mark.parametrize(
    ("make", "said"), [(make, said) for _, make, said in UNPROVEN], ids=[n for n, *_ in UNPROVEN]
)
def test_what_is_not_proven_is_refused_by_name(make: Callable[[], Dataset], said: str) -> None:
    reason = refusal_of(make())
    assert re.search(said, reason), reason


def test_without_a_protocol_the_spacing_is_that_of_the_attribute() -> None:
    slices = slices_of_mr(noise())
    apart = volume_of([mosaic(slices, series_header=None)])
    assert np.abs(apart.grid.affine - volume_of(slices).grid.affine).max() < 1e-3


def test_without_the_attribute_the_spacing_is_that_of_the_protocol() -> None:
    slices = slices_without_spacing()
    apart = volume_of([mosaic(slices)])
    assert np.abs(apart.grid.affine - volume_of(slices).grid.affine).max() < 1e-3


def test_something_behind_the_last_tile_is_refused() -> None:
    whole = mosaic(SLICES)
    image = laid_out([*(ds.pixel_array for ds in SLICES), np.full((12, 10), 5, np.int16)])
    whole.PixelData = image.tobytes()
    with pytest.raises(AssemblyError, match="behind the last of the slices"):
        volume_of([whole])
    whole.PixelPaddingValue = 5
    assert volume_of([whole]).grid.shape == (7, 12, 10)


def test_a_mosaic_and_single_slices_in_one_series_are_kept_apart() -> None:
    slices = slices_of_mr(noise())
    stacks = group(headers_of([*slices, mosaic(slices)]))
    assert [len(stack.headers) for stack in stacks] == [7, 7]
    assert all(stack.refusal is None for stack in stacks)
    assert [stack.headers[0].tile is None for stack in stacks] == [True, False]


def test_other_images_that_call_themselves_mosaic_stay_refused() -> None:
    ds = mosaic(SLICES)
    ds.NumberOfFrames = 2
    header = header_of(ds, ds.file_meta.TransferSyntaxUID)
    assert header.mosaic is None
    (stack,) = group([header])
    assert stack.refusal is not None
    assert stack.refusal.code is RefusalCode.UNSUPPORTED_SOP_CLASS


def test_frames_of_an_enhanced_image_that_are_mosaics_are_refused() -> None:
    ds = enhanced(slices_of_mr(noise()), sop_class_uid=EnhancedMRImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    assert "frames of an enhanced image" in refusal_of(ds)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_the_private_headers_ever_gives_another_volume(data: st.DataObject) -> None:
    image, series = bytearray(HEADER), bytearray(csa(series_elements(SLICES)))
    for _ in range(data.draw(st.integers(1, 3))):
        header = data.draw(st.sampled_from([image, series]))
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    (stack,) = group(headers_of([mosaic(SLICES, image_header=bytes(image), series_header=bytes(series))]))
    if stack.refusal is None:
        right = group(headers_of([mosaic(SLICES)]))[0]
        assert [h.tile for h in stack.headers] == [h.tile for h in right.headers]
        places, expected = ([h.image_position_mm or () for h in one.headers] for one in (stack, right))
        assert np.abs(np.subtract(places, expected)).max() < 1e-3


def test_a_damaged_file_is_a_fault_and_no_traceback(tmp_path: Path) -> None:
    (path,) = save([mosaic(SLICES)], tmp_path)
    path.write_bytes(path.read_bytes()[:600])
    assert isinstance(read_mosaic(path), Mosaic)
    with pytest.raises(CsaFault):
        read_csa(b"")


@pytest.mark.parametrize("end_of_line", ["\n", " "])
def test_a_protocol_that_begins_again_and_again_is_read_in_no_time(end_of_line: str) -> None:
    """A receiver reads it while others wait."""
    text = f"### ASCCONV BEGIN ###{end_of_line}" * 10_000
    ds = mosaic(SLICES, series_header=csa({"MrPhoenixProtocol": ("UN", [text])}))
    began = time.process_time()
    assert "protocol" in mosaic_of(ds).fault
    assert time.process_time() - began < 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_mosaic_with_a_huge_private_attribute_is_taken_in_with_little_memory(syntax: UID, tmp_path: Path) -> None:
    ds = mosaic(SLICES)
    ds.private_block(0x0029, "SOMEBODY ELSE", create=True).add_new(0x01, "OB", bytes(64 << 20))
    ds.file_meta.TransferSyntaxUID = syntax
    (path,) = save([ds], tmp_path)
    del ds
    tracemalloc.start()
    try:
        header, _ = inspect(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert header.mosaic is not None
    assert most < 8 << 20
