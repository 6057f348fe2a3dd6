"""The database is away, the disk is full: senders are told so, nothing is lost, and all goes on without a restart."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from gateway_server import GatewayServer
from postgres_server import PostgresServer, postgres_programs
from pydicom.uid import CTImageStorage
from pynetdicom import AE
from stow_bodies import RELATED, multipart

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

OUTAGE_S = float(os.environ.get("VOXGATE_OUTAGE_S", "4"))
CATCH_ALL = {"name": "everything", "engine": "lungs"}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (make peers)")
    found = PostgresServer(programs)
    try:
        yield found
    finally:
        found.stop()
        found.remove()


def c_store(gateway: GatewayServer, paths: list[Path]) -> set[int]:
    """Send files on one association; return the statuses."""
    ae = AE("MODALITY")
    ae.add_requested_context(CTImageStorage)
    association = ae.associate("127.0.0.1", gateway.dimse_port, ae_title="VOXGATE")
    assert association.is_established
    try:
        return {association.send_c_store(pydicom.dcmread(path)).Status for path in paths}
    finally:
        association.release()


def stow(gateway: GatewayServer, path: Path) -> requests.Response:
    """Send one file by STOW-RS."""
    with requests.Session() as session:
        session.trust_env = False
        return session.post(
            f"{gateway.dicomweb_url}/studies",
            data=multipart([path.read_bytes()]),
            headers={"Content-Type": RELATED},
            timeout=60,
        )


def phantom(folder: Path, seed: int) -> list[Path]:
    return list(write_phantom(folder, small=True, seed=seed).paths)


def restarts(gateway: GatewayServer) -> dict[str, int]:
    return {role: part["restarts"] for role, part in gateway.status["processes"].items()}


def states(jobs: list[dict[str, Any]]) -> list[str]:
    return [job["state"] for job in jobs]


def test_a_database_that_is_away_stops_nobody_for_good(tmp_path: Path, server: PostgresServer) -> None:
    first, second = phantom(tmp_path / "one", 1), phantom(tmp_path / "two", 2)
    with GatewayServer(
        tmp_path / "gateway", routes=[CATCH_ALL], sections={"database": {"url": f"{server.url}/postgres"}}
    ) as gateway:
        assert c_store(gateway, first) == {0x0000}  # acknowledged: its job must come, whatever follows
        server.stop()
        began = time.monotonic()
        assert c_store(gateway, second[:2]) == {0xA700}
        refused = stow(gateway, second[0])
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        told_s = time.monotonic() - began
        time.sleep(max(0.0, OUTAGE_S - told_s))
        server.start()
        back = time.monotonic()
        assert c_store(gateway, second) == {0x0000}
        assert states(gateway.wait_for_jobs(2, timeout_s=150)) == ["done", "done"]
        print(
            f"\ndatabase away for {OUTAGE_S:.0f} s: three senders told in {told_s:.1f} s, "
            f"both jobs done {time.monotonic() - back:.1f} s after it came back"
        )
        assert set(restarts(gateway).values()) == {0}


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system in memory; skips where this may not be done."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "voxgate-test", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, leave_mb: float) -> Path:
    """Take the room of a disk but for so much; return the file that holds it."""
    state = os.statvfs(disk)
    path = disk / "ballast"
    with path.open("wb") as file:
        left = int(state.f_bavail * state.f_frsize - leave_mb * (1 << 20))
        try:
            while left > 0:
                left -= file.write(b"\0" * min(left, 4096))
                file.flush()
        except OSError:
            pass
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def test_a_full_disk_is_told_to_senders_and_jobs_wait_for_room(tmp_path: Path, database_url: str) -> None:
    paths = phantom(tmp_path / "series", 3)
    with (
        small_disk(tmp_path / "disk", 64) as disk,
        GatewayServer(
            tmp_path / "gateway",
            routes=[CATCH_ALL],
            sections={"store": {"path": disk / "store", "low_water_mb": 16}, "database": {"url": database_url}},
        ) as gateway,
    ):
        ballast = fill(disk, leave_mb=8)
        assert c_store(gateway, paths[:2]) == {0xA700}
        assert stow(gateway, paths[0]).status_code == 503
        assert not [path for path in (disk / "store" / "instances").rglob("*") if path.is_file()]
        assert not list((disk / "store" / "tmp").rglob("*.part"))
        ballast.unlink()
        assert c_store(gateway, paths) == {0x0000}
        ballast = fill(disk, leave_mb=0)  # not even a result can be written any more, and on SQLite no row
        time.sleep(OUTAGE_S)
        assert not list((disk / "store" / "results").rglob("*.dcm"))
        ballast.unlink()
        freed = time.monotonic()
        assert states(gateway.wait_for_jobs(1, timeout_s=120)) == ["done"]
        print(f"\nthe job was done {time.monotonic() - freed:.1f} s after the disk had room again")
        assert len(list((disk / "store" / "results").rglob("*.dcm"))) == 2
        assert set(restarts(gateway).values()) == {0}
