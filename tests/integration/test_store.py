"""The store with real files, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from factories import ct_series, ct_slice
from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import create_engine, text

from domain.errors import ConfigurationError, ConflictingInstance, OutOfSpace, StorageError
from domain.instance import Disposition, Outcome, Reception
from domain.job import DeliveryState, Job, JobState, ResultObject
from domain.ports import StagedInstance
from pipeline.intake import Intake
from store.database import index_url
from store.entries import holds
from store.migration import VERSION_TABLE
from store.schema import metadata
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

ROOT = Path(__file__).resolve().parents[2]
RECEPTION = Reception(transport="dimse", sender="MODALITY", address="127.0.0.1", received_at=datetime.now(UTC))


@pytest.fixture
def store_settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(path=tmp_path / "store", low_water_mb=0)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(store_settings: StoreSettings, url: str) -> Iterator[Store]:
    migrate_store(store_settings, url)
    with open_store(store_settings, url) as opened:
        yield opened


@pytest.fixture
def intake(store: Store) -> Intake:
    return Intake(store.instances)


def encoded(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def stage(intake: Intake, ds: Dataset | bytes) -> StagedInstance:
    item = intake.stage()
    item.write(ds if isinstance(ds, bytes) else encoded(ds))
    return item


def send(intake: Intake, datasets: Sequence[Dataset | bytes], reception: Reception = RECEPTION) -> list[Outcome]:
    return intake.commit([stage(intake, ds) for ds in datasets], reception)


def dispositions(outcomes: Sequence[Outcome]) -> list[Disposition]:
    return [outcome.disposition for outcome in outcomes]


def changed(ds: Dataset) -> Dataset:
    ds.PixelData = b"\x11\x22" + ds.PixelData[2:]
    return ds


def files(store: Store, area: str = "instances") -> list[Path]:
    return sorted(path for path in (store.results.parent / area).rglob("*") if path.is_file())


def test_keeps_a_series_byte_for_byte(intake: Intake, store: Store) -> None:
    series = ct_series(3)
    before = [encoded(ds) for ds in series]
    assert dispositions(send(intake, series)) == [Disposition.STORED] * 3
    stored = store.series.instances(series[0].SeriesInstanceUID)
    assert [instance.path.read_bytes() for instance in stored] == before
    assert [instance.header.sop_instance_uid for instance in stored] == [ds.SOPInstanceUID for ds in series]
    assert stored[0].received_at == RECEPTION.received_at
    (arrival,) = store.series.arrivals()
    assert (arrival.instances, arrival.revision, arrival.frozen_revision) == (3, 3, 0)
    assert arrival.study_instance_uid == series[0].StudyInstanceUID
    assert arrival.last_arrival_at == RECEPTION.received_at
    assert store.series.sender(series[0].SeriesInstanceUID) == "MODALITY"


def test_no_name_on_disk_says_who_or_what(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    send(intake, [ds, changed(ct_slice())])
    names = " ".join(str(path.relative_to(store.results.parent)) for path in store.results.parent.rglob("*"))
    for secret in ("CANARY", ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID):
        assert secret not in names


def test_a_resend_is_a_duplicate_and_the_first_copy_stays(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    send(intake, [ds])
    (path,) = files(store)
    first = path.read_bytes()
    ds.StudyDescription += "  "  # padded anew on the way
    assert dispositions(send(intake, [ds, ds])) == [Disposition.DUPLICATE] * 2
    assert files(store) == [path]
    assert path.read_bytes() == first
    assert store.series.arrivals()[0].revision == 1


def test_other_content_under_the_same_uid_is_refused_and_quarantined_once(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    send(intake, [ds])
    (path,) = files(store)
    first = path.read_bytes()
    for _ in range(2):
        (outcome,) = send(intake, [changed(ds)])
        assert outcome.disposition is Disposition.REFUSED
        assert isinstance(outcome.error, ConflictingInstance)
        assert outcome.sop_instance_uid == ds.SOPInstanceUID
    assert path.read_bytes() == first
    assert len(files(store, "quarantine")) == 1
    assert store.series.conflicts(ds.SeriesInstanceUID) == 1
    (arrival,) = store.series.arrivals()
    assert (arrival.revision, arrival.instances) == (2, 1)
    assert len(store.series.instances(ds.SeriesInstanceUID, 2)) == 1


def test_a_conflict_is_told_to_both_series(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    send(intake, [ds])
    first = ds.SeriesInstanceUID
    ds.SeriesInstanceUID = "1.2.3.4"
    send(intake, [ds])
    assert store.series.conflicts(first) == store.series.conflicts("1.2.3.4") == 1
    assert {arrival.series_instance_uid: arrival.revision for arrival in store.series.arrivals()} == {
        first: 2,
        "1.2.3.4": 1,
    }


def test_twins_and_rivals_inside_one_group_are_told_apart(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    data = encoded(ds)
    outcomes = send(intake, [data, data, changed(ds), b"no DICOM", ct_slice()])
    assert [item.disposition.value for item in outcomes] == ["stored", "duplicate", "refused", "refused", "stored"]
    assert len(files(store)) == 2
    assert len(files(store, "quarantine")) == 1
    assert not list((store.results.parent / "tmp").rglob("*.part"))


def test_a_revision_is_a_set_that_never_changes(intake: Intake, store: Store) -> None:
    series = ct_series(4)
    uid = series[0].SeriesInstanceUID
    send(intake, series[:2])
    store.series.freeze(uid, 2)
    assert store.series.arrivals() == []
    send(intake, [changed(series[0])])
    send(intake, series[2:])
    (arrival,) = store.series.arrivals()
    assert (arrival.revision, arrival.frozen_revision, arrival.instances) == (5, 2, 4)
    assert [len(store.series.instances(uid, revision)) for revision in range(6)] == [0, 1, 2, 2, 3, 4]
    store.series.freeze(uid, 5)
    store.series.freeze(uid, 3)
    assert store.series.arrivals() == []


def test_series_that_wait_are_named_in_the_order_in_which_they_began_to_arrive(intake: Intake, store: Store) -> None:
    uids = sorted((str(generate_uid()) for _ in range(4)), reverse=True)
    for minute, uid in enumerate(uids):
        ds = ct_slice()
        ds.SeriesInstanceUID = uid
        send(intake, [ds], replace(RECEPTION, received_at=RECEPTION.received_at + timedelta(minutes=minute)))
    assert [arrival.series_instance_uid for arrival in store.series.arrivals()] == uids


def test_announced_and_written_numbers_are_expected(intake: Intake, store: Store) -> None:
    series = ct_series(2)
    for ds in series:
        ds.NumberOfSeriesRelatedInstances = 2
    send(intake, series)
    assert store.series.arrivals()[0].expected == 2
    store.series.expect(series[0].SeriesInstanceUID, 3)
    assert store.series.arrivals()[0].expected == 3
    later = ct_slice()
    store.series.expect(later.SeriesInstanceUID, 7)
    assert len(store.series.arrivals()) == 1
    send(intake, [later])
    assert [item.expected for item in store.series.arrivals() if item.instances == 1] == [7]


def test_finds_instances_by_uid_in_the_order_asked_for(intake: Intake, store: Store) -> None:
    series = ct_series(3)
    send(intake, series)
    asked = [series[2].SOPInstanceUID, "1.2.3", series[0].SOPInstanceUID]
    found = store.series.instances_by_uid(asked)
    assert [instance.header.sop_instance_uid for instance in found] == [asked[0], asked[2]]


def test_removes_a_series_with_its_files_and_takes_it_again(intake: Intake, store: Store) -> None:
    old, new = ct_series(2), ct_series(1)
    before = replace(RECEPTION, received_at=RECEPTION.received_at - timedelta(days=8))
    send(intake, old, before)
    send(intake, [changed(old[0])], before)
    send(intake, new)
    uid = old[0].SeriesInstanceUID
    assert store.series.series_older_than(RECEPTION.received_at - timedelta(days=7)) == [uid]
    assert store.series.remove_series(uid) == 2
    assert store.series.instances(uid) == ()
    assert store.series.conflicts(uid) == 0
    assert store.series.sender(uid) is None
    assert len(files(store)) == 1
    assert files(store, "quarantine") == []
    assert dispositions(send(intake, old)) == [Disposition.STORED] * 2


def test_many_senders_of_one_uid_leave_exactly_one_copy(intake: Intake, store: Store) -> None:
    data = [encoded(ds) for ds in ct_series(5)]
    together = threading.Barrier(6)

    def sender(_: int) -> list[Disposition]:
        together.wait()
        return [item for one in data for item in dispositions(send(intake, [one]))]

    with ThreadPoolExecutor(6) as pool:
        said = [item for items in pool.map(sender, range(6)) for item in items]
    assert said.count(Disposition.STORED) == 5
    assert said.count(Disposition.DUPLICATE) == 25
    assert len(files(store)) == 5
    assert store.series.arrivals()[0].revision == 5


def test_processes_that_race_for_one_uid_agree(
    intake: Intake, store: Store, store_settings: StoreSettings, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    rivals = ct_series(6)
    for number, ds in enumerate(rivals):
        (folder / f"{number}.a").write_bytes(encoded(ds))
        (folder / f"{number}.b").write_bytes(encoded(changed(ds)))
    writers = [_writer(store_settings.path, url, folder, f"*.{kind}") for kind in "aabb"]
    said = [line.split()[1] for writer in writers for line in writer.communicate(timeout=60)[0].splitlines()]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert said.count("stored") == 6
    assert said.count("duplicate") == 6
    assert said.count("refused") == 12
    assert len(files(store)) == len(files(store, "quarantine")) == 6
    (arrival,) = store.series.arrivals()
    assert (arrival.revision, arrival.instances) == (12, 6)
    assert store.series.conflicts(arrival.series_instance_uid) == 6


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from domain.instance import Reception
from pipeline.intake import Intake
from store.settings import StoreSettings
from store.store import open_store

path, url, folder, pattern = sys.argv[1:]
reception = Reception(transport="dimse", sender="W", address="", received_at=datetime.now(UTC))
with open_store(StoreSettings(path=Path(path), low_water_mb=0), url) as store:
    intake = Intake(store.instances)
    for source in sorted(Path(folder).glob(pattern)):
        item = intake.stage()
        item.write(source.read_bytes())
        outcome, = intake.commit([item], reception)
        print(source.name, outcome.disposition.value, flush=True)
"""


def _writer(path: Path, url: str, folder: Path, pattern: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), url, str(folder), pattern]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_nothing_that_was_acknowledged(
    store: Store, store_settings: StoreSettings, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    series = ct_series(150)
    for number, ds in enumerate(series):
        (folder / f"{number:04d}").write_bytes(encoded(ds))
    acknowledged: set[str] = set()
    for after in (3, 40, 75):
        writer = _writer(store_settings.path, url, folder, "*")
        assert writer.stdout is not None
        for _ in range(after):
            acknowledged.add(writer.stdout.readline().split()[0])
        writer.kill()
        acknowledged |= {line.split()[0] for line in writer.communicate()[0].splitlines() if line.endswith("d")}
        store.reconcile()
    stored = store.series.instances(series[0].SeriesInstanceUID)
    uids = {instance.header.sop_instance_uid for instance in stored}
    assert len(acknowledged) >= 75
    assert {series[int(name)].SOPInstanceUID for name in acknowledged} <= uids
    assert len(stored) == len(uids) == len(files(store)) == store.series.arrivals()[0].instances
    for instance in stored:
        number = next(n for n, ds in enumerate(series) if ds.SOPInstanceUID == instance.header.sop_instance_uid)
        assert instance.path.read_bytes() == (folder / f"{number:04d}").read_bytes()
    assert not list((store.results.parent / "tmp").rglob("*.part"))


def test_a_file_whose_row_was_lost_is_indexed_at_start(intake: Intake, store: Store, url: str) -> None:
    series = ct_series(2)
    send(intake, series)
    _forget(store, url)
    assert store.reconcile()["recovered"] == 2
    found = store.series.instances(series[0].SeriesInstanceUID)
    assert {instance.header.sop_instance_uid for instance in found} == {ds.SOPInstanceUID for ds in series}
    assert all(instance.path.is_file() for instance in found)
    assert store.series.sender(series[0].SeriesInstanceUID) is None
    assert dispositions(send(intake, series)) == [Disposition.DUPLICATE] * 2
    assert store.series.sender(series[0].SeriesInstanceUID) == "MODALITY"
    assert sum(store.reconcile().values()) == 0


def _forget(store: Store, url: str) -> None:
    engine = create_engine(index_url(store.results.parent, url))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM instances"))
        connection.execute(text("DELETE FROM series"))
    engine.dispose()


def test_a_second_copy_left_by_a_crash_is_removed_at_start(intake: Intake, store: Store) -> None:
    send(intake, [ct_slice()])
    (path,) = files(store)
    path.with_name("0" * 40 + "-00000000.dcm").write_bytes(path.read_bytes())
    assert store.reconcile()["superfluous"] == 1
    assert files(store) == [path]


def test_an_unreadable_leftover_is_put_aside_once(store: Store) -> None:
    (store.results.parent / "instances" / "00" / "x.dcm").write_bytes(b"torn")
    assert store.reconcile()["unreadable"] == 1
    assert files(store) == []
    assert len(files(store, "quarantine")) == 1
    assert sum(store.reconcile().values()) == 0


def test_a_row_whose_file_is_gone_is_reported_and_healed_by_a_resend(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    send(intake, [ds])
    files(store)[0].unlink()
    assert store.reconcile()["missing"] == 1
    assert dispositions(send(intake, [ds])) == [Disposition.DUPLICATE]
    (instance,) = store.series.instances(ds.SeriesInstanceUID)
    assert instance.path.read_bytes() == encoded(ds)
    assert sum(store.reconcile().values()) == 0


def test_of_two_copies_sent_for_a_damaged_file_one_takes_its_place_and_nothing_is_left_over(
    intake: Intake, store: Store
) -> None:
    first, second = ct_series(2)
    send(intake, [first, second])
    for path in files(store):
        held = bytearray(path.read_bytes())
        held[-1] ^= 1
        path.write_bytes(held)
    assert dispositions(send(intake, [first, first])) == [Disposition.DUPLICATE] * 2
    instance, other = store.series.instances_by_uid([first.SOPInstanceUID, second.SOPInstanceUID])
    assert instance.path.read_bytes() == encoded(first)
    assert sorted(files(store)) == sorted([instance.path, other.path])
    assert dispositions(send(intake, [second])) == [Disposition.DUPLICATE]
    assert len(files(store)) == 2
    assert encoded(second) in [path.read_bytes() for path in files(store)]


def test_of_two_processes_that_replace_a_damaged_file_one_leaves_nothing_over(
    intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = ct_slice()
    send(intake, [ds])
    (damaged,) = files(store)
    held = damaged.read_bytes()
    damaged.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))

    def slowly(path: Path, digest: str) -> bool:
        found = holds(path, digest)
        monkeypatch.setattr("store.instances.holds", holds)
        assert dispositions(send(intake, [ds])) == [Disposition.DUPLICATE]
        return found

    monkeypatch.setattr("store.instances.holds", slowly)
    assert dispositions(send(intake, [ds])) == [Disposition.DUPLICATE]
    (instance,) = store.series.instances(ds.SeriesInstanceUID)
    assert files(store) == [instance.path]
    assert instance.path.read_bytes() == encoded(ds)


def test_a_damaged_file_that_is_still_there_after_a_crash_is_no_conflicting_copy(
    intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = ct_slice()
    send(intake, [ds])
    (damaged,) = files(store)
    held = damaged.read_bytes()
    damaged.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    unlink = Path.unlink

    def crash(path: Path, missing_ok: bool = False) -> None:
        if path == damaged:
            raise OSError
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        assert dispositions(send(intake, [ds])) == [Disposition.DUPLICATE]
    assert damaged.exists()
    store.reconcile()
    assert store.series.conflicts(ds.SeriesInstanceUID) == 0
    assert [path.read_bytes() for path in files(store)] == [encoded(ds)]
    assert files(store, "quarantine") == []


def test_a_file_that_was_cut_off_gives_way_to_its_re_send(intake: Intake, store: Store) -> None:
    ds = ct_slice()
    send(intake, [ds])
    (cut_off,) = files(store)
    os.truncate(cut_off, 1000)
    assert dispositions(send(intake, [ds])) == [Disposition.DUPLICATE]
    (path,) = files(store)
    assert path != cut_off
    assert path.read_bytes() == encoded(ds)


def test_an_interrupted_removal_is_finished_and_nothing_comes_back(intake: Intake, store: Store, url: str) -> None:
    send(intake, [ct_slice()])
    (path,) = files(store)
    name = path.relative_to(store.results.parent).as_posix()
    _forget(store, url)
    engine = create_engine(index_url(store.results.parent, url))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO removals (path) VALUES (:path)"), {"path": name})
    engine.dispose()
    counts = store.reconcile()
    assert (counts["removed"], counts["recovered"]) == (1, 0)
    assert files(store) == []


def test_temporary_files_of_the_living_are_left_alone(intake: Intake, store: Store) -> None:
    item = stage(intake, ct_slice())
    dead = store.results.parent / "tmp" / "dead"
    dead.mkdir()
    (dead / "0.part").write_bytes(b"half")
    assert store.reconcile()["temporary"] == 1
    assert item.path.exists()
    item.discard()
    item.discard()
    assert not item.path.exists()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_more_instances_can_be_staged_than_files_can_be_open(intake: Intake) -> None:
    data = [encoded(ds) for ds in ct_series(200)]
    before = open_files()
    items = [intake.stage() for _ in data]
    for start in (0, 500):
        for item, one in zip(items, data, strict=True):
            item.write(one[start : start + 500] if not start else one[start:])
    assert open_files() - before < 130
    assert dispositions(intake.commit(items, RECEPTION)) == [Disposition.STORED] * 200


def test_below_the_low_water_mark_nothing_is_taken(store_settings: StoreSettings) -> None:
    migrate_store(store_settings)
    with open_store(replace(store_settings, low_water_mb=1 << 40)) as store, pytest.raises(OutOfSpace):
        store.instances.stage()


def test_two_supervisors_may_migrate_at_once(store_settings: StoreSettings, url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate_store(store_settings, url), range(4)))
    with open_store(store_settings, url) as store:
        assert store.series.arrivals() == []


def test_the_migrations_make_the_tables_that_the_code_uses(store: Store, url: str) -> None:
    engine = create_engine(index_url(store.results.parent, url))
    with engine.connect() as connection:
        options = {"include_object": lambda item, name, kind, *_: name != VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_an_unknown_kind_of_database_is_a_configuration_error(store_settings: StoreSettings) -> None:
    with pytest.raises(ConfigurationError, match=r"database\.url"):
        migrate_store(store_settings, "mysql://localhost/x")


def test_an_index_that_cannot_be_reached_is_a_storage_error(store_settings: StoreSettings) -> None:
    with pytest.raises(StorageError) as caught:
        migrate_store(store_settings, "postgresql+psycopg://nobody:CANARY@127.0.0.1:1/none")
    assert "CANARY" not in str(caught.value)


def test_looking_for_arrivals_and_reconciling_stay_quick_with_ten_thousand_instances(
    store_settings: StoreSettings,
) -> None:
    migrate_store(store_settings)
    with open_store(store_settings) as store:
        _fill(store, 10_000)
        started = time.process_time()
        assert store.reconcile()["missing"] == 0
        assert time.process_time() - started < 0.5
        started = time.process_time()
        for _ in range(20):
            assert store.series.arrivals() == []
        assert time.process_time() - started < 0.2


def _fill(store: Store, count: int) -> None:
    """Put rows and empty files in place, as if ``count`` instances of as many series had been handed on."""
    root = store.results.parent
    paths = [f"instances/{number % 256:02x}/{number:x}.dcm" for number in range(count)]
    for path in paths:
        os.close(os.open(root / path, os.O_CREAT | os.O_WRONLY))
    now = "2024-01-01 00:00:00.000000"
    engine = create_engine(index_url(root, ""))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO instances (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid,"
                " transfer_syntax_uid, revision, digest, path, size, header, transport, sender, address, received_at)"
                " VALUES (:uid, :uid, '1', '1', '1', 1, '', :path, 0, '{}', 'file', '', '', :now)"
            ),
            [{"uid": f"1.{number}", "path": path, "now": now} for number, path in enumerate(paths)],
        )
        connection.execute(
            text(
                "INSERT INTO series (series_instance_uid, study_instance_uid, instances, conflicts, revision,"
                " frozen_revision, sender, first_arrival_at, last_arrival_at)"
                " VALUES (:uid, '1', 1, 0, 1, 1, '', :now, :now)"
            ),
            [{"uid": f"1.{number}", "now": now} for number in range(count)],
        )
    engine.dispose()


JOB = Job(
    job_id="a" * 40,
    series_instance_uid="1.2",
    study_instance_uid="1",
    stack="axial",
    sop_instance_uids=("1.2.1", "1.2.2"),
    route="chest ct",
    engine="lungs",
    engine_version="1",
    destinations=("pacs",),
)


def test_a_job_is_added_once_and_found_again(store: Store) -> None:
    assert store.jobs.add(JOB)
    assert not store.jobs.add(replace(JOB, reason="again"))
    found = store.jobs.get(JOB.job_id)
    assert found is not None
    assert replace(found, created_at=None, updated_at=None) == JOB
    assert found.created_at is not None
    assert found.created_at.tzinfo is UTC
    assert store.jobs.get("b" * 40) is None


def test_jobs_are_listed_newest_first_and_filtered(store: Store) -> None:
    for number in range(5):
        store.jobs.add(replace(JOB, job_id=str(number), series_instance_uid=f"1.{number % 2}"))
    store.jobs.update("3", state=JobState.DONE)
    assert [job.job_id for job in store.jobs.find(limit=2)] == ["4", "3"]
    assert [job.job_id for job in store.jobs.find(series_instance_uid="1.1")] == ["3", "1"]
    assert [job.job_id for job in store.jobs.find(series_instance_uid="1.1", state=JobState.QUEUED)] == ["1"]
    assert len(store.jobs.find(study_instance_uid="1")) == 5


def test_an_update_changes_what_is_given_and_merges_timings(store: Store) -> None:
    store.jobs.add(JOB)
    store.jobs.update(JOB.job_id, state=JobState.RUNNING, timings_s={"assemble": 1.5, "engine": 1.0})
    store.jobs.update(JOB.job_id, timings_s={"engine": 2.0}, summary=[{"label": "lung", "volume_ml": 1.0}])
    store.jobs.update(JOB.job_id, state=JobState.FAILED, code="x", reason="why", attempt=2)
    job = store.jobs.get(JOB.job_id)
    assert job is not None
    assert (job.state, job.code, job.reason, job.attempt) == (JobState.FAILED, "x", "why", 2)
    assert job.timings_s == {"assemble": 1.5, "engine": 2.0}
    assert job.summary == [{"label": "lung", "volume_ml": 1.0}]
    assert job.updated_at is not None
    assert job.created_at is not None
    assert job.updated_at > job.created_at


def test_objects_and_deliveries_are_kept_with_their_job(store: Store) -> None:
    store.jobs.add(JOB)
    objects = [
        ResultObject(
            job_id=JOB.job_id,
            kind=kind,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
            sop_instance_uid=f"2.25.{number}",
            series_instance_uid="2.25.9",
            path=store.results / JOB.job_id / f"{kind}.dcm",
        )
        for number, kind in enumerate(("SEG", "SR"))
    ]
    store.jobs.put_objects(objects)
    store.jobs.put_objects(objects)
    assert store.jobs.objects(JOB.job_id) == tuple(objects)
    uid = objects[0].sop_instance_uid
    store.jobs.set_delivery(JOB.job_id, "pacs", uid, state=DeliveryState.QUEUED)
    store.jobs.set_delivery(JOB.job_id, "pacs", uid, state=DeliveryState.QUEUED, reason="no association")
    store.jobs.set_delivery(JOB.job_id, "pacs", uid, state=DeliveryState.STORED)
    (delivery,) = store.jobs.deliveries(JOB.job_id)
    assert (delivery.state, delivery.attempts, delivery.reason) == (DeliveryState.STORED, 2, "")
    store.jobs.remove(JOB.job_id)
    assert store.jobs.get(JOB.job_id) is None
    assert not store.jobs.objects(JOB.job_id)
    assert not store.jobs.deliveries(JOB.job_id)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system that fills up; skips where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _send_until_full(intake: Intake, stored: list[str]) -> None:
    for ds in ct_series(400):
        ds.add_new(0x00091001, "OB", os.urandom(60_000))
        send(intake, [ds])
        stored.append(ds.SOPInstanceUID)


def test_a_disk_that_fills_up_loses_nothing_and_recovers(full_disk: Path) -> None:
    settings = StoreSettings(path=full_disk / "store", low_water_mb=0)
    migrate_store(settings)
    ballast = full_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    with open_store(settings) as store:
        intake = Intake(store.instances)
        stored: list[str] = []
        with pytest.raises(OutOfSpace):
            _send_until_full(intake, stored)
        assert stored
        (arrival,) = store.series.arrivals()
        found = store.series.instances(arrival.series_instance_uid)
        assert [instance.header.sop_instance_uid for instance in found] == stored
        assert len(files(store)) == len(stored)
        assert not list((store.results.parent / "tmp").rglob("*.part"))
        ballast.unlink()
        assert dispositions(send(intake, [ct_slice()])) == [Disposition.STORED]
        assert store.series.remove_series(arrival.series_instance_uid) == len(stored)


def test_a_full_index_disk_leaves_no_file_without_a_row(full_disk: Path, store_settings: StoreSettings) -> None:
    url = f"sqlite:///{full_disk / 'index.sqlite'}"
    migrate_store(store_settings, url)
    (full_disk / "ballast").write_bytes(bytes(2_700_000))
    with open_store(store_settings, url) as store:
        stored: list[str] = []
        with pytest.raises(OutOfSpace, match="index"):
            _send_until_full(Intake(store.instances), stored)
        (full_disk / "ballast").unlink()
        (arrival,) = store.series.arrivals()
        assert arrival.instances == len(stored) == len(files(store)) > 0
        assert sum(store.reconcile().values()) == 0
