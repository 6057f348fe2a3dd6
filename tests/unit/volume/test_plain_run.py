from __future__ import annotations

import struct
from pathlib import Path

import pytest
from factories import ct_slice
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import MalformedInstance
from domain.instance import Header
from volume import digest
from volume.part10 import Window
from volume.plain_run import take_run

TAGS = (0x00080008, 0x00080016, 0x00080020, 0x00100010, 0x00180050, 0x00280010, 0x00280106, 0x00281050, 0x00190010)
VRS = (b"LO", b"DS", b"US", b"UI", b"PN", b"OB", b"UN", b"SQ", b"XX")
ELEMENTS = st.lists(
    st.tuples(st.sampled_from((*TAGS, 0x00080000, 0x00080001, 0x7FE00010, 0xFFFEE000)), st.sampled_from(VRS))
    .flatmap(lambda head: st.tuples(st.just(head), st.binary(max_size=300)))
)  # fmt: skip


def element(head: tuple[int, bytes], value: bytes) -> bytes:
    tag, vr = head
    long = vr in (b"OB", b"UN", b"SQ")
    length = struct.pack("<2xI", len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + length + value


def read(path: Path) -> tuple[Header, str] | str:
    try:
        return digest.inspect(path)
    except MalformedInstance as error:
        return f"{error} {error.sop_instance_uid}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(elements=ELEMENTS, cut=st.integers(0, 400))
def test_a_run_is_what_its_attributes_are_one_by_one(
    elements: list[tuple[tuple[int, bytes], bytes]], cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.dcm"
    ct_slice().save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    at = data.index(b"\x20\x00\x13\x00")  # in front of InstanceNumber
    changed = data[:at] + b"".join(element(*each) for each in elements) + data[at:]
    path.write_bytes(changed[: len(changed) - cut])
    quickly = read(path)
    with monkeypatch.context() as patched:
        patched.setattr("volume.digest.take_run", lambda window, position, *_: position)
        assert read(path) == quickly


def test_a_plain_header_is_taken_in_few_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.dcm"
    ct_slice().save_as(path, enforce_file_format=True)
    taken = []

    def noting(window: Window, position: int, *rest: object) -> int:
        end = take_run(window, position, *rest)  # type: ignore[arg-type]
        taken.append(end - position)
        return end

    monkeypatch.setattr("volume.digest.take_run", noting)
    digest.inspect(path)
    assert len(taken) < 5
    assert max(taken) > 300
