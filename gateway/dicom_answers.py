"""Answers of ``POST /predict`` as DICOM: the same way as ``voxgate run``, with an engine that is loaded already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from domain.errors import ConfigurationError, EngineFailed
from domain.job import JobState
from gateway.config import Config
from gateway.offline import SeriesReport, analyse
from gateway.sections import RouteSection
from inference.api import MakesDicom, Written
from inference.registry import Registry


def dicom_answers(config: Config, registry: Registry) -> MakesDicom:
    """Return what runs an engine with a route's options on files and gives its verified results."""

    def answer(
        files: Sequence[Path], engine: str, options: Mapping[str, str | int], out: Path, cancelled: Callable[[], bool]
    ) -> Written:
        def going_on(what: str, share: float) -> None:
            if cancelled():
                raise EngineFailed("Nobody waits for the answer any more.")

        route = RouteSection(name=f"predict {engine}", engine=engine, options=dict(options))
        asked = config.model_copy(update={"routes": (route,)})
        try:
            analysis = analyse(files, out, config=asked, registry=registry, on_step=going_on)
        except ConfigurationError as error:
            return Written(objects={}, reasons=(str(error),))
        done = [report for report in analysis.series if report.state is JobState.DONE]
        objects = {
            f"{number}/{path.name}": path for number, report in enumerate(done, start=1) for path in report.objects
        }
        refused = [item.reason for item in analysis.files.refused]
        left = [_reason(report) for report in analysis.series if report.state is not JobState.DONE]
        return Written(objects=objects, reasons=(*left, *refused))

    return answer


def _reason(report: SeriesReport) -> str:
    stack = f" ({report.stack})" if report.stack else ""
    return f"series {report.series}{stack}, {report.instances} instances: {report.reason or report.state}"
