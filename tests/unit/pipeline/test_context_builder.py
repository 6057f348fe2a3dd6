"""Earlier studies of the same patient: by modality, body part and distance, never by date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from factories import ct_series, headers_of, mr_series, save
from pydicom.dataset import Dataset

from domain.instance import StoredInstance
from domain.series import Stack
from pipeline.context import ContextBuilder


@dataclass
class History:
    """A ``PatientHistory`` of one patient."""

    instances: tuple[StoredInstance, ...] | None

    def other_studies(self, study_instance_uid: str) -> tuple[StoredInstance, ...] | None:
        return self.instances


def stored(ds: Dataset, folder: Path, *, day: str | None, part: str | None = "CHEST") -> StoredInstance:
    for keyword, value in (("StudyDate", day), ("BodyPartExamined", part)):
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    for keyword in ("SeriesDate", "AcquisitionDate", "ContentDate"):
        delattr(ds, keyword)
    (path,) = save([ds], folder)
    return StoredInstance(header=headers_of([ds])[0], path=path, received_at=datetime(2024, 1, 1, tzinfo=UTC))


def comparison(now: StoredInstance, *others: StoredInstance) -> str | None:
    stack = Stack(name="", headers=(now.header,))
    return ContextBuilder(History(others)).of(stack, {now.header.sop_instance_uid: now.path}).comparison


def test_earlier_studies_are_told_latest_first_and_without_a_date(tmp_path: Path) -> None:
    now = stored(ct_series(1)[0], tmp_path / "now", day="20240401")
    ct = stored(ct_series(1)[0], tmp_path / "ct", day="20240102")
    mr = stored(mr_series(1)[0], tmp_path / "mr", day="20200401", part="BRAIN")
    later = stored(ct_series(1)[0], tmp_path / "later", day="20240501")
    same_day = stored(ct_series(1)[0], tmp_path / "same", day="20240401")
    undated = stored(ct_series(1)[0], tmp_path / "undated", day=None)
    said = comparison(now, mr, later, ct, same_day, undated)
    assert said == "CT chest, 3 months earlier; MR brain, 4 years earlier."
    context = ContextBuilder(History((ct, mr))).of(
        Stack(name="", headers=(now.header,)), {now.header.sop_instance_uid: now.path}
    )
    assert context.as_medversa().endswith(f"\nComparison: {said}")
    assert str(context.sources["priors"][0]) == "StudyDate (distances to 2 earlier stored)"
    assert "2024" not in str(context.as_dict())


def test_series_of_one_study_are_one_prior_and_reports_are_none(tmp_path: Path) -> None:
    now = stored(ct_series(1)[0], tmp_path / "now", day="20240401")
    first, second, scout = ct_series(3)
    for number, ds in enumerate((first, second, scout)):
        ds.SeriesInstanceUID = f"1.2.{number}"
    report = ct_series(1)[0]
    report.Modality = "SR"
    others = (
        stored(first, tmp_path / "1", day="20240301"),
        stored(second, tmp_path / "2", day="20240301"),
        stored(scout, tmp_path / "3", day="20240301", part=None),
        stored(report, tmp_path / "4", day="20240301"),
    )
    assert comparison(now, *others) == "CT chest, 4 weeks earlier."


def test_nobody_looked_nothing_found_and_no_date_are_told_apart(tmp_path: Path) -> None:
    now = stored(ct_series(1)[0], tmp_path / "now", day="20240401")
    undated = stored(ct_series(1)[0], tmp_path / "undated", day=None)
    assert comparison(now) == "None."
    assert comparison(undated, now) is None
    for builder in (ContextBuilder(), ContextBuilder(History(None))):
        context = builder.of(Stack(name="", headers=(now.header,)), {now.header.sop_instance_uid: now.path})
        assert context.comparison is None
