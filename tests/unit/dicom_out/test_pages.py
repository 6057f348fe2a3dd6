"""Report pages: names of every script, page numbers, and the reader that proves what they say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from looking import engine, image_result, radiograph, volume_result, writer
from pydicom import dcmread

from dicom_out import fonts
from dicom_out.fonts import written
from dicom_out.kind import WriterSettings
from dicom_out.pdf_text import NotReadable, text_of
from dicom_out.profile import Options, Profile
from dicom_out.writer import Writer
from domain.findings import Findings
from domain.ports import Result

CYRILLIC = "\N{CYRILLIC CAPITAL LETTER EL}\N{CYRILLIC SMALL LETTER YU}\N{CYRILLIC SMALL LETTER KA}"
NARRATIVE = Findings(labels=None, narrative="No focal opacity.\nHeart size is normal.", impression="Normal chest.")


def pdf_of(result: Result, folder: Path, *, identified: bool = True) -> bytes:
    profile = Profile(name="test", objects=("PDF",), options=Options(identified=identified))
    made = Writer(WriterSettings(), default=profile)
    objects = made.write(result, folder)
    made.verify(result, objects)
    ds = dcmread(objects[0].path)
    return bytes(ds.EncapsulatedDocument)[: ds.EncapsulatedDocumentLength]


def named(name: str, charset: str, folder: Path) -> Result:
    ds = radiograph()
    ds.SpecificCharacterSet, ds.PatientName = charset.split("\\"), name
    return image_result([ds], folder, NARRATIVE)


@pytest.mark.parametrize(
    ("name", "charset", "shown"),
    [
        ("Buc^Jérôme", "ISO_IR 100", "Buc, Jérôme"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87", "Yamada, Tarou"),
        ("قباني^لنزار", "ISO_IR 127", "see the DICOM header: written in a script that this page has no font for"),
        ("", "ISO_IR 100", "CANARYID"),
    ],
)
def test_a_name_is_shown_right_or_not_at_all(name: str, charset: str, shown: str, tmp_path: Path) -> None:
    text = text_of(pdf_of(named(name, charset, tmp_path / "source"), tmp_path / "out")).whole
    assert shown in text
    assert "?" not in text


def test_cyrillic_is_shown_where_the_system_has_a_font_and_said_to_be_missing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = named(CYRILLIC, "ISO_IR 144", tmp_path / "source")
    with monkeypatch.context() as without:
        without.setattr(fonts, "wide_font", lambda: None)
        text = text_of(pdf_of(result, tmp_path / "without")).whole
        assert "see the DICOM header" in text
    if fonts.wide_font() is not None:
        assert CYRILLIC in text_of(pdf_of(result, tmp_path / "with")).whole


def test_pages_without_identity_name_nobody(tmp_path: Path) -> None:
    text = text_of(pdf_of(volume_result(tmp_path / "source"), tmp_path / "out", identified=False)).whole
    assert "CANARY" not in text
    assert "1970" not in text
    assert "2024-01-02" in text  # the study's date


def test_a_long_report_has_numbered_pages_and_everything_on_them(tmp_path: Path) -> None:
    result = volume_result(tmp_path / "source")
    many = tuple(replace(result.findings.measurements[0], label=f"Volume {n}", value=1.5 + n) for n in range(120))
    pdf = pdf_of(replace(result, findings=replace(result.findings, measurements=many)), tmp_path / "out")
    pages = text_of(pdf).pages
    assert len(pages) > 3
    assert all(f"{n} / {len(pages)}" in page for n, page in enumerate(pages, start=1))


def test_a_text_of_markup_is_text(tmp_path: Path) -> None:
    findings = replace(NARRATIVE, narrative="a < b & <b>c</b> \\ (d) 5 µm², “quoted”")
    result = image_result([radiograph()], tmp_path / "source", findings)
    assert "a < b & <b>c</b> \\ (d) 5 µm², “quoted”" in text_of(pdf_of(result, tmp_path / "out")).whole


def test_what_lies_beyond_the_first_plane_of_unicode_becomes_a_question_mark(tmp_path: Path) -> None:
    findings = replace(NARRATIVE, narrative="All clear \N{GRINNING FACE} \N{GREEK SMALL LETTER ALPHA}.")
    result = image_result([radiograph()], tmp_path / "source", findings)
    assert "All clear ?" in text_of(pdf_of(result, tmp_path / "out")).whole


@pytest.mark.peer
def test_a_foreign_reader_finds_the_same_text(tmp_path: Path, peer: Callable[[str], str]) -> None:
    pdf = pdf_of(volume_result(tmp_path / "source"), tmp_path / "out")
    (tmp_path / "report.pdf").write_bytes(pdf)
    command = [peer("pdftotext"), "-layout", str(tmp_path / "report.pdf"), "-"]
    text = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    for words in ("Liver Volume 8.781 ml", "Nodule Long axis 7.031 mm", "Not for primary diagnosis", "1 / 2", "MIT"):
        assert words.replace(" ", "") in text.replace(" ", "")
        assert words in text_of(pdf).whole


def test_text_without_a_font_is_marked() -> None:
    assert written("abc é").is_whole
    assert written("שלום").text == "????"
    assert not written("山").is_whole


@pytest.mark.parametrize("damage", [b"", b"%PDF-1.4 nothing %%EOF", b"%PDF-1.4\nstartxref\n99\n%%EOF"])
def test_what_is_no_pdf_is_said_to_be_none(damage: bytes) -> None:
    with pytest.raises(NotReadable):
        text_of(damage)


def test_nothing_in_a_picture_or_a_log_names_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    result = volume_result(tmp_path / "source")
    made = writer("SC", "PDF", "KOS")
    made.verify(result, made.write(result, tmp_path / "out"))
    assert "CANARY" not in caplog.text
    assert engine().intended_use in text_of(pdf_of(result, tmp_path / "again")).whole
