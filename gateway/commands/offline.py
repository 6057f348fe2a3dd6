"""``voxgate run`` and ``voxgate routes test``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from domain.errors import ConfigurationError
from domain.job import JobState
from gateway.config import Config
from gateway.logs import silence_leaky_libraries
from gateway.offline import RouteReport, SeriesReport, analyse, explain_routes
from gateway.sections import PromptSection
from gateway.terminal import DONE, FAILED, print_json, print_table, quiet_logs, say, steps_shown

_UNITS = {"[hnsf'U]": "HU"}
"""How people write units that UCUM writes otherwise."""


def run_offline(
    paths: Sequence[Path],
    out: Path,
    *,
    config: Config,
    engine: str | None,
    as_json: bool,
    prompt: tuple[PromptSection, ...] = (),
) -> int:
    """Analyse; return 0 unless a job failed or nothing was analysed at all."""
    if prompt and not engine:
        raise ConfigurationError("--engine is required beside --box and --point")
    quiet_logs()
    silence_leaky_libraries()
    with steps_shown() as on_step:
        reports = analyse(paths, out, config=config, engine=engine, prompt=prompt, on_step=on_step)
    if as_json:
        print_json([report_as_json(report) for report in reports])
    else:
        print_table(("Series", "Instances", "Route", "Engine", "Outcome", "What came out"), map(_row, reports))
        say(f"{sum(len(report.objects) for report in reports)} objects written below {out}")
    failed = any(report.state is JobState.FAILED for report in reports)
    return FAILED if failed else DONE


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
        f"{item['label']} {item['value']:.5g} {_UNITS.get(item['unit'], item['unit'])}"
        for item in (measurements if isinstance(measurements, list) else [])
        if item["label"] != leave_out
    ]
    statements = segment.get("statements")
    words = [str(item) for item in (statements if isinstance(statements, list) else [])]
    return f"{segment.get('label')}: " + ", ".join([*numbers, *words])


def test_routes(paths: Sequence[Path], *, config: Config, as_json: bool) -> None:
    """Print each route's answer to each stack."""
    quiet_logs()
    silence_leaky_libraries()
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
