"""``voxgate send``."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dicom_out.destinations import make_destination
from dicom_out.settings import DimseSettings, StowSettings
from domain.errors import ConfigurationError
from domain.ports import Destination
from gateway.files import dicom_files
from gateway.logs import silence_leaky_libraries
from gateway.terminal import DONE, FAILED, count_shown, people, quiet_logs

_HOST_PORT = re.compile(r"(?P<host>\[[^]]+\]|[^:/]+):(?P<port>\d{1,5})")
_BATCH = 100


def send_files(
    paths: Sequence[Path], *, to: str, called_ae_title: str, calling_ae_title: str, token: str = ""
) -> int:
    """Send every DICOM file below ``paths``; return 0 when the peer said for each that it is stored."""
    quiet_logs()
    silence_leaky_libraries()
    destination = destination_of(to, called_ae_title=called_ae_title, calling_ae_title=calling_ae_title, token=token)
    with tempfile.TemporaryDirectory(prefix="voxgate-send-") as unpacked:
        files = dicom_files(paths, Path(unpacked))
        faults = deliver(files, destination)
    stored = len(files) - sum(faults.values())
    people.print(f"{stored} of {len(files)} instances stored")
    for fault, count in faults.most_common():
        people.print(f"{count} not stored: {fault}", highlight=False)
    return FAILED if faults else DONE


def deliver(files: Sequence[Path], destination: Destination) -> Counter[str]:
    """Send in batches with a progress bar; return how often each fault occurred."""
    faults: Counter[str] = Counter()
    with count_shown("sending", len(files)) as more:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            faults.update(str(report.error) for report in destination.send(batch) if report.error is not None)
            more(len(batch))
    return faults


def destination_of(to: str, *, called_ae_title: str, calling_ae_title: str, token: str = "") -> Destination:
    """Return where ``to`` leads: ``HOST:PORT`` or a URL."""
    if to.startswith(("http://", "https://")):
        return make_destination(StowSettings(name="peer", url=to, token=token))
    found = _HOST_PORT.fullmatch(to)
    if found is None or not 0 < int(found["port"]) <= 65535:
        raise ConfigurationError("--to: must be HOST:PORT or a URL that begins with http:// or https://")
    return make_destination(
        DimseSettings(
            name="peer",
            host=found["host"].strip("[]"),
            port=int(found["port"]),
            ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
        )
    )
