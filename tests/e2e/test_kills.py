"""kill -9 of any one process while series arrive and are processed: nothing is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_server import GatewayServer
from orthanc_server import OrthancServer

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

SERIES = 8
KILLS = int(os.environ.get("VOXGATE_CHAOS_KILLS", "6"))
ROLES = ("serve", "scp", "http", "worker", "infer")


def send_until_acknowledged(program: str, gateway: GatewayServer, folder: Path, give_up: threading.Event) -> None:
    """Send again and again until every instance was answered with success, as a modality's queue does."""
    while not give_up.is_set():
        try:
            port = gateway.dimse_port
        except KeyError:
            time.sleep(0.1)
            continue
        sent = subprocess.run(
            [program, "-aec", "VOXGATE", "-to", "5", "+sd", "127.0.0.1", str(port), str(folder)],
            capture_output=True,
            timeout=120,
        )
        if sent.returncode == 0:
            return
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_every_series_ends_with_one_seg_and_one_sr_whatever_is_killed(
    tmp_path: Path, orthanc: OrthancServer, peer: Callable[[str], str]
) -> None:
    orthanc.clear()
    dice = random.Random(20261122)
    folders = [tmp_path / f"series{number}" for number in range(SERIES)]
    for number, folder in enumerate(folders):
        write_phantom(folder, small=True, seed=number)
    destination = {
        "name": "pacs",
        "kind": "dimse",
        "host": "127.0.0.1",
        "port": orthanc.dimse_port,
        "ae_title": orthanc.ae_title,
    }
    killed: Counter[str] = Counter()
    gateway = GatewayServer(
        tmp_path / "gateway", destinations=[destination], routes=[{"name": "everything", "engine": "lungs"}]
    )
    give_up = threading.Event()
    with gateway:
        program = peer("dcmsend")

        def send_all() -> None:
            for folder in folders:
                send_until_acknowledged(program, gateway, folder, give_up)

        sender = threading.Thread(target=send_all)
        sender.start()
        try:
            for number in range(KILLS):
                time.sleep(dice.uniform(0.5, 2.5))
                role = ROLES[number % len(ROLES)]
                killed[role] += 1
                if role == "serve":
                    gateway.kill()
                    gateway.start()
                else:
                    gateway.kill_part(role)
            sender.join(240)
            assert not sender.is_alive(), gateway.log[-3000:]
        finally:
            give_up.set()
        jobs = gateway.wait_for_jobs(SERIES, timeout_s=240)
        by_series = Counter(job["series_instance_uid"] for job in jobs if job["code"] != "superseded")
        generations = [job for job in jobs if job["state"] == "done"]
        assert len(by_series) == SERIES
        assert {job["state"] for job in jobs} <= {"done", "cancelled", "not-run", "not-applicable"}
        # A kill may split a series into two sets when its sender stalls beyond the quiet period: then the smaller
        # one is a generation of its own. The whole set must have ended once, with one SEG and one SR.
        whole = Counter(job["series_instance_uid"] for job in generations if job["instances"] == _size(folders[0]))
        assert whole == dict.fromkeys(by_series, 1)
        segs, srs = orthanc.count("SEG"), orthanc.count("SR")
        assert segs == srs == len(generations)
        print(f"kills {dict(killed)}; {SERIES} series; {len(generations)} results, {segs} SEG, {srs} SR; 0 lost")
        gateway.stop()
        gateway.start()
        assert not list((gateway.store / "tmp").rglob("*.part"))


def _size(folder: Path) -> int:
    return sum(1 for path in folder.iterdir() if path.is_file())
