"""``make bench``: how long a series of 300 slices waits for its results, and how fast it is taken in.

Overhead = from the last instance stored to both results confirmed by a real Orthanc, minus the quiet period and the
engine's own time. The goal is 2 s. Intake is compared with Orthanc's own in the same run (TCP_NODELAY=1 on both
sides, see PERFORMANCE notes: without it DCMTK-based receivers wait 45 ms per instance).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from gateway_server import GatewayServer
from orthanc_server import OrthancServer

from gateway.phantom import write_phantom

QUIET_S = 1.0
DCMSEND, ORTHANC = "/usr/bin/dcmsend", "/usr/sbin/Orthanc"


def send(port: int, ae_title: str, folder: Path) -> float:
    """Return the seconds that dcmsend took."""
    began = time.perf_counter()
    subprocess.run(
        [DCMSEND, "-aec", ae_title, "+sd", "127.0.0.1", str(port), str(folder)], check=True, capture_output=True
    )
    return time.perf_counter() - began


def one_run(number: int, slices: int, size: int, folder: Path, pacs: OrthancServer, gateway: GatewayServer) -> float:
    """Send one new series, wait for its results, print the figures; return the overhead in seconds."""
    source = folder / f"source{number}"
    write_phantom(source, slices=slices, rows=size, columns=size, seed=number)
    megabytes = sum(path.stat().st_size for path in source.iterdir()) / 1e6
    ours_s = send(gateway.dimse_port, "VOXGATE", source)
    stored_at = datetime.now(UTC)
    jobs = gateway.wait_for_jobs(number + 1, timeout_s=300)
    job = max(jobs, key=lambda item: item["created_at"])
    if job["state"] != "done":
        raise SystemExit(f"the job ended as {job['state']}: {job['reason']}")
    total_s: float = (datetime.fromisoformat(job["updated_at"]) - stored_at).total_seconds()
    overhead_s: float = total_s - QUIET_S - job["timings_s"]["engine"]
    theirs_s = send(pacs.dimse_port, pacs.ae_title, source)
    steps = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in job["timings_s"].items())
    print(f"run {number + 1}: overhead {overhead_s:.2f} s (total {total_s:.2f} s, quiet {QUIET_S} s; {steps})")
    print(
        f"       intake {megabytes / ours_s:.0f} MB/s, Orthanc {megabytes / theirs_s:.0f} MB/s, "
        f"ratio {theirs_s / ours_s:.2f}"
    )
    return overhead_s


def main() -> None:
    """Run and print; the figures are for docs/performance.md, no limit is checked here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with OrthancServer(ORTHANC, folder / "pacs") as pacs:
            destination = {
                "name": "pacs",
                "kind": "dimse",
                "host": "127.0.0.1",
                "port": pacs.dimse_port,
                "ae_title": pacs.ae_title,
            }
            with GatewayServer(
                folder / "gateway",
                destinations=[destination],
                sections={"completeness": {"quiet_s": QUIET_S}, "log": {"level": "info"}},
            ) as gateway:
                overheads = [one_run(n, given.slices, given.size, folder, pacs, gateway) for n in range(given.runs)]
    print(f"median overhead {sorted(overheads)[len(overheads) // 2]:.2f} s (goal 2 s)")


if __name__ == "__main__":
    main()
