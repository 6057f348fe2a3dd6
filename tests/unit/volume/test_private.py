from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pytest
from factories import headers_of, mr_series, save
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian

from volume.digest import inspect
from volume.grouping import group
from volume.header import header_of

SIEMENS, GE, PHILIPS = "SIEMENS MR HEADER", "GEMS_PARM_01", "Philips Imaging DD 001"


def b_value_of(ds: Dataset) -> float | None:
    (header,) = headers_of([ds])
    return header.diffusion_b_value


@pytest.mark.parametrize("block", [0x10, 0x11])
@pytest.mark.parametrize(
    ("group_number", "creator", "element", "vr", "value", "expected"),
    [
        (0x0019, SIEMENS, 0x0C, "IS", "800", 800.0),
        (0x0019, SIEMENS, 0x0C, "UN", b"400 ", 400.0),
        (0x0043, GE, 0x39, "IS", ["1000000700", "8", "0", "0"], 700.0),
        (0x0043, GE, 0x39, "IS", ["50", "8", "0", "0"], 50.0),
        (0x2001, PHILIPS, 0x03, "FL", 1000.0, 1000.0),
        (0x2001, PHILIPS, 0x03, "UN", struct.pack("<f", 250.0), 250.0),
    ],
)
def test_the_b_value_of_each_maker_is_found_wherever_its_block_lies(
    tmp_path: Path, block: int, group_number: int, creator: str, element: int, vr: str, value: object, expected: float
) -> None:
    (ds, *_) = mr_series()
    ds.add_new((group_number, block), "LO", creator)
    ds.add_new((group_number, block << 8 | element), vr, value)
    assert b_value_of(dcmread(save([ds], tmp_path)[0])) == expected
    header, _ = inspect(save([ds], tmp_path)[0])
    assert header.diffusion_b_value == expected


def test_the_b_value_survives_a_file_that_writes_no_vrs(tmp_path: Path) -> None:
    (ds, *_) = mr_series()
    ds.private_block(0x2001, PHILIPS, create=True).add_new(0x03, "FL", 500.0)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    header, _ = inspect(save([ds], tmp_path)[0])
    assert header.diffusion_b_value == 500.0


def test_an_element_of_another_creator_means_something_else() -> None:
    (ds, *_) = mr_series()
    ds.private_block(0x0019, "SOMEBODY ELSE", create=True).add_new(0x0C, "IS", "800")
    assert b_value_of(ds) is None


@pytest.mark.parametrize("value", ["", "abc", "nan", "inf"])
def test_a_value_that_is_no_number_is_unknown(value: str) -> None:
    (ds, *_) = mr_series()
    ds.private_block(0x0019, SIEMENS, create=True).add_new(0x0C, "UN", value.encode().ljust(4))
    assert b_value_of(ds) is None


def test_the_standard_attribute_goes_before_the_private_one() -> None:
    (ds, *_) = mr_series()
    ds.DiffusionBValue = 600.0
    ds.private_block(0x0019, SIEMENS, create=True).add_new(0x0C, "IS", "800")
    assert b_value_of(ds) == 600.0


def test_b_values_and_directions_make_stacks_of_their_own() -> None:
    places = mr_series(4)
    images: list[Dataset] = []
    for b_value, direction in ((0, None), (800, (1.0, 0.0, 0.0)), (800, (0.0, 1.0, 0.0))):
        for ds in places:
            buffer = BytesIO()
            ds.save_as(buffer, enforce_file_format=True)
            image = dcmread(BytesIO(buffer.getvalue()))
            image.SOPInstanceUID = f"1.2.{len(images) + 1}"
            image.InstanceNumber = len(images) + 1
            block = image.private_block(0x0019, SIEMENS, create=True)
            block.add_new(0x0C, "IS", str(b_value))
            if direction:
                block.add_new(0x0E, "FD", list(direction))
            images.append(image)
    headers = [header_of(image, str(image.file_meta.TransferSyntaxUID)) for image in images]
    stacks = group(headers)
    assert [stack.refusal for stack in stacks] == [None, None, None]
    assert [stack.name for stack in stacks] == [
        "axial, b-value 0",
        "axial, b-value 800, diffusion direction 1",
        "axial, b-value 800, diffusion direction 2",
    ]
