from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import pytest
from factories import ct_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domain.errors import MalformedInstance
from domain.instance import Header
from volume.header import header_of, is_uid
from volume.header_json import header_from_json, header_to_json


def read_back(ds: Dataset, *, implicit: bool = False) -> Dataset:
    """Return the dataset as a reader gets it: undecoded until asked for."""
    buffer = BytesIO()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    ds.save_as(buffer, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))


def with_raw(**values: str | bytes) -> Dataset:
    """Return a slice whose attributes hold ``values`` unchecked, as odd devices write them."""
    ds = read_back(ct_slice())
    for keyword, value in values.items():
        tag = Tag(keyword)
        encoded = value if isinstance(value, bytes) else value.encode()
        ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(encoded), encoded, 0, False, True)
    return ds


@pytest.mark.parametrize("implicit", [False, True])
def test_reads_geometry_and_pixel_description(implicit: bool) -> None:
    source = ct_slice(position_mm=(-10.5, 20, 30.25), spacing_mm=(0.7, 0.8), number=7)
    header = header_of(read_back(source, implicit=implicit), ExplicitVRLittleEndian)
    assert header.image_position_mm == (-10.5, 20.0, 30.25)
    assert header.image_orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert header.pixel_spacing_mm == (0.7, 0.8)
    assert (header.rows, header.columns, header.bits_allocated, header.pixel_representation) == (16, 20, 16, 1)
    assert (header.instance_number, header.modality, header.kvp) == (7, "CT", 120.0)
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert header.has_pixel_data
    assert header.number_of_frames is None


def test_a_dataset_in_memory_reads_like_one_from_a_file() -> None:
    source = ct_slice()
    assert header_of(source, ExplicitVRLittleEndian) == header_of(read_back(source), ExplicitVRLittleEndian)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "1.2.x", "1..2", ".1", "1.2.", "1" * 65])
def test_refuses_missing_identity_and_names_the_attribute(keyword: str, value: str | None) -> None:
    ds = with_raw(**{keyword: value or ""})
    if value is None:
        del ds[keyword]
    with pytest.raises(MalformedInstance, match=keyword) as caught:
        header_of(ds, ExplicitVRLittleEndian)
    assert caught.value.attribute == keyword
    assert not value or value not in str(caught.value)


def test_tolerates_leading_zeros_in_uid_components() -> None:
    assert is_uid("1.2.007.1")


@given(text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_value_however_odd_raises(text: str) -> None:
    keywords = (
        "ImagePositionPatient",
        "InstanceNumber",
        "SliceThickness",
        "PixelSpacing",
        "KVP",
        "SeriesDescription",
    )
    header = header_of(with_raw(**dict.fromkeys(keywords, text)), ExplicitVRLittleEndian)
    assert header.sop_instance_uid
    assert header_from_json(header_to_json(header)) == replace(header, patient=None)


@pytest.mark.parametrize("text", ["", "NaN", "inf", "1e999", "12,5", "abc"])
def test_numbers_that_are_none_are_unknown(text: str) -> None:
    ds = with_raw(SliceThickness=text, InstanceNumber=text, ImagePositionPatient=f"{text}\\0\\0")
    header = header_of(ds, ExplicitVRLittleEndian)
    assert header.slice_thickness_mm is None
    assert header.instance_number is None
    assert header.image_position_mm is None


def test_a_position_of_two_numbers_is_unknown() -> None:
    assert header_of(with_raw(ImagePositionPatient="1\\2"), ExplicitVRLittleEndian).image_position_mm is None


def test_an_unsigned_padding_value_beside_signed_pixels_stays_as_written() -> None:
    ds = ct_slice()
    ds.add_new("PixelPaddingValue", "US", 63536)
    assert header_of(read_back(ds), ExplicitVRLittleEndian).pixel_padding_value == 63536


def test_an_implicit_padding_value_is_signed_like_the_pixels() -> None:
    ds = ct_slice()
    ds.add_new("PixelPaddingValue", "SS", -2000)
    assert header_of(read_back(ds, implicit=True), ExplicitVRLittleEndian).pixel_padding_value == -2000


def test_reads_what_completeness_and_priority_need() -> None:
    ds = ct_slice()
    ds.NumberOfSeriesRelatedInstances = 120
    ds.RequestedProcedurePriority = "STAT"
    header = header_of(read_back(ds), ExplicitVRLittleEndian)
    assert (header.images_in_series, header.requested_procedure_priority) == (120, "STAT")


@pytest.mark.parametrize("keyword", ["Manufacturer", "ManufacturerModelName"])
def test_recognises_own_results_by_their_maker(keyword: str) -> None:
    ds = ct_slice()
    assert not header_of(ds, ExplicitVRLittleEndian).is_own_result
    setattr(ds, keyword, "Voxgate")
    assert header_of(ds, ExplicitVRLittleEndian).is_own_result


def test_recognises_own_results_by_contributing_equipment() -> None:
    ds = ct_slice()
    item = Dataset()
    item.Manufacturer = "Voxgate"
    ds.ContributingEquipmentSequence = Sequence([item])
    assert header_of(read_back(ds), ExplicitVRLittleEndian).is_own_result


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "", "nonsense", "\\ISO 2022 IR 87"])
def test_text_in_any_character_set_is_read(charset: str) -> None:
    ds = with_raw(SpecificCharacterSet=charset, SeriesDescription=b"sch\xe4del")
    description = header_of(ds, ExplicitVRLittleEndian).series_description
    assert description is not None
    assert description.startswith("sch")


def test_json_is_stable_and_forgives_other_versions() -> None:
    header = header_of(ct_slice(), ExplicitVRLittleEndian)
    text = header_to_json(header)
    assert text == header_to_json(header_from_json(text))
    said = json.loads(text)
    said["added_later"] = 1
    del said["modality"]
    assert header_from_json(json.dumps(said)).modality is None


def test_a_header_names_no_patient() -> None:
    header = header_of(ct_slice(), ExplicitVRLittleEndian)
    assert "CANARY" not in repr(header)
    assert "CANARY" not in header_to_json(header)
    assert isinstance(header, Header)


def test_control_characters_do_not_get_into_names_and_tables() -> None:
    header = header_of(read_back(with_raw(ConvolutionKernel=b"B30f\x1b[2J\0x\r\n")), ExplicitVRLittleEndian)
    assert header.convolution_kernel == "B30f [2J x"
