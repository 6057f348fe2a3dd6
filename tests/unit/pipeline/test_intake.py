from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from factories import ct_slice
from fakes import TemporaryInstance
from pydicom import Dataset

from domain.errors import (
    InstanceMismatch,
    MalformedInstance,
    OutOfSpace,
    StorageError,
    UnsupportedSopClass,
)
from domain.instance import Disposition, Outcome, Reception
from domain.ports import Candidate, StagedInstance
from pipeline.intake import Intake

RECEPTION = Reception(transport="dimse", sender="MODALITY", address="127.0.0.1", received_at=datetime.now(UTC))


@dataclass
class KeepingStore:
    """An ``InstanceStore`` in memory."""

    fail_with: StorageError | None = None
    kept: list[Candidate] = field(default_factory=list)

    def stage(self) -> StagedInstance:
        return TemporaryInstance()

    def keep(self, candidates: Sequence[Candidate], reception: Reception) -> list[Outcome]:
        if self.fail_with is not None:
            raise self.fail_with
        self.kept.extend(candidates)
        return [
            Outcome(disposition=Disposition.STORED, sop_instance_uid=candidate.header.sop_instance_uid)
            for candidate in candidates
        ]


def staged(intake: Intake, data: bytes | Dataset) -> StagedInstance:
    item = intake.stage()
    if isinstance(data, Dataset):
        buffer = BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        data = buffer.getvalue()
    item.write(data)
    return item


@pytest.fixture
def store() -> KeepingStore:
    return KeepingStore()


@pytest.fixture
def intake(store: KeepingStore) -> Intake:
    return Intake(store)


def test_keeps_what_can_be_read(intake: Intake, store: KeepingStore) -> None:
    ds = ct_slice()
    (outcome,) = intake.commit([staged(intake, ds)], RECEPTION)
    assert outcome.disposition is Disposition.STORED
    assert store.kept[0].header.sop_instance_uid == ds.SOPInstanceUID
    assert len(store.kept[0].digest) == 64


def test_a_bad_instance_harms_no_other_of_its_group(intake: Intake) -> None:
    good = ct_slice(), ct_slice()
    group = [staged(intake, b"\xff\xd8 JPEG"), staged(intake, good[0]), staged(intake, b""), staged(intake, good[1])]
    outcomes = intake.commit(group, RECEPTION)
    assert [outcome.disposition.value for outcome in outcomes] == ["refused", "stored", "refused", "stored"]
    assert [outcome.sop_instance_uid for outcome in outcomes[1::2]] == [ds.SOPInstanceUID for ds in good]
    assert isinstance(outcomes[0].error, MalformedInstance)
    assert not any(item.path.exists() for item in group)


@pytest.mark.parametrize(
    ("field_name", "keyword"),
    [
        ("expected_sop_class_uid", "SOPClassUID"),
        ("expected_sop_instance_uid", "SOPInstanceUID"),
        ("expected_study_instance_uid", "StudyInstanceUID"),
    ],
)
@pytest.mark.parametrize("wanted", ["1.2.3", ""])
def test_refuses_a_dataset_that_is_not_what_the_request_names(
    intake: Intake, store: KeepingStore, field_name: str, keyword: str, wanted: str
) -> None:
    changes: dict[str, Any] = {field_name: wanted}
    reception = replace(RECEPTION, **changes)
    (outcome,) = intake.commit([staged(intake, ct_slice())], reception)
    assert isinstance(outcome.error, InstanceMismatch)
    assert keyword in str(outcome.error)
    assert not store.kept


def test_takes_a_dataset_that_is_what_the_request_names(intake: Intake) -> None:
    ds = ct_slice()
    reception = replace(
        RECEPTION,
        expected_sop_class_uid=ds.SOPClassUID,
        expected_sop_instance_uid=ds.SOPInstanceUID,
        expected_study_instance_uid=ds.StudyInstanceUID,
    )
    (outcome,) = intake.commit([staged(intake, ds)], reception)
    assert outcome.disposition is Disposition.STORED


def test_an_empty_uid_in_the_dataset_is_a_mismatch_where_the_command_names_one(intake: Intake) -> None:
    ds = ct_slice()
    ds.SOPInstanceUID = ""
    reception = replace(RECEPTION, expected_sop_instance_uid="1.2.3")
    (by_command,) = intake.commit([staged(intake, ds)], reception)
    (by_file,) = intake.commit([staged(intake, ds)], RECEPTION)
    assert isinstance(by_command.error, InstanceMismatch)
    assert isinstance(by_file.error, MalformedInstance)


def test_a_missing_series_is_malformed_whatever_the_command_says(intake: Intake) -> None:
    ds = ct_slice()
    del ds.SeriesInstanceUID
    reception = replace(RECEPTION, expected_sop_instance_uid=ds.SOPInstanceUID)
    (outcome,) = intake.commit([staged(intake, ds)], reception)
    assert isinstance(outcome.error, MalformedInstance)
    assert outcome.sop_instance_uid == ds.SOPInstanceUID


def test_refuses_a_directory_of_a_medium(intake: Intake) -> None:
    ds = ct_slice()
    ds.SOPClassUID = "1.2.840.10008.1.3.10"
    (outcome,) = intake.commit([staged(intake, ds)], RECEPTION)
    assert isinstance(outcome.error, UnsupportedSopClass)


def test_a_full_store_is_no_answer_about_the_instance(intake: Intake, store: KeepingStore) -> None:
    store.fail_with = OutOfSpace()
    item = staged(intake, ct_slice())
    with pytest.raises(OutOfSpace):
        intake.commit([item], RECEPTION)
    assert not item.path.exists()


def test_a_staged_file_that_vanished_is_our_fault_and_not_the_peers(intake: Intake) -> None:
    item = staged(intake, ct_slice())
    Path(item.path).unlink()
    with pytest.raises(StorageError):
        intake.commit([item], RECEPTION)


def test_logs_the_reason_and_no_patient(intake: Intake, caplog: pytest.LogCaptureFixture) -> None:
    ds = ct_slice()
    ds.PixelData = ds.PixelData[:-2]
    intake.commit([staged(intake, ds)], RECEPTION)
    (record,) = caplog.records
    assert "PixelData is shorter" in vars(record)["why"]
    assert "CANARY" not in str(vars(record))
    assert ds.SOPInstanceUID not in str(vars(record))


def test_what_is_finished_before_the_request_ends_is_kept_as_if_it_were_not(
    intake: Intake, store: KeepingStore
) -> None:
    good, bad, last = staged(intake, ct_slice()), staged(intake, b"not DICOM"), staged(intake, ct_slice())
    good.finish()
    bad.finish()
    outcomes = intake.commit([good, bad, last], RECEPTION)
    assert [outcome.disposition for outcome in outcomes] == [
        Disposition.STORED, Disposition.REFUSED, Disposition.STORED,
    ]  # fmt: skip
    assert len(store.kept) == 2
    assert not good.path.exists()
    assert not bad.path.exists()


def test_what_is_finished_and_thrown_away_leaves_nothing(intake: Intake, store: KeepingStore) -> None:
    item = staged(intake, ct_slice())
    item.finish()
    item.discard()
    assert not item.path.exists()
    assert not store.kept


def test_tells_that_something_was_kept_and_nothing_else(store: KeepingStore) -> None:
    told: list[int] = []
    intake = Intake(store, on_kept=lambda: told.append(len(store.kept)))
    intake.commit([staged(intake, b"\xff\xd8 JPEG")], RECEPTION)
    assert told == []
    intake.commit([staged(intake, ct_slice()), staged(intake, ct_slice())], RECEPTION)
    assert told == [2]  # after they were kept
