"""``voxgate inspect``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from domain.image import UltrasoundRegion
from gateway.commands.context import print_contexts
from gateway.commands.outputs import require_picture
from gateway.config import Config
from gateway.file_intake import LeftOut
from gateway.inspection import Inspection, StackReport, inspected
from gateway.logs import silence_leaky_libraries
from gateway.terminal import DONE, FAILED, print_json, print_table, printable, quiet_logs, say, steps_shown
from pipeline.planning import FEW
from volume.numbers import in_runs
from volume.voi import voi_of_header
from volume.words import stacks_in_words

_SHOWN = 20
"""More files left out for one reason than this are counted and not listed."""


Row = tuple[object, ...]


def inspect_files(
    paths: Sequence[Path],
    *,
    config: Config,
    png: Path | None,
    as_json: bool,
    context: bool = False,
    everything: bool = False,
) -> int:
    """Print one row a stack and what was left out; return 0 where there is any DICOM instance.

    Many stacks of a series of which there is the same to say are one row, unless ``everything`` is asked for; JSON
    has them all.
    """
    if png is not None:
        require_picture("--png", png)
    quiet_logs()
    silence_leaky_libraries()
    with steps_shown() as on_step, inspected(paths, config, on_step) as found:
        rows = table(found.stacks, everything=everything)
        shown = [(numbers[0], found.stacks[numbers[0] - 1]) for numbers, _ in rows]
        if as_json:
            print_json(inspection_as_json(found, context=context))
        else:
            _print(found, rows)
            if context:
                print_contexts([(number, found.context_of(report)) for number, report in shown])
        if png is not None:
            from gateway.contact_sheet import write_contact_sheet

            write_contact_sheet(shown, png)
            say(f"picture: {printable(png)}")
    return DONE if found.stacks else FAILED


def _print(found: Inspection, rows: Sequence[tuple[Sequence[int], Row]]) -> None:
    if found.stacks:
        columns = ("#", "Study", "Series", "Stack", "Images", "What", "Geometry", "Verdict")
        print_table(columns, [(", ".join(in_runs(numbers)), *row) for numbers, row in rows])
        if len(rows) < len(found.stacks):
            say("Stacks that are alike share a row; --all lists each.")
    _print_reasons(found.stacks)
    for reason, count in Counter(item.reason for item in found.left_out).most_common():
        say(f"{count} file(s) left out: {reason}")
        same = [item for item in found.left_out if item.reason == reason]
        for item in same[:_SHOWN]:
            say(f"  {printable(item.path)}")
        if count > _SHOWN:
            say(f"  and {count - _SHOWN} more")


def _print_reasons(reports: Sequence[StackReport]) -> None:
    """Say each reason once, with the rows of the table that it holds for."""
    rows: dict[str, list[int]] = defaultdict(list)
    for number, report in enumerate(reports, start=1):
        if report.code:
            rows[f"{report.code}: {report.reason}"].append(number)
    for reason, numbers in rows.items():
        say(f"#{', '.join(in_runs(numbers))}: {reason}")


def table(reports: Sequence[StackReport], *, everything: bool) -> list[tuple[Sequence[int], Row]]:
    """Return the rows, each with the numbers of the stacks that it is about, from 1."""
    rows = [(number, report, _row(report)) for number, report in enumerate(reports, start=1)]
    found: list[tuple[Sequence[int], Row]] = []
    for _, grouped in groupby(rows, lambda row: (*row[2][:2], *row[2][3:], row[1].reason)):
        alike = list(grouped)
        if everything or len(alike) <= FEW:
            found += [([number], row) for number, _, row in alike]
            continue
        study, series, _, size, *rest = alike[0][2]
        name = stacks_in_words([report.stack.name for _, report, _ in alike])
        found.append(([number for number, *_ in alike], (study, series, name, f"{size} each", *rest)))
    return found


def _row(report: StackReport) -> Row:
    kind = f"{report.kind} ({report.unit})" if report.unit else report.kind
    factor, why = report.suv
    if factor is not None:
        kind += f"\nSUV by body weight: x {factor:.4g}"
    elif why:
        kind += f"\nno SUV: {why}"
    size = len(report.stack.headers)
    geometry = "\n".join((report.geometry, *map(_region_in_words, report.regions)))
    return report.study, report.series, report.stack.name, size, kind, geometry, report.verdict


def _region_in_words(judged: tuple[UltrasoundRegion, str]) -> str:
    region, fault = judged
    if fault:
        return f"not used: a calibrated region {fault}"
    return f"calibrated region: {region.delta_x * 10:.4g} x {region.delta_y * 10:.4g} mm"


def inspection_as_json(found: Inspection, *, context: bool = False) -> dict[str, object]:
    """Return everything for scripts."""
    return {
        "schema_version": 1,
        "stacks": [
            stack_as_json(number, report) | ({"context": found.context_of(report).as_dict()} if context else {})
            for number, report in enumerate(found.stacks, start=1)
        ],
        "left_out": [_left_out_as_json(item) for item in found.left_out],
    }


def stack_as_json(number: int, report: StackReport) -> dict[str, object]:
    """Return one stack; lengths in mm, LPS."""
    first, grid, refusal = report.stack.headers[0], report.grid, report.stack.refusal
    factor, why = report.suv
    return {
        "number": number,
        "study": report.study,
        "study_instance_uid": first.study_instance_uid,
        "series": report.series,
        "series_instance_uid": first.series_instance_uid,
        "stack": report.stack.name,
        "instances": len({header.sop_instance_uid for header in report.stack.headers}),
        "images": len(report.stack.headers),
        "modality": first.modality,
        "sop_class_uid": first.sop_class_uid,
        "what": report.kind,
        "geometry": report.geometry,
        "kind": report.stack.kind,
        "is_volume": grid is not None,
        "shape": None if grid is None else grid.shape,
        "spacing_mm": None if grid is None else grid.spacing_mm,
        "raster": None if report.raster is None else _raster_as_json(report),
        "affine_lps": None if grid is None else grid.affine.tolist(),
        "unit": report.unit,
        "voi": _voi_as_json(report),
        "suv_body_weight_factor": factor,
        "no_suv_because": why,
        "taken_by": report.routes,
        "resampled": sorted(report.resample),
        "code": report.code,
        "reason": report.reason,
        "instance_numbers": () if refusal is None else refusal.instance_numbers,
        "routes": [
            {"route": route, "answer": verdict.answer.value, "reason": verdict.reason}
            for route, verdict in report.verdicts
        ],
    }


def _voi_as_json(report: StackReport) -> dict[str, object]:
    """Return how the source wants the stack shown; ``windows`` once, or once for each image where they differ."""
    said = [voi_of_header(header) for header in report.stack.headers]
    alike = all(voi == said[0] for voi in said)
    return {
        "differs": not alike,
        "windows": [
            [{"centre": w.centre, "width": w.width, "explanation": w.explanation} for w in voi.windows]
            for voi in (said[:1] if alike else said)
        ],
        "function": said[0].function,
        "has_lut_sequence": any(header.has_voi_lut_sequence for header in report.stack.headers),
    }


def _raster_as_json(report: StackReport) -> dict[str, object]:
    """Return where the pixels of an image or a cine lie."""
    raster, first = report.raster, report.stack.headers[0]
    return {
        "shape": None if raster is None else raster.shape,
        "spacing_mm": None if raster is None else raster.spacing_mm,
        "spacing_origin": "" if raster is None else raster.spacing_origin,
        "photometric_interpretation": first.photometric_interpretation,
        "view_position": first.view_position or "",
        "regions": [
            {
                "box": (region.x0, region.y0, region.x1, region.y1),
                "delta_mm": None if fault else (region.delta_y * 10, region.delta_x * 10),
                "unusable_because": fault,
            }
            for region, fault in report.regions
        ],
    }


def _left_out_as_json(item: LeftOut) -> dict[str, object]:
    return {"path": str(item.path), "reason": item.reason}
