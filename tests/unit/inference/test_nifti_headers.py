"""NIfTI files whose headers lie, and such as other programs write."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from boxes import nifti_file

from inference import nifti
from inference.nifti import read_nifti
from inference.predict_request import InvalidRequest
from inference.predict_settings import PredictSettings

SETTINGS = PredictSettings(most_unpacked_mb=1)
SHAPE = (4, 16, 20)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


@pytest.fixture
def plain(tmp_path: Path) -> bytearray:
    return bytearray(nifti_file(tmp_path / "scan.nii", VOXELS).read_bytes())


def changed(plain: bytearray, form: str, at: int, *values: float | bytes) -> bytes:
    struct.pack_into(f"<{form}", plain, at, *values)
    return bytes(plain)


@pytest.mark.parametrize(
    ("form", "at", "value", "said"),
    [
        ("f", 108, -5.0, "vox_offset lies within the header"),
        ("f", 108, 0.0, "vox_offset lies within the header"),
        ("f", 108, float("nan"), "vox_offset lies within the header"),
        ("f", 80, float("nan"), "where it lies"),
        ("f", 256, float("nan"), "where it lies"),
        ("f", 292, float("inf"), "where it lies"),
        ("h", 70, 32, "not one number a voxel"),  # complex
        ("h", 70, 128, "not one number a voxel"),  # RGB
        ("h", 70, 64, "shorter than its header says"),  # double, whatever bitpix says
        ("4s", 344, b"ni1\0", "not a NIfTI-1 file"),  # its voxels are in another file
        ("4s", 344, b"\0\0\0\0", "not a NIfTI-1 file"),  # ANALYZE, which does not tell left from right
    ],
)
def test_a_header_that_lies_is_refused_with_the_field(
    plain: bytearray, form: str, at: int, value: float | bytes, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_nifti(changed(plain, form, at, value), SETTINGS, plain=True)
    assert refused.value.status == 422
    assert said in refused.value.details[0]


def test_a_file_of_several_gzip_members_is_read_whole(plain: bytearray) -> None:
    members = [gzip.compress(bytes(plain[at : at + 500])) for at in range(0, len(plain), 500)]
    assert np.array_equal(read_nifti(b"".join(members), SETTINGS).voxels, VOXELS)


def test_members_are_a_bomb_together_too() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_nifti(gzip.compress(bytes(300_000)) * 4, SETTINGS)
    assert refused.value.status == 413


def test_no_end_of_empty_members_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti, "_MOST_MEMBERS", 100)
    with pytest.raises(InvalidRequest) as refused:
        read_nifti(gzip.compress(b"") * 101, SETTINGS)
    assert refused.value.status == 413
