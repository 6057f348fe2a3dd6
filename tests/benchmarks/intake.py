"""How fast instances are taken in, durable and indexed, beside DCMTK's storescp and Orthanc in the same run.

``PYTHONPATH=.:tests python tests/benchmarks/intake.py [--repeat 3] [--instances 100] [--parts 300] [--tiny 2000]``.
All servers run at once and are measured in turn, so that what else the machine does hits them alike. Ours is the
whole ``voxgate serve`` with a quiet period that never ends: no job disturbs. Every instance sent has new UIDs, since
duplicates are cheaper. What each receiver has is counted after each measurement; ``storescp`` neither indexes nor
syncs. Times hold the start of the senders too, the same for all. Receivers get ``TCP_NODELAY=1``: without it those
that are built on DCMTK wait 45 ms for each instance.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np
from factories import ct_series
from gateway_server import GatewayServer
from orthanc_server import OrthancServer, free_port
from pydicom.uid import UID
from stow_bodies import RELATED, multipart, part10

STORESCU, STORESCP, ORTHANC = "/usr/bin/storescu", "/usr/bin/storescp", "/usr/sbin/Orthanc"
ASSOCIATIONS = (1, 4, 8)
STOW_CONNECTIONS = {"1 request of all parts": 0, "1 part a request, 1 connection": 1, "… 4 connections": 4}
TINY_SENDERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What is measured; ``stow_pid`` and its children are the processes whose memory counts for STOW-RS."""

    name: str
    ae_title: str
    dimse_port: int
    count: Callable[[], int]
    stow_url: str = ""
    stow_pid: int = 0


class Source:
    """Instances of one series as Part 10 files, handed out again and again under new UIDs."""

    def __init__(self, slices: int, size: int) -> None:
        voxels = np.random.default_rng(1).normal(0, 200, (slices, size, size)).astype(np.int16)
        series = ct_series(voxels=voxels)
        study, group, frame = self._uids = (_uid(), _uid(), _uid())
        self._files: list[tuple[bytes, bytes]] = []
        for ds in series:
            ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, group, frame
            instance = _uid()
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(instance)
            self._files.append((part10(ds), instance.encode()))

    def fresh(self, count: int) -> Iterator[bytes]:
        """Yield ``count`` instances nobody has seen, a new study whenever the slices begin anew."""
        renamed: list[tuple[bytes, bytes]] = []
        for number in range(count):
            at = number % len(self._files)
            if at == 0:
                renamed = [(old.encode(), _uid().encode()) for old in self._uids]
            content, instance = self._files[at]
            for old, new in (*renamed, (instance, _uid().encode())):
                content = content.replace(old, new)  # all of one length, so that every element keeps its own
            yield content


def main() -> None:
    """Run everything and print; the figures are for docs/performance.md, no limit is checked here."""
    options = _arguments()
    with tempfile.TemporaryDirectory(prefix="voxgate-intake-") as folder, _receivers(Path(folder)) as receivers:
        source = Source(options.instances, options.size)
        if not options.only_stow:
            _c_store(receivers, source, options, Path(folder) / "source")
        _stow(receivers[:-1], source, options)
    if options.tiny < 10:
        return
    with tempfile.TemporaryDirectory(prefix="voxgate-intake-") as folder:
        _tiny(options.tiny, Path(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--instances", type=int, default=100, help="of a C-STORE measurement")
    parser.add_argument("--parts", type=int, default=300, help="of a STOW-RS measurement")
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument(
        "--tiny", type=int, default=2000, help="instances of 16 x 20; 100000 shows whether memory grows"
    )
    parser.add_argument("--only-stow", action="store_true", help="without C-STORE")
    return parser.parse_args()


@contextmanager
def _receivers(folder: Path) -> Iterator[tuple[Receiver, Receiver, Receiver, Receiver]]:
    """Ours, Orthanc twice (it syncs files by default, and may be told not to) and ``storescp``."""
    synced, unsynced = ({"KeepAlive": True, "SyncStorageArea": value} for value in (True, False))
    with (
        _gateway(folder / "gateway") as gateway,
        OrthancServer(ORTHANC, folder / "orthanc", configuration=synced) as orthanc,
        OrthancServer(ORTHANC, folder / "unsynced", configuration=unsynced) as careless,
        _storescp(folder / "storescp") as storescp,
    ):
        ours = Receiver(
            name="Voxgate",
            ae_title="VOXGATE",
            dimse_port=gateway.dimse_port,
            count=lambda: _indexed(gateway),
            stow_url=gateway.dicomweb_url,
            stow_pid=gateway.pids()["http"],
        )
        theirs = (_orthanc("Orthanc", orthanc), _orthanc("Orthanc, no sync", careless))
        yield ours, *theirs, storescp


def _orthanc(name: str, orthanc: OrthancServer) -> Receiver:
    return Receiver(
        name=name,
        ae_title=orthanc.ae_title,
        dimse_port=orthanc.dimse_port,
        count=lambda: int(orthanc.get("/statistics")["CountInstances"]),
        stow_url=orthanc.dicomweb_url,
        stow_pid=orthanc.pid,
    )


def _gateway(folder: Path) -> GatewayServer:
    return GatewayServer(folder, sections={"completeness": {"quiet_s": 86400.0}, "log": {"level": "info"}})


def _indexed(gateway: GatewayServer) -> int:
    """Return how many instances the index holds, read past the gateway."""
    with closing(sqlite3.connect(f"file:{gateway.store / 'index.sqlite'}?mode=ro", uri=True)) as index:
        return int(index.execute("SELECT count(*) FROM instances").fetchone()[0])


@contextmanager
def _storescp(folder: Path) -> Iterator[Receiver]:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(
        [STORESCP, "-q", "--fork", "-od", str(folder), str(port)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    try:
        yield Receiver(
            name="storescp --fork",
            ae_title="ANY",
            dimse_port=port,
            count=lambda: sum(1 for _ in folder.iterdir()),
        )
    finally:
        process.terminate()
        process.wait()


def _c_store(receivers: Sequence[Receiver], source: Source, options: argparse.Namespace, folder: Path) -> None:
    """Print how long N ``storescu`` together need for all instances."""
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(options.repeat):
        for senders in ASSOCIATIONS:
            for receiver in receivers:
                size = _written(source.fresh(options.instances), folder, senders)
                had = receiver.count()
                seconds[receiver.name, senders].append(_sent(receiver, folder))
                _expect(receiver, had + options.instances)
    print(f"C-STORE, {options.instances} instances of {options.size} x {options.size}, {size / 1e6:.0f} MB")
    for senders in ASSOCIATIONS:
        for receiver in receivers:
            taken = median(seconds[receiver.name, senders])
            ratio = taken / median(seconds[receivers[0].name, senders])
            print(f"  {senders} associations  {receiver.name:16} {size / taken / 1e6:6.0f} MB/s  ours x {ratio:.2f}")


def _written(instances: Iterator[bytes], folder: Path, senders: int) -> int:
    """Spread the instances over a folder for each sender, on disk before anything is timed; return the bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    shares = [folder / str(number) for number in range(senders)]
    for share in shares:
        share.mkdir(parents=True)
    size = 0
    for number, content in enumerate(instances):
        size += (shares[number % senders] / f"{number:06d}.dcm").write_bytes(content)
    os.sync()
    return size


def _sent(receiver: Receiver, folder: Path) -> float:
    """Return the seconds until every sender, one for each folder, had the last answer."""
    address = ["-aec", receiver.ae_title, "127.0.0.1", str(receiver.dimse_port)]
    began = time.perf_counter()
    senders = [
        subprocess.Popen([STORESCU, "-q", "-xe", "+sd", *address, str(share)], stderr=subprocess.DEVNULL)
        for share in sorted(folder.iterdir())
    ]
    failed = sum(sender.wait() != 0 for sender in senders)
    taken = time.perf_counter() - began
    if failed:
        raise SystemExit(f"{receiver.name}: {failed} of {len(senders)} senders failed")
    return taken


def _expect(receiver: Receiver, instances: int) -> None:
    found = receiver.count()
    if found != instances:
        raise SystemExit(f"{receiver.name} has {found} instances instead of {instances}")


def _stow(receivers: Sequence[Receiver], source: Source, options: argparse.Namespace) -> None:
    """Print clock and peak memory of the three ways to post the same parts."""
    runs: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(options.repeat):
        for way, connections in STOW_CONNECTIONS.items():
            for receiver in receivers:
                parts = list(source.fresh(options.parts))
                size, had = sum(map(len, parts)), receiver.count()
                bodies = [multipart([part]) for part in parts] if connections else [multipart(parts)]
                del parts
                runs[way, receiver.name].append(_posted(receiver, bodies, max(1, connections)))
                _expect(receiver, had + options.parts)
    print(f"STOW-RS, {options.parts} parts, {size / 1e6:.0f} MB")
    for way in STOW_CONNECTIONS:
        for receiver in receivers:
            taken, peak = (median(values) for values in zip(*runs[way, receiver.name], strict=True))
            ratio = taken / median(run[0] for run in runs[way, receivers[0].name])
            print(
                f"  {way:32} {receiver.name:16} {size / taken / 1e6:6.0f} MB/s  ours x {ratio:.2f}  "
                f"peak {peak:6.0f} MiB"
            )


def _posted(receiver: Receiver, bodies: Sequence[bytes], connections: int) -> tuple[float, float]:
    """Return the seconds for all bodies and the most that one process of the server held meanwhile, in MiB."""
    processes = _tree(receiver.stow_pid)
    for pid in processes:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    os.sync()
    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        shares = [bodies[number::connections] for number in range(connections)]
        list(pool.map(lambda share: _post(receiver, share), shares))
    taken = time.perf_counter() - began
    return taken, max(_memory_mib(pid, "VmHWM") for pid in processes)


def _post(receiver: Receiver, bodies: Sequence[bytes]) -> None:
    """Post all bodies over one connection that is kept."""
    url = urlsplit(receiver.stow_url)
    headers = {"Content-Type": RELATED, "Accept": "application/dicom+json"}
    with closing(http.client.HTTPConnection(str(url.hostname), url.port, timeout=300)) as connection:
        for body in bodies:
            connection.request("POST", f"{url.path}/studies", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:  # PS3.18 Section 10.5.3: anything else stored less than all
                raise SystemExit(f"{receiver.name} answered {answer.status}")


def _tiny(count: int, folder: Path) -> None:
    """Print instances per second and memory of the receiving process in ten batches, so that growth shows."""
    source = Source(max(1, count // 10), 16)
    with _gateway(folder / "gateway") as gateway:
        pid = gateway.pids()["scp"]
        ours = Receiver(
            name="Voxgate", ae_title="VOXGATE", dimse_port=gateway.dimse_port, count=lambda: _indexed(gateway)
        )
        rates, memory = [], [_memory_mib(pid, "VmRSS")]
        for batch in range(10):
            _written(source.fresh(count // 10), folder / "source", TINY_SENDERS)
            rates.append(count // 10 / _sent(ours, folder / "source"))
            memory.append(_memory_mib(pid, "VmRSS"))
            _expect(ours, (batch + 1) * (count // 10))
    print(f"Tiny instances, {count // 10 * 10} in ten batches, {TINY_SENDERS} associations each")
    for name, at in {"start": 0, "middle": 5, "end": 9}.items():
        print(f"  {name:6} {rates[at]:6.0f} instances/s, then {memory[at + 1]:6.0f} MiB")
    print(f"  before the first {memory[0]:.0f} MiB")


def _tree(root: int) -> list[int]:
    """Return the process and all that descend from it."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        parents[int(status.parent.name)] = int(after_name[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _memory_mib(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _uid() -> str:
    """Return a UID of 43 characters always (PS3.5 Annex B.2: a number below 2^128 under 2.25)."""
    return f"2.25.1{secrets.randbelow(10**37):037d}"


if __name__ == "__main__":
    main()
