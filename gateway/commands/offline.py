"""``voxgate run`` and ``voxgate routes test``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from domain.errors import ConfigurationError
from domain.job import JobState
from domain.series import Resample
from gateway.commands.outputs import require_picture, require_writable
from gateway.config import Config
from gateway.file_intake import FilesReport
from gateway.logs import silence_leaky_libraries
from gateway.offline import RouteReport, SeriesReport, analyse, explain_routes
from gateway.profiles import profile_called
from gateway.sections import PromptSection
from gateway.terminal import DONE, FAILED, print_json, print_table, printable, quiet_logs, say, steps_shown

_UNITS = {"[hnsf'U]": "HU", "mm2": "mm²", "{pixels}": "pixels", "1": ""}
"""How people write units that UCUM writes otherwise."""
_ONE_DECIMAL = frozenset({"[hnsf'U]", "%", "ml", "mm"})
_SHOWN = 20
"""More skipped files than this are counted and not named."""


def run_offline(
    paths: Sequence[Path],
    out: Path,
    *,
    config: Config,
    engine: str | None,
    as_json: bool,
    prompt: tuple[PromptSection, ...] = (),
    resample: tuple[Resample, ...] = (),
    profile: str = "default",
    preview: Path | None = None,
) -> int:
    """Analyse; return 0 unless a job failed or an instance was refused."""
    if (prompt or resample) and not engine:
        raise ConfigurationError("--engine is required beside --box, --point and --resample")
    # Before the work, which may take long; and where nothing comes out, a folder that cannot be is wrong all the same
    require_writable("--out", out)
    if preview is not None:
        require_picture("--preview", preview)
    wanted = profile_called(config, profile)
    _quiet()
    with steps_shown() as on_step:
        analysis = analyse(
            paths, out, config=config, engine=engine, prompt=prompt, resample=resample,
            profile=wanted, on_step=on_step, preview=preview,
        )  # fmt: skip
    reports, files = analysis.series, analysis.files
    if as_json:
        print_json({"series": [report_as_json(report) for report in reports], "files": _files_as_json(files)})
    elif reports:
        print_table(("Series", "Instances", "Route", "Engine", "Outcome", "What came out"), map(_row, reports))
        say(f"{sum(len(report.objects) for report in reports)} objects written below {printable(out)}")
    if preview is not None:
        shown = analysis.preview
        say(f"picture: {printable(shown)}" if shown else "no picture: nothing was found that can be shown")
    _tell_files(files)
    failed = any(report.state is JobState.FAILED for report in reports)
    return FAILED if failed or files.refused else DONE


def _quiet() -> None:
    quiet_logs()
    silence_leaky_libraries()
    # What it says of a refused instance is said by the command, with the path that the log must not name
    logging.getLogger("pipeline.intake").setLevel(logging.ERROR)


def _tell_files(files: FilesReport) -> None:
    """Name every file that was left out, and count all; the numbers add up to the first."""
    for item in files.refused:
        say(f"{printable(item.path)}: refused: {item.reason}")
    for item in files.skipped[:_SHOWN]:
        say(f"{printable(item.path)}: skipped, {item.reason}")
    if len(files.skipped) > _SHOWN:
        say(f"and {len(files.skipped) - _SHOWN} more skipped")
    duplicates = len(files.duplicates)
    counts = (
        (duplicates, "duplicate" if duplicates == 1 else "duplicates"),
        (len(files.refused), "refused"),
        (len(files.skipped), "skipped"),
    )
    parts = [f"{files.taken} taken", *(f"{count} {what}" for count, what in counts if count)]
    say(f"{files.given} file{'' if files.given == 1 else 's'}: {', '.join(parts)}")


def _files_as_json(files: FilesReport) -> dict[str, object]:
    return {
        "given": files.given,
        "taken": files.taken,
        "duplicates": [str(path) for path in files.duplicates],
        "refused": [{"path": str(item.path), "reason": item.reason} for item in files.refused],
        "skipped": [{"path": str(item.path), "reason": item.reason} for item in files.skipped],
    }


def report_as_json(report: SeriesReport) -> dict[str, object]:
    """Return a report for scripts."""
    return {
        "series": report.series,
        "series_instance_uid": report.series_instance_uid,
        "instances": report.instances,
        "stack": report.stack,
        "route": report.route,
        "engine": report.engine,
        "state": report.state.value,
        "code": report.code,
        "reason": report.reason,
        "timings_s": report.timings_s,
        "summary": report.summary,
        "objects": [str(path) for path in report.objects],
    }


def _row(report: SeriesReport) -> tuple[object, ...]:
    name = f"{report.series} {report.stack}".strip()
    said = "\n".join(map(segment_line, report.summary)) if report.summary else report.reason
    return name, report.instances, report.route or "-", report.engine or "-", report.state.value, said


def segment_line(segment: Mapping[str, object], *, leave_out: str = "") -> str:
    """Return one segment's measurements (but the one called ``leave_out``) and statements in one line."""
    measurements = segment.get("measurements")
    numbers = [
        f"{item['label']} {_number(float(item['value']), item['unit'])} {_unit(item['unit'])}".rstrip()
        for item in (measurements if isinstance(measurements, list) else [])
        if item["label"] != leave_out
    ]
    statements = segment.get("statements")
    words = [str(item) for item in (statements if isinstance(statements, list) else [])]
    said = ", ".join([*numbers, *words])
    return f"{segment['label']}: {said}" if segment.get("label") else said


def _unit(unit: str) -> str:
    return _UNITS.get(unit, unit)


def _number(value: float, unit: str) -> str:
    """Return a value with the digits that mean something."""
    if abs(value) >= (100 if unit == "ml" else 10_000):
        return f"{value:.0f}"
    return f"{value:z.1f}" if unit in _ONE_DECIMAL else f"{value:.4g}"


def test_routes(paths: Sequence[Path], *, config: Config, as_json: bool) -> None:
    """Print each route's answer to each stack."""
    _quiet()
    reports = explain_routes(paths, config)
    if as_json:
        print_json([_answers_as_json(report) for report in reports])
        return
    rows = [row for report in reports for row in _answers(report)]
    print_table(("Series", "Instances", "Route", "Takes it", "Why"), rows)


def _answers(report: RouteReport) -> list[tuple[object, ...]]:
    name = f"{report.series} {report.stack}".strip()
    if not report.verdicts:
        return [(name, report.instances, "-", "no", f"{report.code}: {report.reason}")]
    return [
        (name, report.instances, route, verdict.answer.value, verdict.reason) for route, verdict in report.verdicts
    ]


def _answers_as_json(report: RouteReport) -> dict[str, object]:
    return {
        "series": report.series,
        "series_instance_uid": report.series_instance_uid,
        "instances": report.instances,
        "stack": report.stack,
        "code": report.code,
        "reason": report.reason,
        "routes": [
            {"route": route, "answer": verdict.answer.value, "reason": verdict.reason}
            for route, verdict in report.verdicts
        ],
    }
