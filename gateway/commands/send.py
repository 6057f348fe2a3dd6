"""``voxgate send``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dicom_out.destinations import Sent, make_destination, send_files
from dicom_out.settings import DimseSettings, StowSettings
from domain.errors import ConfigurationError
from domain.ports import Destination
from gateway.logs import silence_leaky_libraries
from gateway.offline import files_below
from gateway.terminal import DONE, FAILED, quiet_logs, say, steps_shown

_HOST_PORT = re.compile(r"(?P<host>\[[^]]+\]|[^:/]+):(?P<port>\d{1,5})")


def send(paths: Sequence[Path], destination: Destination) -> int:
    """Send every DICOM file below ``paths``; return 0 when the peer said for each that it is stored."""
    quiet_logs()
    silence_leaky_libraries()
    with TemporaryDirectory(prefix="voxgate-") as unpacked, steps_shown() as on_step:
        files = list(files_below(paths, Path(unpacked) / "unpacked"))
        sent = send_files(files, destination, lambda done, total: on_step("sending", done / max(total, 1)))
    if not sent.reports:
        raise ConfigurationError(f"no DICOM instance among {sent.skipped} file(s)")
    tell_sent(sent)
    return DONE if sent.stored == len(sent.reports) else FAILED


def tell_sent(sent: Sent) -> None:
    """Say how many are stored, and why the others are not."""
    say(f"{sent.stored} of {len(sent.reports)} instances stored")
    faults = Counter(str(report.error) for _, report in sent.reports if report.error is not None)
    for fault, count in faults.most_common():
        say(f"{count} not stored: {fault}")
    if sent.skipped:
        say(f"{sent.skipped} file(s) are not DICOM")


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
