from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from factories import ct_slice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from domain.errors import MalformedInstance
from domain.instance import Header
from volume.digest import inspect, read_header

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, element) for element in (0xE000, 0xE00D, 0xE0DD))
UNDEFINED = b"\xff\xff\xff\xff"


def sample() -> Dataset:
    """Return a slice with what encodings differ in: sequences, private attributes, odd lengths, binary words."""
    ds = ct_slice()
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-D3000", "SRT", "Chest"
    inner = Dataset()
    inner.CodeValue = "G-A138"
    item.EquivalentCodeSequence = Sequence([inner, Dataset()])
    ds.AnatomicRegionSequence = Sequence([item])
    ds.ReferencedImageSequence = Sequence([])
    ds.add_new(0x00280106, "SS", -1000)
    ds.FrameReferenceDateTime = "20240102101112.5"
    block = ds.private_block(0x0019, "ACME 1.0", create=True)
    block.add_new(1, "LO", "odd")
    block.add_new(2, "DS", ["1", "22"])
    block.add_new(3, "US", [1, 0x2000])
    block.add_new(4, "SQ", Sequence([deepcopy(item)]))
    block.add_new(5, "FD", 1.5)
    block.add_new(6, "OB", b"\x00\x01\x02")
    return ds


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    ds = deepcopy(ds)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if not little:
        ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
    ds.save_as(path, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


def part10(path: Path, dataset: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a Part 10 file around encoded bytes."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value
    path.write_bytes(bytes(128) + b"DICM" + meta + dataset)
    return path


def dataset_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return data[data.index(b"\x08\x00\x05\x00") :]


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_the_transfer_syntax_does_not_change_the_digest(syntax: str, tmp_path: Path) -> None:
    ds = sample()
    header, digest = inspect(save(ds, tmp_path / "a.dcm"))
    other_header, other = inspect(save(ds, tmp_path / "b.dcm", syntax))
    assert other == digest
    assert other_header.transfer_syntax_uid == syntax
    assert other_header.image_position_mm == header.image_position_mm
    assert other_header.rows == header.rows == 16


def test_undefined_lengths_group_lengths_and_padding_do_not_change_the_digest(tmp_path: Path) -> None:
    ds = sample()
    _, digest = inspect(save(ds, tmp_path / "a.dcm"))
    for sequence in (ds.AnatomicRegionSequence, ds.AnatomicRegionSequence[0].EquivalentCodeSequence):
        sequence.is_undefined_length = True
        for item in sequence:
            item.is_undefined_length_sequence_item = True
    save(ds, tmp_path / "b.dcm")
    group_length = struct.pack("<HH2sHI", 8, 0, b"UL", 4, 1234)
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 8) + bytes(8)
    part10(tmp_path / "c.dcm", group_length + dataset_bytes(tmp_path / "b.dcm") + padding)
    assert (tmp_path / "b.dcm").read_bytes() != (tmp_path / "a.dcm").read_bytes()
    assert {inspect(tmp_path / name)[1] for name in ("b.dcm", "c.dcm")} == {digest}


def test_padding_of_text_does_not_change_the_digest(tmp_path: Path) -> None:
    ds = sample()
    _, digest = inspect(save(ds, tmp_path / "a.dcm"))
    ds.StudyDescription += "    "
    ds.InstanceNumber = "1 "
    assert inspect(save(ds, tmp_path / "b.dcm"))[1] == digest


def test_attributes_out_of_order_do_not_change_the_digest(tmp_path: Path) -> None:
    path = save(ct_slice(), tmp_path / "a.dcm")
    data = dataset_bytes(path)
    length = 8 + struct.unpack_from("<H", data, 6)[0]
    second = length + 8 + struct.unpack_from("<H", data, length + 6)[0]
    swapped = data[length:second] + data[:length] + data[second:]
    assert inspect(part10(tmp_path / "b.dcm", swapped))[1] == inspect(path)[1]


def _pixel(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[:-1] + b"\x7f"


def _description(ds: Dataset) -> None:
    ds.SeriesDescription = "sagittal"


def _deep(ds: Dataset) -> None:
    ds.AnatomicRegionSequence[0].EquivalentCodeSequence[0].CodeValue = "G-A139"


def _private(ds: Dataset) -> None:
    ds.private_block(0x0019, "ACME 1.0")[3].value = [1, 0x2001]


def _removed(ds: Dataset) -> None:
    del ds.KVP


def _item(ds: Dataset) -> None:
    ds.AnatomicRegionSequence[0].EquivalentCodeSequence.append(Dataset())


@pytest.mark.parametrize("change", [_pixel, _description, _deep, _private, _removed, _item])
def test_any_change_of_content_changes_the_digest(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    ds = sample()
    _, digest = inspect(save(ds, tmp_path / "a.dcm"))
    change(ds)
    assert inspect(save(ds, tmp_path / "b.dcm"))[1] != digest


def encapsulated(path: Path, *, offset_table: bool, frame: bytes = b"\xff\x4f\xff\x51codestream!!") -> Path:
    ds = ct_slice(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", frame_of_reference_uid="1.2.3.5")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5")
    ds.PixelData = encapsulate([frame], has_bot=offset_table)
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(path, enforce_file_format=True)
    return path


def test_the_offset_table_does_not_change_the_digest_but_the_frame_does(tmp_path: Path) -> None:
    _, digest = inspect(encapsulated(tmp_path / "a.dcm", offset_table=True))
    assert inspect(encapsulated(tmp_path / "b.dcm", offset_table=False))[1] == digest
    other = encapsulated(tmp_path / "c.dcm", offset_table=True, frame=b"\xff\x4f\xff\x51codestream!?")
    assert inspect(other)[1] != digest


def test_an_unknown_transfer_syntax_is_kept_as_it_is(tmp_path: Path) -> None:
    known = encapsulated(tmp_path / "a.dcm", offset_table=True)
    private = part10(tmp_path / "b.dcm", dataset_bytes(known), "1.2.999.4711")
    header, digest = inspect(private)
    assert header.transfer_syntax_uid == "1.2.999.4711"
    assert digest == inspect(known)[1]


def test_a_private_sequence_hidden_in_un_is_the_same_sequence(tmp_path: Path) -> None:
    private = struct.pack("<HH2sH", 0x0019, 0x0010, b"LO", 4) + b"ACME"
    text = b"ab"
    explicit = struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 2) + text
    implicit = struct.pack("<HHI", 0x0008, 0x0100, 2) + text
    before, after = _around(tmp_path)
    defined = struct.pack("<HH2sHI", 0x0019, 0x1001, b"SQ", 0, len(explicit) + 8) + ITEM + struct.pack("<I", 10)
    undefined = struct.pack("<HH2sH", 0x0019, 0x1001, b"UN", 0) + UNDEFINED + ITEM + UNDEFINED
    opaque = struct.pack("<HH2sHI", 0x0019, 0x1001, b"UN", 0, 18) + ITEM + struct.pack("<I", 10)
    ends = ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)
    bodies = (defined + explicit, undefined + implicit + ends, opaque + implicit, undefined + explicit + ends)
    digests = {
        inspect(part10(tmp_path / f"{number}.dcm", before + private + body + after))[1]
        for number, body in enumerate(bodies)
    }
    assert len(digests) == 1


def _around(tmp_path: Path) -> tuple[bytes, bytes]:
    """Return the encoded slice before and after where group 0019 belongs."""
    data = dataset_bytes(save(ct_slice(), tmp_path / "whole.dcm"))
    at = data.index(struct.pack("<HH", 0x0020, 0x000D))
    return data[:at], data[at:]


def test_every_truncation_is_noticed_or_leaves_whole_attributes(tmp_path: Path) -> None:
    path = save(sample(), tmp_path / "a.dcm")
    whole = path.read_bytes()
    pixels = whole.index(b"\xe0\x7f\x10\x00")
    for length in range(0, len(whole), 7):
        cut = tmp_path / "cut.dcm"
        cut.write_bytes(whole[:length])
        with suppress(MalformedInstance):
            header, _ = inspect(cut)
            assert length <= pixels, "pixel data was cut and nobody noticed"
            assert not header.has_pixel_data


def test_pixel_data_shorter_than_the_matrix_is_malformed(tmp_path: Path) -> None:
    ds = ct_slice()
    ds.PixelData = ds.PixelData[:-2]
    with pytest.raises(MalformedInstance, match="PixelData is shorter") as caught:
        inspect(save(ds, tmp_path / "a.dcm"))
    assert caught.value.sop_class_uid == CTImageStorage
    assert caught.value.sop_instance_uid == ds.SOPInstanceUID


def test_encapsulated_pixel_data_without_an_end_is_malformed(tmp_path: Path) -> None:
    path = encapsulated(tmp_path / "a.dcm", offset_table=True)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(MalformedInstance, match="has no end"):
        inspect(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0" + bytes(400), "no DICM prefix"),
        (bytes(128) + b"DICM", "TransferSyntaxUID"),
        (bytes(128) + b"DICM" + b"\x02\x00\x10\x00??\x00\x00", "cannot be parsed"),
        (bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\x00", "ends inside"),
    ],
)
def test_what_is_not_part_10_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(data)
    with pytest.raises(MalformedInstance, match=said):
        inspect(tmp_path / "a.dcm")


def test_a_bomb_of_nested_sequences_is_refused(tmp_path: Path) -> None:
    deep = (struct.pack("<HHI", 0x0040, 0xA730, 0xFFFFFFFF) + ITEM + UNDEFINED) * 5000
    with pytest.raises(MalformedInstance, match="nested"):
        inspect(part10(tmp_path / "a.dcm", deep, ImplicitVRLittleEndian))


_BASE: dict[str, bytes] = {}


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_anywhere_is_an_answer_and_never_a_traceback(data: st.DataObject, tmp_path: Path) -> None:
    if not _BASE:
        _BASE["explicit"] = save(sample(), tmp_path / "a.dcm").read_bytes()
        _BASE["implicit"] = save(sample(), tmp_path / "a.dcm", ImplicitVRLittleEndian).read_bytes()
        _BASE["big"] = save(sample(), tmp_path / "a.dcm", ExplicitVRBigEndian).read_bytes()
        _BASE["deflated"] = save(sample(), tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian).read_bytes()
    damaged = bytearray(_BASE[data.draw(st.sampled_from(sorted(_BASE)))])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(128, len(damaged) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        damaged[at : at + len(piece)] = piece
    path = tmp_path / "damaged.dcm"
    path.write_bytes(damaged)
    with suppress(MalformedInstance):
        header, digest = inspect(path)
        assert len(digest) == 64
        assert header.sop_instance_uid
    assert answer(read_header, path) == answer(lambda path: inspect(path)[0], path)


def answer(read: Callable[[Path], Header], path: Path) -> tuple[object, ...]:
    try:
        header = read(path)
    except MalformedInstance as error:
        return str(error), error.attribute
    return header, header.pixel_data_offset


def test_a_huge_instance_is_read_in_bounded_memory(tmp_path: Path) -> None:
    ds = ct_slice()
    ds.Rows = ds.Columns = 10240
    ds.NumberOfFrames = 3
    del ds.PixelData
    path = save(ds, tmp_path / "a.dcm")
    size = 10240 * 10240 * 2 * 3
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size))
        file.truncate(file.tell() + size)  # a hole: 600 MB that take no room on the disk
    code = (
        "import sys, resource; from pathlib import Path; from volume.digest import inspect;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "inspect(Path(sys.argv[1]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20 * 1024, "KiB more than before"


def test_a_few_bytes_that_inflate_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volume.part10._LARGEST_INFLATED", 3 << 20)
    bomb = ct_slice()
    bomb.PixelData = bytes(4 << 20)
    path = save(bomb, tmp_path / "bomb.dcm", DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10_000
    with pytest.raises(MalformedInstance, match="larger than"):
        inspect(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_of_a_dataset_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """What lies in stores was digested by them: another digest would call every stored file damaged."""
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator = "39607008", "SCT"
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3.2", "1.2.3.3", "CT"
    ds.ImageComments, ds.RescaleSlope, ds.AnatomicRegionSequence = "odd" * 101, "1.5", [inner]
    ds.add_new(0x00091001, "LO", "private")
    ds.Rows = ds.Columns = 200
    ds.SamplesPerPixel, ds.BitsAllocated = 1, 16
    ds.PixelData = bytes(range(250)) * 320
    ds.file_meta = FileMetaDataset()
    _, digest = inspect(save(ds, tmp_path / "a.dcm"))
    assert digest == "16f555c82bfe0cd20809f68a32c9ebc1184d0a4e6041d56d979aef77fc056338"
