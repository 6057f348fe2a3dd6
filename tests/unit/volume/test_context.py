"""The context that is read from a header: every field with its source, and nobody's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import ct_series, ct_slice, headers_of, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from domain.context import StudyContext
from volume.allowed import ALLOWED, DISTANCES, IDENTIFIERS, NAMES, PLACES
from volume.attributes import Attributes
from volume.context import read_context


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., StudyContext]:
    """Return a function that reads the context of a CT slice with these attributes, ``None`` for absent ones."""

    def context(**attributes: Any) -> StudyContext:
        ds = ct_slice(number=7)
        for keyword, value in attributes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        (path,) = save([ds], tmp_path)
        return read_context(path)

    return context


def item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


# -- Fields ---------------------------------------------------------------------------------------------------------


def test_every_value_names_its_source(read: Callable[..., StudyContext]) -> None:
    context = read(
        PatientAge="034Y", PatientBirthDate="", PatientSex="F", PatientSize="1.70", PatientWeight="65",
        ReasonForStudy="cough",
        ManufacturerModelName="Scan 1", StudyDescription="CT Thorax", ContrastBolusAgent="Iodine",
        SeriesDescription="portal venous 1.0", Laterality="R", MagneticFieldStrength="1.5",
        ReasonForRequestedProcedureCodeSequence=[code("R05", "I10", "Cough")],
    )  # fmt: skip
    said = context.as_dict()["values"]
    assert isinstance(said, dict)
    assert set(said) - {"patient_age_decade"} == set(context.sources)
    assert {source.instance_number for sources in context.sources.values() for source in sources} == {7}
    assert (context.patient_age_y, context.patient_age_decade, context.patient_sex) == (34.0, "30-40", "F")
    assert (context.patient_height_m, context.patient_weight_kg, context.body_mass_index_kg_m2) == (1.7, 65.0, 22.5)
    assert context.body_part is not None
    assert (context.modality, context.body_part.meaning, context.laterality) == ("CT", "Chest", "R")
    assert (context.tube_voltage_kv, context.slice_thickness_mm, context.convolution_kernel) == (120.0, 2.5, "B30f")
    assert (context.contrast_agent, context.contrast_phase) == ("Iodine", "PORTAL_VENOUS")
    assert (context.pixel_spacing_mm, context.pixel_spacing_origin) == ((0.7, 0.8), "patient")
    assert context.sources["body_mass_index_kg_m2"][0].derived == "computed as weight by squared height"
    assert context.notes == ()


def test_the_indication_comes_from_all_who_gave_one(read: Callable[..., StudyContext]) -> None:
    request = item(
        ReasonForTheRequestedProcedure="r/o embolism",
        RequestedProcedureDescription="CT chest",
        ReasonForRequestedProcedureCodeSequence=[code("I26", "I10", "Pulmonary embolism")],
        RequestedProcedureID="REQ4711",
    )
    context = read(
        ReasonForStudy="Cough",
        RequestAttributesSequence=[request, item(RequestedProcedureDescription="ct chest")],
        AdmittingDiagnosesDescription=["COPD", "asthma"],
        AdditionalPatientHistory="smoker, request REQ 4711",
        AdmittingDiagnosesCodeSequence=[code("4711", "99KIS", "local")],
    )
    assert context.indication == (
        "Cough; r/o embolism; CT chest; COPD, asthma; smoker, request ___; Pulmonary embolism; local"
    )
    assert [found.value for found in context.indication_codes] == ["I26"]
    assert [str(source) for source in context.sources["indication"]][1:] == [
        "RequestAttributesSequence.ReasonForTheRequestedProcedure of InstanceNumber 7",
        "RequestAttributesSequence.RequestedProcedureDescription of InstanceNumber 7",
        "AdmittingDiagnosesDescription of InstanceNumber 7",
        "AdditionalPatientHistory of InstanceNumber 7 (1 identifying part removed)",
        "RequestAttributesSequence.ReasonForRequestedProcedureCodeSequence.CodeMeaning of InstanceNumber 7",
        "AdmittingDiagnosesCodeSequence.CodeMeaning of InstanceNumber 7",
    ]


@pytest.mark.parametrize(
    ("attributes", "years", "notes"),
    [
        ({"PatientAge": "006M", "PatientBirthDate": ""}, 0.5, ()),
        ({"PatientAge": "010D", "PatientBirthDate": ""}, 0.027, ()),
        ({"PatientBirthDate": "19700103"}, 53.0, ()),
        ({"PatientBirthDate": "19700102"}, 54.0, ()),
        ({"PatientAge": "000Y", "PatientBirthDate": "20240102"}, None,
         ("PatientBirthDate: is the date of the study; no age is computed from it",)),
        ({"PatientBirthDate": "17000101"}, None, ("PatientBirthDate: gives an impossible age at the study",)),
        ({"PatientAge": "054Y", "PatientBirthDate": "19900101"}, 54.0,
         ("PatientAge: does not agree with PatientBirthDate and the date of the study",)),
        ({"PatientAge": "999Y", "PatientBirthDate": None}, None, ("PatientAge: is impossible",)),
        ({"PatientAge": "old", "PatientBirthDate": ""}, None, ()),
    ],
)  # fmt: skip
def test_age(
    read: Callable[..., StudyContext], attributes: dict[str, str | None], years: float | None, notes: tuple[str, ...]
) -> None:
    context = read(**attributes)
    assert (context.patient_age_y, context.notes) == (years, notes)


def test_values_that_cannot_be_true_are_unknown_with_a_note(read: Callable[..., StudyContext]) -> None:
    context = read(PatientSize="170", PatientWeight="0", MagneticFieldStrength="15000", PatientSex="X", KVP="0")
    assert (context.patient_height_m, context.patient_weight_kg, context.body_mass_index_kg_m2) == (None, None, None)
    assert (context.magnetic_field_strength_t, context.patient_sex, context.tube_voltage_kv) == (None, None, None)
    assert context.notes == (
        "MagneticFieldStrength: is no field strength in tesla",
        "PatientSize: is no height in metres",
    )


def test_the_body_part_is_looked_for_in_order(read: Callable[..., StudyContext]) -> None:
    def found(**attributes: Any) -> tuple[str, str]:
        context = read(**attributes)
        if context.body_part is None:
            return "", ""
        return context.body_part.meaning, str(context.sources["body_part"][0])

    region = [code("T-A0100", "SRT", "Brain")]
    rest = {"AnatomicRegionSequence": region, "SeriesDescription": "Knie", "StudyDescription": "CT Abdomen"}
    assert found(BodyPartExamined="THORAX", **rest) == (
        "Chest", "BodyPartExamined of InstanceNumber 7 (read as the defined term)",
    )  # fmt: skip
    assert found(BodyPartExamined="SOMETHING", **rest) == ("Brain", "AnatomicRegionSequence of InstanceNumber 7")
    del rest["AnatomicRegionSequence"]
    assert found(BodyPartExamined=None, **rest) == ("Knee", "SeriesDescription of InstanceNumber 7 (by its words)")
    assert found(BodyPartExamined=None, StudyDescription="CT Abdomen")[0] == "Abdomen"
    assert found(BodyPartExamined=None, StudyDescription="x") == ("", "")


@pytest.mark.parametrize(
    ("attributes", "spacing", "origin"),
    [
        ({"ImagerPixelSpacing": ["0.1", "0.1"]}, (0.1, 0.1), "detector"),
        ({"ImagerPixelSpacing": ["0.1", "0.1"], "PixelSpacing": ["0.1", "0.1"]}, (0.1, 0.1), "detector"),
        ({"ImagerPixelSpacing": ["0.1", "0.1"], "PixelSpacing": ["0.08", "0.08"]}, (0.08, 0.08), "corrected"),
        ({"PixelSpacing": ["0.08", "0.08"], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.08, 0.08), "calibrated"),
        ({"PixelSpacing": ["0.08", "0.08"], "PixelSpacingCalibrationType": "GEOMETRY"}, (0.08, 0.08), "corrected"),
        ({"PixelSpacing": ["0.08", "0.08"]}, (0.08, 0.08), "unknown"),
        ({"NominalScannedPixelSpacing": ["0.2", "0.2"]}, (0.2, 0.2), "nominal"),
        ({"PixelSpacing": ["0", "0"]}, None, None),
    ],
)  # fmt: skip
def test_a_distance_in_a_projection_says_where_it_holds(
    read: Callable[..., StudyContext],
    attributes: dict[str, Any],
    spacing: tuple[float, float] | None,
    origin: str | None,
) -> None:
    context = read(**({"Modality": "DX", "PixelSpacing": None} | attributes))
    assert (context.pixel_spacing_mm, context.pixel_spacing_origin) == (spacing, origin)


def test_view_and_side_of_a_radiograph(read: Callable[..., StudyContext]) -> None:
    context = read(
        Modality="DX",
        ViewCodeSequence=[code("272479007", "SCT", "postero-anterior")],
        ImageLaterality="U",
        PatientPosition="SITTING",
    )
    assert (context.view_position, context.laterality, context.patient_position) == ("PA", "U", None)
    assert context.view is not None
    assert context.view.value == "272479007"


def test_functional_groups_speak_for_enhanced_images(tmp_path: Path) -> None:
    ds = ct_slice()
    for keyword in ("ConvolutionKernel", "KVP", "SliceThickness", "PixelSpacing", "BodyPartExamined"):
        delattr(ds, keyword)
    anatomy = item(FrameLaterality="L", AnatomicRegionSequence=[code("T-28000", "SRT", "Lung")])
    shared = item(
        CTReconstructionSequence=[item(ConvolutionKernel="Br40")],
        FrameAnatomySequence=[anatomy],
        PixelMeasuresSequence=[item(PixelSpacing=["0.5", "0.5"])],
        ContrastBolusUsageSequence=[item(ContrastBolusAgentPhase="ARTERIAL")],
    )
    ds.SharedFunctionalGroupsSequence = [shared]
    (path,) = save([ds], tmp_path)
    (header,) = headers_of(ct_series(1))
    context = read_context(path, header)
    assert context.body_part is not None
    assert (context.convolution_kernel, context.laterality, context.body_part.meaning) == ("Br40", "L", "Lung")
    assert (context.pixel_spacing_mm, context.contrast_phase) == ((0.5, 0.5), "ARTERIAL")
    assert (context.tube_voltage_kv, context.slice_thickness_mm) == (120.0, 2.5)  # of the frame's own header


def test_a_file_that_cannot_be_read_gives_a_note_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 500)
    context = read_context(tmp_path / "x")
    assert context.notes == ("the header: cannot be read (InvalidDicomError)",)
    assert context.as_dict()["values"] == {}


# -- Text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charset", "text"),
    [("ISO_IR 100", "Brustschmerz, Schüttelfrost"), ("ISO_IR 144", "Боль в груди"), ("ISO_IR 126",
     "Πόνος στο στήθος"),
     ("ISO_IR 127", "ألم في الصدر"), ("ISO_IR 138", "כאב בחזה"), ("ISO_IR 166", "ปวดหน้าอก"), ("GB18030", "胸部疼痛"),
     ("ISO_IR 192", "胸の痛み"), (["", "ISO 2022 IR 87"], "胸の痛み"), (["", "ISO 2022 IR 149"], "흉통"),
     (["", "ISO 2022 IR 58"], "胸痛")],
)  # fmt: skip
def test_texts_of_every_character_set_reach_the_model(
    read: Callable[..., StudyContext], charset: str | list[str], text: str
) -> None:
    context = read(SpecificCharacterSet=charset, ReasonForStudy=text, PatientName="CANARY^PHI")
    assert (context.indication, context.notes) == (text, ())


def test_a_wrong_declaration_is_noted_at_its_attribute(tmp_path: Path) -> None:
    ds = ct_slice()
    ds.ReasonForStudy = "Schädel"
    (path,) = save([ds], tmp_path)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b"ISO_IR 100"))
    context = read_context(path)
    assert context.indication == "Schädel"
    assert context.notes == ("ReasonForStudy: not in the declared SpecificCharacterSet; read as UTF-8",)


def test_whether_the_pixels_identify_the_patient_is_told_with_its_source(tmp_path: Path) -> None:
    ds = ct_slice()
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "YES", "NO"
    context = read_context(save([ds], tmp_path)[0])
    assert (context.burned_in_annotation, context.recognizable_visual_features) == ("YES", "NO")
    assert str(context.sources["burned_in_annotation"][0]) == "BurnedInAnnotation of InstanceNumber 1"
    ds.BurnedInAnnotation = "PERHAPS"
    del ds.RecognizableVisualFeatures
    context = read_context(save([ds], tmp_path)[0])
    assert (context.burned_in_annotation, context.recognizable_visual_features) == (None, None)


# -- Identity -------------------------------------------------------------------------------------------------------


def test_no_attribute_that_identifies_is_allowed() -> None:
    allowed = {path for paths in ALLOWED.values() for path in paths}
    assert allowed.isdisjoint({*NAMES, *IDENTIFIERS, *PLACES, *DISTANCES})
    kinds = {dictionary_VR(path.rpartition(".")[2]) for path in allowed}
    assert kinds <= {"AS", "CS", "DS", "LO", "SH", "LT", "ST", "UT", "SQ", "IS"}
    assert not any(word in path for path in allowed for word in ("Name", "ID", "Institution", "Operator",
    "Physician", "UID")
                   if path != "ManufacturerModelName")  # fmt: skip


def test_what_was_not_named_cannot_be_read(tmp_path: Path) -> None:
    (path,) = save([ct_slice()], tmp_path)
    with pytest.raises(KeyError, match="PatientName"):
        Attributes(path, ["Modality"]).texts("PatientName")


NAMES_OF_PEOPLE = st.sampled_from(
    ["Canary^Phileas", "Kanarienvogel^Jörg", "Καναρίνης^Φώτης", "Канарейкин^Фёдор",
     "Canari=金絲雀^鳥子=カナリア^とりこ",
     "Kanari=김카나^리아", "כנרי^פלא", "كناري^فهد", "O'Canary-Finch^Zoë^Q"]
)  # fmt: skip


LONGEST = {"CS": 16, "SH": 16, "LO": 64, "LT": 1000, "ST": 1000, "UT": 1000}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=NAMES_OF_PEOPLE,
    number=st.from_regex(r"[A-Z]{2}[0-9]{5,8}", fullmatch=True),
    born=st.dates(date(1925, 1, 1), date(2020, 1, 1)),
    ago=st.integers(1, 4000),
    spelling=st.sampled_from(["%Y%m%d", "%d.%m.%Y", "%m/%d/%y", "%d %b %Y", "%Y-%m-%d"]),
)
def test_a_planted_identity_reaches_no_model(
    tmp_path: Path, name: str, number: str, born: date, ago: int, spelling: str
) -> None:
    day = born + timedelta(days=ago)
    parts = [part for group in name.split("=") for part in group.split("^") if len(part) > 1]
    dates = [f"{born:{spelling}}", f"{day:{spelling}}"]
    planted = f"{' '.join(parts)} {number} {' '.join(dates)} ({parts[-1].upper()}, {parts[0].lower()})"
    ds = ct_slice()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.StudyDate = name, number, f"{born:%Y%m%d}", f"{day:%Y%m%d}"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.InstitutionName = (
        f"X{number}",
        "Finchley^Wren",
        "Aviary Hospital",
    )
    with disable_value_validation():
        for keyword in sorted(
            {path for paths in ALLOWED.values() for path in paths if "." not in path} - {"Modality"}
        ):
            most = LONGEST.get(dictionary_VR(keyword))
            if most is not None and (most > 16 or parts[0].isascii()):
                fits = planted if most > 64 else parts[0] if most == 16 else f"nodule {parts[-1]} {number}"
                setattr(ds, keyword, fits[:most])
        ds.AdditionalPatientHistory = f"nodule {planted} X{number}; Dr. Finchley, aviary hospital"
        ds.AdmittingDiagnosesCodeSequence = [code(number, "99X", f"nodule {parts[0]}")]
        (path,) = save([ds], tmp_path)
    context = read_context(path)
    said = json.dumps(context.as_dict(), ensure_ascii=False) + context.as_medversa() + repr(context)
    for secret in (*parts, *dates, number, f"{born:%Y}", "Finchley", "Wren", "viary"):
        assert secret.casefold() not in said.casefold()
    assert "nodule" in said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_header_never_stops_anything(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    (path,) = save([ct_slice()], tmp_path)
    data = bytearray(path.read_bytes())
    for place, byte in damage:
        data[place] = byte
    path.write_bytes(data)
    json.dumps(read_context(path).as_dict())


# -- Real files -----------------------------------------------------------------------------------------------------


def test_every_real_file_gives_a_context(shared_data: Path) -> None:
    contexts = [read_context(path) for path in sorted(shared_data.rglob("*.dcm"))]
    assert len(contexts) > 100
    for context in contexts:
        json.dumps(context.as_dict())
        said = context.as_dict()["values"]
        assert isinstance(said, dict)
        assert set(said) - {"patient_age_decade"} <= set(context.sources)


def test_real_charset_files_lose_their_names(shared_data: Path) -> None:
    context = read_context(shared_data / "charset" / "chrJapMulti.dcm")
    assert context.body_part is not None
    assert (context.body_part.meaning, context.view_position, context.pixel_spacing_origin) == (
        "Chest",
        "PA",
        "detector",
    )
