"""kill -9 of any process while series arrive and are processed: nothing is lost, nothing is doubled.

Results go to a real Orthanc, and to an archive that must take responsibility for them and show them to a query: a
kill may fall between any two of these steps.

``VOXGATE_CHAOS_KILLS`` says how many kills (default: few, for a quick run); from 60 on there are 40 series.
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import pydicom
import pytest
from gateway_server import GatewayServer
from orthanc_server import OrthancServer
from pacs import COMMITMENT, COMMITMENT_INSTANCE, Pacs
from pynetdicom.events import Event
from sqlalchemy import create_engine

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

KILLS = int(os.environ.get("VOXGATE_CHAOS_KILLS", "6"))
SERIES = 40 if KILLS >= 60 else 6
SEED = int(os.environ.get("VOXGATE_CHAOS_SEED", "20261122"))
ROLES = ("serve", "scp", "http", "worker", "infer")
MUST_BE_NONE = ("lost", "duplicates", "differing copies", "unconfirmed", "stale locks", "temporary files")
# An answer that a kill took away is asked for again after seconds rather than hours.
CONFIRMING = {"confirm": ["commitment", "query"], "commitment_wait_s": 2.0, "commitment_again_h": 0.001}
OTHER_HOST = ("other worker", "other infer")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


class Sender:
    """A modality's queue: sends every folder again and again until every instance was answered with success."""

    def __init__(self, program: str, gateway: GatewayServer, folders: list[Path]) -> None:
        self._program, self._gateway, self._folders = program, gateway, folders
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._send_all)
        self.tries = 0

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Return whether everything was acknowledged in time; gives up if not."""
        self._thread.join(timeout_s)
        done = not self._thread.is_alive()
        self._give_up.set()
        self._thread.join()
        return done

    def _send_all(self) -> None:
        for folder in self._folders:
            while not self._give_up.is_set() and not self._sent(folder):
                time.sleep(0.2)

    def _sent(self, folder: Path) -> bool:
        try:
            port = self._gateway.dimse_port
        except KeyError:
            return False
        self.tries += 1
        return (
            subprocess.run(
                [self._program, "-aec", "VOXGATE", "-to", "5", "+sd", "127.0.0.1", str(port), str(folder)],
                capture_output=True,
                timeout=120,
            ).returncode
            == 0
        )


class Killer:
    """Kills processes at random, and starts again what nobody else would."""

    def __init__(self, gateway: GatewayServer, *, second_host: bool) -> None:
        self._gateway = gateway
        self._dice = random.Random(SEED)
        self._others: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: Counter[str] = Counter()
        if second_host:
            for role in OTHER_HOST:
                self._others[role] = gateway.start_role(role.removeprefix("other "))

    def kill(self, count: int) -> None:
        roles = (*ROLES, *self._others)
        while self.killed.total() < count:
            time.sleep(self._dice.uniform(0.5, 2.5))
            role = self._dice.choice(roles)
            self.killed[role] += self._kill(role)

    def _kill(self, role: str) -> bool:
        if role == "serve":
            self._gateway.kill()
            self._gateway.start()
        elif role in self._others:
            self._others[role].kill()
            self._others[role].wait()
            self._others[role] = self._gateway.start_role(role.removeprefix("other "))
        else:
            return self._gateway.kill_part(role)
        return True

    def end(self) -> None:
        for process in self._others.values():
            process.terminate()
        for process in self._others.values():
            process.wait(40)


@pytest.mark.timeout(3600)
def test_every_series_ends_with_one_seg_and_one_sr_whatever_is_killed(
    tmp_path: Path, orthanc: OrthancServer, peer: Callable[[str], str], database_url: str
) -> None:
    orthanc.clear()
    folders = [tmp_path / f"series{number}" for number in range(SERIES)]
    for number, folder in enumerate(folders):
        write_phantom(folder, small=True, seed=number)
    pacs = {"name": "pacs", "kind": "dimse", "host": "127.0.0.1"}
    archive = Pacs()
    gateway = GatewayServer(
        tmp_path / "gateway",
        destinations=[
            {**pacs, "port": orthanc.dimse_port, "ae_title": orthanc.ae_title},
            {**pacs, **CONFIRMING, "name": "archive", "port": archive.port, "ae_title": "PACS"},
        ],
        routes=[{"name": "everything", "engine": "lungs"}],
        sections={"database": {"url": database_url}},
    )
    archive.on_asked = lambda pacs, event: _commit(pacs, event, gateway)
    with ExitStack() as stack:
        stack.enter_context(archive)
        stack.enter_context(gateway)
        began = time.monotonic()
        sender = Sender(peer("dcmsend"), gateway, folders)
        killer = Killer(gateway, second_host=bool(database_url))
        stack.callback(killer.end)
        stack.callback(sender.join, 0)
        sender.start()
        killer.kill(KILLS)
        assert sender.join(900), gateway.log[-3000:]
        jobs = _all_ended(gateway, _size(folders[0]))
        took_s = time.monotonic() - began
        counted = _count(jobs, orthanc, _size(folders[0]), gateway, tmp_path)
        counted["unconfirmed"] = _unconfirmed(jobs, archive)
        killer.end()
        gateway.stop()
        gateway.start()
        counted["stale locks"] = _stale_locks(gateway.store, database_url)
        counted["temporary files"] = _temporary_files(gateway.store)
        taken = [line for line in gateway.log_lines() if line.get("message") == "tasks of a dead worker taken over"]
        print(
            f"\n{'PostgreSQL' if database_url else 'SQLite'}: {killer.killed.total()} kills {dict(killer.killed)}, "
            f"{SERIES} series in {sender.tries} sendings, {took_s:.0f} s; {len(taken)} take-overs, "
            f"{archive.stores} stored and {len(archive.asked)} times asked to commit at the archive; "
            + ", ".join(f"{name} {number}" for name, number in counted.items())
        )
    assert not any(counted[name] for name in MUST_BE_NONE), counted


def _commit(archive: Pacs, event: Event, gateway: GatewayServer) -> None:
    """Answer on the association of the question, and every other time on one of its own; who asked may be dead."""
    asked, on_its_own = event.action_information, len(archive.asked) % 2 == 0
    report, event_type = archive.answer(asked)

    def tell() -> None:
        with suppress(AssertionError, KeyError, RuntimeError, ValueError):
            if on_its_own:
                archive.report_to = gateway.dimse_port
                archive.report(asked)
            else:
                event.assoc.send_n_event_report(report, event_type, COMMITMENT, COMMITMENT_INSTANCE)

    archive.later(tell)


def _unconfirmed(jobs: list[dict[str, object]], archive: Pacs) -> int:
    """Return how many results the archive does not have, or has and did not confirm."""
    done = [job for job in jobs if job["state"] == "done"]
    confirmed = sum(
        delivery["state"] == "visible"
        for job in done
        for delivery in cast(list[dict[str, object]], job["deliveries"])
        if delivery["destination"] == "archive"
    )
    return max(0, 2 * len(done) - confirmed) + abs(2 * len(done) - len(archive.held))


def _all_ended(gateway: GatewayServer, size: int) -> list[dict[str, object]]:
    """Return all jobs once every series has one on its whole set, and none goes on."""
    deadline = time.monotonic() + 600
    while True:
        jobs = gateway.wait_for_jobs(SERIES, timeout_s=600)
        whole = {job["series_instance_uid"] for job in jobs if job["instances"] == size and job["state"] == "done"}
        if len(whole) == SERIES or time.monotonic() > deadline:
            return jobs
        time.sleep(0.5)


def _count(
    jobs: list[dict[str, object]], orthanc: OrthancServer, size: int, gateway: GatewayServer, folder: Path
) -> dict[str, int]:
    """Return what there is too little and too much of.

    A kill may split a series into two sets when its sender stalls beyond the quiet period: then the smaller one is a
    generation of its own. The whole set must have ended once, with one SEG and one SR.
    """
    assert {job["state"] for job in jobs} <= {"done", "cancelled", "not-run", "not-applicable"}, jobs
    done = [job for job in jobs if job["state"] == "done"]
    whole = Counter(str(job["series_instance_uid"]) for job in done if job["instances"] == size)
    segs, srs = orthanc.count("SEG"), orthanc.count("SR")
    return {
        "results": len(done),
        "SEG": segs,
        "SR": srs,
        "lost": SERIES - len(whole) + max(0, len(done) - segs) + max(0, len(done) - srs),
        "duplicates": sum(whole.values()) - len(whole) + max(0, segs - len(done)) + max(0, srs - len(done)),
        "differing copies": _differing(orthanc, gateway.store, folder),
    }


def _differing(orthanc: OrthancServer, store: Path, folder: Path) -> int:
    """Return how many objects at the destination are not what the store says was sent."""
    kept = {}
    for path in (store / "results").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        kept[str(dataset.SOPInstanceUID)] = dataset
    differing = 0
    for modality in ("SEG", "SR"):
        for path in orthanc.download_all(folder / "downloaded", modality):
            dataset = pydicom.dcmread(path)
            differing += kept.get(str(dataset.SOPInstanceUID)) != dataset
    return differing


def _stale_locks(store: Path, database_url: str) -> int:
    """Return how many locks of the dead there are once the living have swept; two workers live."""
    deadline = time.monotonic() + 30
    while (stale := _locks(store, database_url)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return stale


def _locks(store: Path, database_url: str) -> int:
    if not database_url:
        return sum(_is_free(path) for path in (store / "run" / "workers").iterdir())
    engine = create_engine(database_url)
    with engine.connect() as connection:
        query = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1987016807"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        held = int(connection.exec_driver_sql(query).scalar_one())
    engine.dispose()
    return held - 2


def _is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _temporary_files(store: Path) -> int:
    left = [*(store / "tmp").rglob("*.part"), *(store / "run").rglob("*.tmp"), *(store / "run").rglob("crashes/*")]
    return len([*left, *(store / "results").rglob(".*"), *(store / "results").glob("*/findings-*")])


def _size(folder: Path) -> int:
    return sum(1 for path in folder.iterdir() if path.is_file())
