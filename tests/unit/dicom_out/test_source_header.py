"""Source headers as they come: character sets, identity, values that stop libraries."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from factories import ct_series, ct_slice, save
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from results import result_of

from dicom_out.source import read_source, source_header, string_values
from dicom_out.writer import Writer
from domain.codes import Code
from domain.findings import Evaluation, Findings
from domain.ports import Result
from volume.charset import normalised, undeclared

ENGINE_SAYS = Code("121071", "DCM", "Finding")
ONE = np.zeros((3, 4, 4), np.uint8)
ONE[1, 2, 2] = 1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ([""], None),
        ([], None),
        (["ISO_IR 6"], None),
        (["ISO-IR 100"], ("ISO_IR 100",)),
        (["ISO_IR_192"], ("ISO_IR 192",)),
        (["UTF-8"], ("ISO_IR 192",)),
        (["", "ISO 2022 IR 87"], ("", "ISO 2022 IR 87")),
        (["ISO_IR 100", "ISO 2022 IR 144"], ("ISO 2022 IR 100", "ISO 2022 IR 144")),
        (["GB18030"], ("GB18030",)),
        (["ISO_IR 192", "ISO 2022 IR 87"], ("ISO_IR 192",)),
        (["KLINGON"], None),
    ],
)
def test_a_character_set_is_what_its_spelling_means(written: list[str], meant: tuple[str, ...] | None) -> None:
    assert normalised(written) == meant


def test_bytes_without_a_character_set_get_one_that_can_decode_them() -> None:
    assert undeclared([b"PLAIN"]) is None
    assert undeclared(["Müller".encode()]) == ("ISO_IR 192",)
    assert undeclared(["Müller".encode("latin-1")]) == ("ISO_IR 100",)


def test_values_that_cannot_be_copied_are_taken_as_absent() -> None:
    ds = ct_slice()
    ds.SpecificCharacterSet = ""
    ds.PatientBirthDate, ds.StudyTime, ds.PatientSex = "00000000", "99", "X"
    ds.PixelSpacing, ds.SpacingBetweenSlices, ds.BodyPartExamined = ["0", "0"], "5", "chest/abd"
    del ds.PatientID, ds.StudyID
    header = source_header(reread(ds))
    assert "SpecificCharacterSet" not in header
    assert [header[k].value for k in ("PatientBirthDate", "StudyTime", "PatientSex", "PatientID", "StudyID")] == [
        "", "", "", "", "",
    ]  # fmt: skip
    assert not {"PixelSpacing", "SpacingBetweenSlices", "BodyPartExamined"} & set(header.dir())


def test_the_received_header_is_not_touched() -> None:
    ds = reread(ct_slice())
    before = ds.to_json()
    source_header(ds)
    assert ds.to_json() == before


def reread(ds: Dataset) -> Dataset:
    """Return a dataset as it comes from a file: nothing is decoded yet."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


NAMES = [
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("ISO_IR 144", "Чайковский^Пётр"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("ISO_IR 100", "Buc^Jérôme"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
]


def written(folder: Path, charset: str | list[str], name: str, findings: Findings | None = None) -> Result:
    series = ct_series(voxels=np.zeros((3, 4, 4), np.int16))
    for ds in series:
        ds.SpecificCharacterSet = charset
        ds.PatientName = name
        ds.ReferringPhysicianName = name
    return result_of(series, folder / "source", ONE, findings=findings)


@pytest.mark.parametrize(("charset", "name"), NAMES)
def test_names_survive_in_the_characters_of_their_country(
    tmp_path: Path, charset: str | list[str], name: str
) -> None:
    result = written(tmp_path, charset, name)
    source = dcmread(result.source_paths[0])
    objects = Writer().write(result, tmp_path / "results")
    Writer().verify(result, objects)
    for item in objects:
        ds = dcmread(item.path)
        assert ds.get_item("PatientName").value == source.get_item("PatientName").value
        assert ds.SpecificCharacterSet == source.SpecificCharacterSet
        assert str(ds.PatientName) == str(ds.ReferringPhysicianName) == name


@pytest.mark.parametrize(("charset", "name"), NAMES)
def test_names_are_the_same_in_unicode_where_a_text_of_ours_needs_it(
    tmp_path: Path, charset: str | list[str], name: str
) -> None:
    said = Evaluation(segment=None, concept=ENGINE_SAYS, value="µ ≥ 5 °")
    result = written(tmp_path, charset, name, Findings(labels=None, evaluations=(said,)))
    objects = Writer().write(result, tmp_path / "results")
    Writer().verify(result, objects)
    ds = dcmread(objects[0].path)
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == name


def test_a_name_without_a_character_set_keeps_its_bytes(tmp_path: Path) -> None:
    result = written(tmp_path, "ISO_IR 100", "Müller^Jörg")
    for path in result.source_paths:
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"          "))
    seg = dcmread(Writer().write(result, tmp_path / "results")[0].path)
    assert seg.get_item("PatientName").value.rstrip() == "Müller^Jörg".encode("latin-1")
    assert seg.SpecificCharacterSet == "ISO_IR 100"


def test_an_implicit_vr_source_gives_the_same_identity(tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((3, 4, 4), np.int16))
    result = result_of(series, tmp_path / "source", ONE)
    first = [dcmread(item.path) for item in Writer().write(result, tmp_path / "1")]
    for ds in series:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds["PixelData"].VR = "OW"
    for path, ds in zip(result.source_paths, series, strict=True):
        ds.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    second = [dcmread(item.path) for item in Writer().write(result, tmp_path / "2")]
    assert first == second


def test_dates_are_in_the_zone_that_the_source_declares(tmp_path: Path) -> None:
    series = ct_series(voxels=np.zeros((3, 4, 4), np.int16))
    for ds in series:
        ds.TimezoneOffsetFromUTC = "+0900"
    objects = Writer().write(result_of(series, tmp_path / "source", ONE), tmp_path / "results")
    ds = dcmread(objects[0].path)
    assert (ds.ContentDate, ds.ContentTime, ds.TimezoneOffsetFromUTC) == ("20261122", "100203", "+0900")


def test_positions_are_read_as_they_are_written(tmp_path: Path) -> None:
    ds = ct_slice(position_mm=(1.5, -2.25, 3))
    source = read_source(save([ds], tmp_path))
    assert source.images[0].position == ("1.5", "-2.25", "3")
    assert string_values(source.header, "StudyID") == ["1"]
