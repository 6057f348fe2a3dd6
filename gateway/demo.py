"""``voxgate demo``: the main job once, as a PACS would see it, with everything checked that comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dicom_out.destinations import any_to_send, send_files
from domain.engine import EngineManifest, EngineRegistry
from domain.errors import ConfigurationError, GatewayError
from domain.job import Job, JobState, ResultObject
from domain.series import Stack
from gateway import wiring
from gateway.commands.offline import segment_line
from gateway.commands.outputs import require_writable
from gateway.commands.send import destination_of, tell_sent
from gateway.config import load_config
from gateway.demo_checks import SegmentCheck, check_objects, labels_on
from gateway.lifeline import die_with_parent
from gateway.logs import silence_leaky_libraries
from gateway.montage import write_montage
from gateway.phantom import write_phantom
from gateway.runfiles import read_status
from gateway.terminal import quiet_logs, say, steps_shown
from store.store import Store
from volume.assembly import assemble

OnStep = Callable[[str, float], None]
_START_S, _JOBS_S = 60.0, 900.0
_QUIET_S = 2.0
_WRITTEN = "# Written by voxgate demo."
"""First line of a demo's configuration."""
COLUMNS = ("Series", "Route", "Engine", "What came out", "Volume ml", "Truth ml", "Off", "Seconds")


class DemoFailed(GatewayError):
    """The demo did not come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One job of the demo with what its objects say."""

    series: int
    """1, 2, … in the order of the files."""
    job: Job
    objects: tuple[ResultObject, ...]
    checks: tuple[SegmentCheck, ...]
    picture: Path | None

    @property
    def holds(self) -> bool:
        """The job did not fail, and its objects say the same and the truth."""
        return self.job.state is not JobState.FAILED and all(check.holds for check in self.checks)


def run_demo(path: Path | None, out: Path, *, keep: bool) -> bool:
    """Run the demo on the phantom or on the DICOM files below ``path``; return whether everything held."""
    quiet_logs()
    silence_leaky_libraries()
    if path is not None and not path.exists():
        raise ConfigurationError(f"{path}: there is no such file or folder")
    if path is not None and not any_to_send([path]):
        raise ConfigurationError(f"{path}: no DICOM instance is in there; zip archives must be unpacked")
    require_writable("--out", out)
    _make_room(out, keep=keep)
    with steps_shown() as on_step, _gateway(out) as wait_ready:
        source, truth_ml = (path, {}) if path else _phantom(out, on_step)
        on_step("starting the gateway", 0.2)
        ports = wait_ready()
        series = _send(source, ports["scp"]["port"], on_step)
        outcomes = _wait(out, series, truth_ml, on_step)
    _print(outcomes, out)
    complete = path is not None or any(outcome.checks for outcome in outcomes)
    held = complete and all(outcome.holds for outcome in outcomes)
    say("Everything held." if held else "Not everything held; see above and the log.")
    return held


def _make_room(out: Path, *, keep: bool) -> None:
    """Remove what an earlier demo left, and nothing else: it must be known by the file that the demo writes first."""
    if read_status(out / "store") is not None:
        raise ConfigurationError(f"{out}: another demo runs there")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "voxgate.toml"
    is_ours = file.is_file() and file.read_text("utf-8", "replace").startswith(_WRITTEN)
    if not is_ours and any(out.iterdir()):
        raise ConfigurationError(f"--out: {out} holds what is not of a demo; name a new or an empty folder")
    if keep:
        return
    for name in ("store", "phantom"):
        shutil.rmtree(out / name, ignore_errors=True)
    for leftover in (out / "voxgate.log", *out.glob("*.montage.png")):
        leftover.unlink(missing_ok=True)


def _settings(out: Path) -> str:
    """Return a configuration with embedded defaults, on ports that the system chooses."""
    return "\n".join(
        (
            _WRITTEN,
            # TOML's basic strings are written as JSON's
            f"[store]\npath = {json.dumps(str((out / 'store').resolve()), ensure_ascii=False)}\nlow_water_mb = 256",
            "[scp]\nport = 0",
            "[http]\nport = 0",
            f"[completeness]\nquiet_s = {_QUIET_S}",
            "[log]\nformat = 'json'\n",
        )
    )


@contextmanager
def _gateway(out: Path) -> Iterator[Callable[[], Mapping[str, Any]]]:
    """Start ``voxgate serve``; yield a function that waits until it is ready and returns what it serves."""
    file = out / "voxgate.toml"
    file.write_text(_settings(out), "utf-8")
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_") and name != "PORT"
    }
    with (out / "voxgate.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", "--config", str(file.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield lambda: _ready(server, out)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=40)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _ready(server: subprocess.Popen[bytes], out: Path) -> Mapping[str, Any]:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        status = read_status(out / "store")
        if status is not None and status["pid"] == server.pid and status["state"] == "ready":
            processes: Mapping[str, Any] = status["processes"]
            return processes
        time.sleep(0.1)
    raise DemoFailed(f"the gateway did not start; see {out / 'voxgate.log'}")


def _phantom(out: Path, on_step: OnStep) -> tuple[Path, dict[str, float]]:
    on_step("writing the phantom", 0.05)
    truth = write_phantom(out / "phantom", fresh=True)
    return truth.folder, {"Left lung": truth.left_ml, "Right lung": truth.right_ml}


def _send(source: Path, port: int, on_step: OnStep) -> list[str]:
    """Send by C-STORE; return the series of which something was acknowledged, in the order of the files."""
    gateway = destination_of(f"127.0.0.1:{port}", called_ae_title="VOXGATE", calling_ae_title="DEMO")
    sent = send_files([source], gateway, lambda done, total: on_step("sending", 0.3 + 0.3 * done / max(total, 1)))
    tell_sent(sent)
    stored = [path for path, report in sent.reports if report.error is None]
    if not stored:
        raise DemoFailed("the gateway acknowledged no instance")
    headers = [pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"]) for path in stored]
    return list(dict.fromkeys(str(header.SeriesInstanceUID) for header in headers))


def _wait(out: Path, series: Sequence[str], truth_ml: Mapping[str, float], on_step: OnStep) -> list[Outcome]:
    """Wait until every series has its fate, then read what came out."""
    config = load_config(out / "voxgate.toml", {})
    engines = wiring.engine_registry(config)
    deadline = time.monotonic() + _JOBS_S
    with wiring.opened_store(config) as store:
        while True:
            known = [store.jobs.find(series_instance_uid=uid) for uid in series]
            settled = sum(bool(jobs) and all(job.state.is_final for job in jobs) for jobs in known)
            on_step("analysing", 0.6 + 0.35 * settled / len(series))
            if settled == len(series):
                break
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{len(series) - settled} of {len(series)} series have no result after {_JOBS_S:g} s"
                )
            time.sleep(0.2)
        return [
            _outcome(number, job, store, engines, out, truth_ml)
            for number, jobs in enumerate(known, start=1)
            for job in reversed(jobs)
        ]


def _outcome(
    number: int, job: Job, store: Store, engines: EngineRegistry, out: Path, truth_ml: Mapping[str, float]
) -> Outcome:
    objects = store.jobs.objects(job.job_id)
    by_kind = {item.kind: item.path for item in objects}
    if job.state is not JobState.DONE or "SEG" not in by_kind:
        return Outcome(series=number, job=job, objects=objects, checks=(), picture=None)
    picture = out / f"series{number}-{job.job_id[:8]}.montage.png"
    _paint(job, store, by_kind["SEG"], picture, engines.manifest(job.engine))
    checks = tuple(check_objects(by_kind["SEG"], by_kind["SR"], truth_ml))
    return Outcome(series=number, job=job, objects=objects, checks=checks, picture=picture)


def _paint(job: Job, store: Store, seg: Path, picture: Path, manifest: EngineManifest) -> None:
    instances = store.series.instances_by_uid(job.sop_instance_uids)
    headers = tuple(instance.header for instance in instances)
    paths = {instance.header.sop_instance_uid: instance.path for instance in instances}
    volume = assemble(Stack(name=job.stack, headers=headers), paths)
    encoded = pydicom.dcmread(seg)
    shown = {segment.label: segment.colour_rgb for segment in manifest.segments}
    colours = [shown[str(item.SegmentLabel)] for item in encoded.SegmentSequence]
    write_montage(volume, labels_on(volume.grid, encoded), colours, picture)


# -- what people see ------------------------------------------------------------------------------------------------


def _print(outcomes: Sequence[Outcome], out: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_table(outcomes))
    for outcome in outcomes:
        for item in outcome.objects:
            console.print(f"{item.kind:<4} {item.path}", highlight=False, soft_wrap=True)
        if outcome.picture:
            console.print(f"PNG  {outcome.picture}", highlight=False, soft_wrap=True)
    console.print(f"log  {out / 'voxgate.log'}", highlight=False, soft_wrap=True)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(*COLUMNS)
    for outcome in outcomes:
        job = outcome.job
        name = f"{outcome.series} {job.stack}".strip() + f" ({len(job.sop_instance_uids)})"
        took = "\n".join(f"{step} {seconds:.1f}" for step, seconds in job.timings_s.items())
        head = (name, job.route or "-", f"{job.engine} {job.engine_version}".strip() or "-")
        if not outcome.checks:
            table.add_row(*head, Text(f"{job.state.value}: {job.reason}"), "", "", "", took)
        said = {str(segment["label"]): segment_line(segment, leave_out="Volume") for segment in job.summary}
        for index, check in enumerate(outcome.checks):
            cells = (Text(said.get(check.label, check.label)), _volume(check), *_against_truth(check))
            table.add_row(*(head if index == 0 else ("", "", "")), *cells, took if index == 0 else "")
        table.add_section()
    return table


def _volume(check: SegmentCheck) -> str:
    """Return the volume; in brackets where the report states none, as of an organ that is not wholly imaged."""
    return f"{check.seg_ml:.0f}" if check.sr_ml is not None else f"({check.seg_ml:.0f})"


def _against_truth(check: SegmentCheck) -> tuple[str, str]:
    if check.truth_ml is None or check.difference is None:
        return "", ""
    colour = "green" if check.holds else "red"
    return f"{check.truth_ml:.0f}", f"[{colour}]{check.difference:+.1%}[/{colour}]"
