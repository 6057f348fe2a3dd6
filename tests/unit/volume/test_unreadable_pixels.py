"""Pixels that cannot be read, and what is said about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from factories import ct_series, headers_of
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGExtended12Bit
from transfer_syntaxes import as_big_endian, as_deflated, as_implicit, as_rle, stored

from domain.errors import AssemblyError, StorageError
from domain.series import RefusalCode, Stack
from volume.assembly import assemble
from volume.grouping import group


def spoiled(series: list[Dataset], folder: Path, spoil: Callable[[Path], object]) -> AssemblyError:
    """Assemble with the third slice's file spoiled; return the error."""
    (stack,) = group(headers_of(series))
    paths = stored(series, folder)
    spoil(paths[str(series[2].SOPInstanceUID)])
    with pytest.raises(AssemblyError) as caught:
        assemble(stack, paths)
    return caught.value


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def shorten_value(path: Path) -> None:
    data = path.read_bytes()
    start = len(data) - 16 * 20 * 2
    path.write_bytes(data[: start - 4] + (600).to_bytes(4, "little") + data[start : start + 600])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [cut, shorten_value, empty])
@pytest.mark.parametrize("encode", [lambda ds: None, as_implicit])
def test_truncated_pixels_are_refused_and_the_instance_named(
    spoil: Callable[[Path], object], encode: Callable[[Dataset], object], tmp_path: Path
) -> None:
    series = ct_series(4)
    for ds in series:
        encode(ds)
    error = spoiled(series, tmp_path, spoil)
    assert (error.code, error.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (3,))
    assert "Little Endian" in str(error)


@pytest.mark.parametrize("encode", [as_deflated, as_big_endian, as_rle])
def test_damage_in_other_encodings_is_refused_without_the_words_of_a_library(
    encode: Callable[[Dataset], object], tmp_path: Path
) -> None:
    series = ct_series(4)
    for ds in series:
        encode(ds)
    error = spoiled(series, tmp_path, cut)
    assert (error.code, error.instance_numbers) == (RefusalCode.PIXELS_UNREADABLE, (3,))
    assert "CANARY" not in str(error)


def test_big_endian_pixels_that_are_too_short_are_refused(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        as_big_endian(ds)
    series[1].PixelData = series[1].PixelData[:100]
    (stack,) = group(headers_of(series))
    with pytest.raises(AssemblyError, match="shorter than Rows") as caught:
        assemble(stack, stored(series, tmp_path))
    assert caught.value.instance_numbers == (2,)


@pytest.mark.parametrize(
    ("syntax", "name"), [(JPEGExtended12Bit, "JPEG Extended"), ("1.2.3.4", "transfer syntax: a private one")]
)
def test_what_no_decoder_takes_is_refused_with_the_name_of_the_transfer_syntax(
    syntax: str, name: str, tmp_path: Path
) -> None:
    series = ct_series(3)
    for ds in series:
        as_rle(ds)
    paths = stored(series, tmp_path)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = UID(syntax)
    (stack,) = group(headers_of(series))
    with pytest.raises(AssemblyError, match=name) as caught:
        assemble(stack, paths)
    assert caught.value.code == RefusalCode.PIXELS_UNREADABLE
    assert len(caught.value.instance_numbers) == 1


def test_an_image_of_another_size_than_its_header_is_refused(tmp_path: Path) -> None:
    series = ct_series(3)
    for ds in series:
        as_rle(ds)
    paths = stored(series, tmp_path)
    for ds in series:
        ds.Rows = 32
    (stack,) = group(headers_of(series))
    with pytest.raises(AssemblyError, match="another size"):
        assemble(stack, paths)


def test_a_lost_file_is_a_fault_of_the_store(tmp_path: Path) -> None:
    series = ct_series(3)
    (stack,) = group(headers_of(series))
    paths = stored(series, tmp_path)
    next(iter(paths.values())).unlink()
    with pytest.raises(StorageError):
        assemble(stack, paths)
    with pytest.raises(StorageError, match="not in the store"):
        assemble(stack, {})


def test_a_refused_stack_is_not_assembled(tmp_path: Path) -> None:
    series = [ds for ds in ct_series(5) if ds.InstanceNumber != 3]
    with pytest.raises(AssemblyError) as caught:
        assemble(Stack(name="", headers=tuple(headers_of(series))), stored(series, tmp_path))
    assert caught.value.code == RefusalCode.MISSING_SLICES


@pytest.mark.parametrize("encode", [as_big_endian, as_rle])
def test_a_lost_file_in_other_encodings_is_a_fault_of_the_store(
    encode: Callable[[Dataset], object], tmp_path: Path
) -> None:
    series = ct_series(3)
    for ds in series:
        encode(ds)
    (stack,) = group(headers_of(series))
    paths = stored(series, tmp_path)
    paths[str(series[1].SOPInstanceUID)].unlink()
    with pytest.raises(StorageError):
        assemble(stack, paths)
