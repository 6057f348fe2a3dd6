"""Character sets of PS3.5 6.1, as declared, as forgotten and as wrong as they come."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from volume.text import decoded


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("ISO_IR 100", "latin_1", "Schädel, prótesis, œdème".replace("œ", "oe")),
        ("ISO_IR 101", "iso8859_2", "ból głowy, žaludek"),
        ("ISO_IR 109", "iso8859_3", "ħaġra"),
        ("ISO_IR 110", "iso8859_4", "krūtinė"),
        ("ISO_IR 126", "iso8859_7", "Διονυσίου πνεύμονας"),
        ("ISO_IR 127", "iso8859_6", "ألم في الصدر"),
        ("ISO_IR 138", "iso8859_8", "כאב בחזה"),
        ("ISO_IR 144", "iso8859_5", "Боль в груди"),
        ("ISO_IR 148", "iso8859_9", "göğüs, diş eti"),
        ("ISO_IR 166", "tis_620", "ปวดหน้าอก"),
        ("ISO_IR 13", "shift_jis", "ｷｮｳﾌﾞ"),
        ("ISO_IR 192", "utf-8", "胸痛 Schädel грудь صدر"),
        ("GB18030", "gb18030", "胸部疼痛𠮷"),
        ("GBK", "gbk", "胸部疼痛"),
    ],
)
def test_a_declared_set_is_read_without_a_note(declared: str, encoding: str, text: str) -> None:
    assert decoded(text.encode(encoding), (declared,)) == (text, "")


@pytest.mark.parametrize(
    ("declared", "value", "text"),
    [
        # PS3.5 H.3 to J.4
        (("", "ISO 2022 IR 87"), b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (("ISO 2022 IR 13", "ISO 2022 IR 87"), b"\xd4\xcf\xc0\xde=\x1b$B;3ED\x1b(J", "ﾔﾏﾀﾞ=山田"),
        (("", "ISO 2022 IR 149"), b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
        (("", "ISO 2022 IR 58"), b"Zhang=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "Zhang=张^小东"),
        (("", "ISO 2022 IR 159"), b"\x1b$(D\x306\x1b(B", "丨"),
        (("ISO 2022 IR 100", "ISO 2022 IR 144"), b"Sch\xe4del \x1b-L\xb3\xe0\xe3\xd4\xec", "Schädel Грудь"),
    ],
)
def test_code_extensions_switch_between_sets(declared: tuple[str, ...], value: bytes, text: str) -> None:
    if text == "丨":
        text = (b"\x8f" + bytes((0x30 | 0x80, 0x36 | 0x80))).decode("euc_jp")
    assert decoded(value, declared) == (text, "")


def test_korean_without_its_second_escape_sequence_is_read() -> None:
    text, _ = decoded(b"\x1b$)C\xb1\xe8\n\xb1\xe8", ("", "ISO 2022 IR 149"))
    assert text == "김\n김"


@pytest.mark.parametrize(
    ("declared", "value", "text", "note"),
    [
        ((), "Schädel".encode(), "Schädel", "SpecificCharacterSet is absent; read as UTF-8"),
        ((), b"Sch\xe4del", "Schädel", "SpecificCharacterSet is absent; read as ISO_IR 100, which may be wrong"),
        (("KLINGON",), b"Sch\xe4del", "Schädel",
        "SpecificCharacterSet is unknown; read as ISO_IR 100, which may be wrong"),
        (("ISO_IR 100",), "Schädel".encode(), "Schädel", "not in the declared SpecificCharacterSet; read as UTF-8"),
        (("ISO_IR 144",), "грудь".encode(), "грудь", "not in the declared SpecificCharacterSet; read as UTF-8"),
        (("ISO_IR 192",), b"Sch\xe4del", "Schädel", "not UTF-8 as SpecificCharacterSet says; read as ISO_IR 100"),
        (("ISO_IR 192",), "胸痛".encode()[:-1], "胸", "the last character is cut off"),
        (("ISO-IR 100",), b"Sch\xe4del", "Schädel", ""),
        (("utf8",), "胸痛".encode(), "胸痛", ""),
        (
            ("ISO_IR 100",), b"\x1b$B;3ED\x1b(B", "山田",
            "uses character sets that SpecificCharacterSet does not declare",
        ),
        (
            ("ISO_IR 126",), b"\xd2\xff", "\ufffd\ufffd",
            "some characters do not belong to the declared SpecificCharacterSet",
        ),
    ],
)  # fmt: skip
def test_wrong_and_missing_declarations_survive_with_a_note(
    declared: tuple[str, ...], value: bytes, text: str, note: str
) -> None:
    assert decoded(value, declared) == (text, note)


@given(
    st.binary(max_size=60),
    st.lists(st.sampled_from(["", "ISO_IR 100", "ISO 2022 IR 87", "GB18030", "x"]), max_size=3),
)
def test_any_bytes_are_read(value: bytes, declared: list[str]) -> None:
    text, note = decoded(value, declared)
    assert isinstance(text, str)
    assert note == "" or not value.isascii() or b"\x1b" in value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chrArab", "قباني^لنزار"), ("chrFren", "Buc^Jérôme"), ("chrGerm", "Äneas^Rüdiger"), ("chrGreek",
        "Διονυσιος"),
        ("chrH31", "Yamada^Tarou=山田^太郎=やまだ^たろう"), ("chrHbrw", "שרון^דבורה"),
        ("chrJapMultiExplicitIR6", "やまだ^たろう"), ("chrX2", "Wang^XiaoDong=王^小东="),
    ],
)  # fmt: skip
def test_real_files_of_every_kind_are_read(shared_data: Path, name: str, text: str) -> None:
    ds = dcmread(shared_data / "charset" / f"{name}.dcm")
    declared = [
        str(term)
        for term in (
            [ds.SpecificCharacterSet] if isinstance(ds.SpecificCharacterSet, str) else ds.SpecificCharacterSet
        )
    ]
    fresh = dcmread(shared_data / "charset" / f"{name}.dcm")
    raw = fresh.get_item("PatientName")
    assert raw is not None
    assert decoded(bytes(raw.value).rstrip(b" "), declared) == (text, "")
