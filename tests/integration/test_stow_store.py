"""STOW-RS into the real store: what was acknowledged is there, what was refused is not."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from factories import ct_series, ct_slice
from http_fakes import ListedJobs, NotingIndex
from http_process import live_server
from pydicom.dataset import Dataset
from stow_bodies import RELATED, multipart, part10
from werkzeug.test import Client, TestResponse

from domain.ports import InstanceStore
from gateway.http import HttpSettings, create_app
from pipeline.intake import Intake
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

ENDLESS_MB = 1 << 40


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    found = StoreSettings(path=tmp_path / "store", low_water_mb=1)
    migrate_store(found)
    return found


@pytest.fixture
def store(settings: StoreSettings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@pytest.fixture
def client(store: Store) -> Client:
    return client_of(store.instances)


def client_of(instances: InstanceStore) -> Client:
    app = create_app(
        Intake(instances), NotingIndex().as_index(), ListedJobs().as_log(), HttpSettings(), lambda: {"status": "ok"}
    )
    return app.test_client()


def post(client: Client, datasets: list[Dataset], study: str = "") -> TestResponse:
    body = multipart([part10(dataset) for dataset in datasets])
    return client.post(f"/dicomweb/studies{study}", data=body, content_type=RELATED)


def module(answer: TestResponse) -> Dataset:
    assert answer.json is not None
    return Dataset.from_json(answer.json)


def stored(store: Store, dataset: Dataset) -> list[bytes]:
    return [kept.path.read_bytes() for kept in store.series.instances_by_uid([dataset.SOPInstanceUID])]


def everything(store: Store) -> list[Path]:
    names = ("index", "secret", "lock")
    return [
        file
        for file in store.results.parent.rglob("*")
        if file.is_file() and not any(name in file.name.lower() for name in names)
    ]


def test_instances_of_several_studies_are_kept_exactly_as_received(client: Client, store: Store) -> None:
    datasets = [*ct_series(2), *ct_series(3)]
    answer = post(client, datasets)
    assert answer.status_code == 200
    assert len(module(answer).ReferencedSOPSequence) == 5
    assert [stored(store, dataset) for dataset in datasets] == [[part10(dataset)] for dataset in datasets]
    assert answer.headers["Location"] == "/dicomweb/studies"


def test_only_instances_of_the_study_in_the_url_are_taken(client: Client, store: Store) -> None:
    ours, other = ct_series(2), ct_series(1)
    answer = post(client, [*ours, *other], f"/{ours[0].StudyInstanceUID}")
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/dicomweb/studies/{ours[0].StudyInstanceUID}"
    (failed,) = module(answer).FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (other[0].SOPInstanceUID, 0xA900)
    assert stored(store, ours[0])
    assert not stored(store, other[0])
    assert post(client, other, "/1.2.3").status_code == 409


def test_sending_the_same_again_is_success_and_no_second_copy(client: Client, store: Store) -> None:
    series = ct_series(3)
    assert post(client, series).status_code == 200
    again = post(client, series)
    assert again.status_code == 200
    assert len(module(again).ReferencedSOPSequence) == 3
    assert len(store.series.instances(series[0].SeriesInstanceUID)) == 3


def test_the_same_twice_in_one_request_is_one_copy(client: Client, store: Store) -> None:
    (dataset,) = ct_series(1)
    assert post(client, [dataset, dataset]).status_code == 200
    assert len(store.series.instances(dataset.SeriesInstanceUID)) == 1


def test_other_content_under_the_same_uid_is_refused_and_the_first_copy_kept(client: Client, store: Store) -> None:
    (dataset,) = ct_series(1)
    first = part10(dataset)
    post(client, [dataset])
    dataset.InstanceNumber = 99
    answer = post(client, [dataset])
    assert answer.status_code == 409
    assert module(answer).FailedSOPSequence[0].FailureReason == 273
    assert stored(store, dataset) == [first]
    assert store.series.conflicts(dataset.SeriesInstanceUID) == 1


@pytest.mark.parametrize(
    "broken",
    [b"", b"\xff\xd8\xff\xe0 JPEG", b"\0" * 128 + b"DICM", b"\0" * 200, part10(ct_slice())[:400]],
    ids=["empty", "jpeg", "no meta", "zeros", "truncated"],
)
def test_a_broken_part_is_an_other_failure_beside_the_good_ones(client: Client, store: Store, broken: bytes) -> None:
    good = ct_slice()
    answer = client.post("/dicomweb/studies", data=multipart([broken, part10(good)]), content_type=RELATED)
    assert answer.status_code == 202
    assert [item.FailureReason for item in module(answer).OtherFailuresSequence] == [0xC000]
    assert stored(store, good)
    alone = client.post("/dicomweb/studies", data=multipart([broken]), content_type=RELATED)
    assert alone.status_code == 409
    assert "00081199" not in (alone.json or {})


def test_odd_files_never_make_the_server_fail(client: Client, store: Store, shared_data: Path) -> None:
    odd = sorted((shared_data / "odd").glob("*.dcm"))
    assert odd
    for file in odd:
        answer = client.post("/dicomweb/studies", data=multipart([file.read_bytes()]), content_type=RELATED)
        assert answer.status_code in (200, 409), file.name
    good = ct_slice()
    assert post(client, [good]).status_code == 200


def test_a_full_disk_stores_nothing_of_the_request(settings: StoreSettings) -> None:
    full = StoreSettings(path=settings.path, low_water_mb=ENDLESS_MB)
    with open_store(full) as store:
        before = everything(store)
        series = ct_series(3)
        answer = post(client_of(store.instances), series)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert everything(store) == before
        assert not store.series.instances(series[0].SeriesInstanceUID)


def test_a_cut_off_request_stores_nothing(client: Client, store: Store) -> None:
    before = everything(store)
    series = ct_series(3)
    body = multipart([part10(dataset) for dataset in series])
    assert client.post("/dicomweb/studies", data=body[:-3], content_type=RELATED).status_code == 400
    assert everything(store) == before
    assert not store.series.instances(series[0].SeriesInstanceUID)


def test_a_request_may_hold_more_parts_than_files_can_be_open(client: Client, store: Store) -> None:
    body = multipart([part10(ct_slice())] * 600)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 200, hard))
    try:
        answer = client.post("/dicomweb/studies", data=body, content_type=RELATED)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer.status_code == 200


def test_what_was_acknowledged_survives_a_kill(
    settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    series = ct_series(20)
    body = multipart([part10(dataset) for dataset in series])
    with live_server(tmp_path, "--store", str(settings.path)) as server:
        worker = server.worker
        answer = requests.post(server.studies, data=body, headers={"Content-Type": RELATED}, timeout=20)
        os.kill(worker, signal.SIGKILL)
        server.process.kill()
    assert answer.status_code == 200
    with open_store(settings) as store:
        store.reconcile()
        assert [stored(store, dataset) for dataset in series] == [[part10(dataset)] for dataset in series]


def test_no_patient_is_named_in_logs_and_file_names(
    client: Client, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (dataset,) = ct_series(1)
    file = part10(dataset)
    assert b"CANARY" in file
    post(client, [dataset])
    dataset.InstanceNumber = 2
    post(client, [dataset])
    post(client, [dataset], "/1.2.3")
    client.post("/dicomweb/studies", data=multipart([file[:600], file[200:]]), content_type=RELATED)
    assert "CANARY" not in caplog.text
    assert not any("CANARY" in repr(vars(record)) for record in caplog.records)
    assert not any("CANARY" in str(path) for path in everything(store))
