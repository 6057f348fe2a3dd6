"""Which studies are of one patient, and that the index does not tell who that is."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import ct_slice
from pydicom.dataset import Dataset
from sqlalchemy import create_engine, text
from working import working

from store.series import SeriesTable
from volume.digest import inspect
from volume.header_json import header_from_json, header_to_json
from volume.patient import patient_digest


def of(patient: str = "P1", issuer: str = "", born: str = "19700101", study: str | None = None) -> Dataset:
    ds = ct_slice(study_instance_uid=study)
    ds.PatientID, ds.PatientBirthDate = patient, born
    if issuer:
        ds.IssuerOfPatientID = issuer
    return ds


def others(index: SeriesTable, ds: Dataset) -> list[str]:
    return [item.header.sop_instance_uid for item in index.other_studies(ds.StudyInstanceUID) or ()]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""


def test_studies_of_one_patient_find_each_other(database_url: str, tmp_path: Path) -> None:
    first, second, other = of(), of(" p1 "), of("P2")
    with working(tmp_path, database_url=database_url) as work:
        work.receive([first, second, other])
        index = work.store.series
        assert others(index, first) == [second.SOPInstanceUID]
        assert others(index, second) == [first.SOPInstanceUID]
        assert others(index, other) == []
        assert index.other_studies("1.2.3") is None
        assert [item.header.sop_instance_uid for item in index.study(first.StudyInstanceUID)] == [
            first.SOPInstanceUID
        ]
        assert [arrival.instances for arrival in index.study_arrivals(first.StudyInstanceUID)] == [1]


@pytest.mark.parametrize(
    "other", [of("P2"), of(issuer="B"), of(born="19700102"), of(born=""), of("", "A"), of("ANONYMOUS")]
)
def test_what_differs_or_does_not_say_is_another_patient(other: Dataset, tmp_path: Path) -> None:
    mine = of(issuer="A")
    with working(tmp_path) as work:
        work.receive([mine, other])
        assert not work.store.series.other_studies(mine.StudyInstanceUID)
        assert not work.store.series.other_studies(other.StudyInstanceUID)


def test_patients_without_a_number_are_not_one_patient(tmp_path: Path) -> None:
    one, two = of("anonymous"), of("anonymous")
    with working(tmp_path) as work:
        work.receive([one, two])
        assert not work.store.series.other_studies(one.StudyInstanceUID)


def test_a_study_of_two_patients_is_nobodys(tmp_path: Path) -> None:
    mine, study = of(), of()
    stranger = of("P2", study=study.StudyInstanceUID)
    with working(tmp_path) as work:
        work.receive([mine, study, stranger])
        assert not work.store.series.other_studies(mine.StudyInstanceUID)
        assert not work.store.series.other_studies(study.StudyInstanceUID)


def test_the_index_holds_no_identity_and_no_digest_that_can_be_guessed(tmp_path: Path) -> None:
    mine = of("PAT4711")
    with working(tmp_path) as work:
        work.receive([mine])
        guess = patient_digest("PAT4711", None, "19700101")
        assert guess is not None
        engine = create_engine(f"sqlite:///{next(tmp_path.glob('*index*.sqlite'))}")
        with engine.connect() as connection:
            row = str(connection.execute(text("select * from instances")).one())
        engine.dispose()
        assert work.store.series.study(mine.StudyInstanceUID)[0].header.patient is None
    for secret in ("PAT4711", "19700101", guess):
        assert secret not in row


def test_the_digest_is_read_with_the_header_and_not_written_with_it(tmp_path: Path) -> None:
    mine = of(issuer="Clinic A")
    path = tmp_path / "a.dcm"
    mine.save_as(path, enforce_file_format=True)
    header, _ = inspect(path)
    assert header.patient == patient_digest("P1", "CLINIC A", "19700101")
    assert 'patient"' not in header_to_json(header)
    assert header_from_json(header_to_json(header)).patient is None
