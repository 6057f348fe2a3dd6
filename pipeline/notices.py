"""Not analysed, because …: the reason for which there is no result, as a report for the destinations that get one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from domain.codes import Code
from domain.engine import EngineManifest
from domain.errors import DrawingRefused, EngineFailed, GatewayError, InstanceDamaged, VerificationFailed
from domain.findings import Evaluation, Findings
from domain.image import Raster
from domain.instance import Header
from domain.job import Job, JobState, ResultObject
from domain.ports import Result, ResultWriter

log = logging.getLogger(__name__)

DAMAGED = "instance-damaged"
"""A cause that is told to nobody: the report would be of whoever the damaged file names now."""
_MARK = "notice "
_SUMMARY = Code("111065", "DCM", "Summary of Analyses")
_STATUS = {
    JobState.FAILED: Code("111224", "DCM", "Failed"),
    JobState.NOT_RUN: Code("111225", "DCM", "Not Attempted"),
    JobState.NOT_APPLICABLE: Code("111225", "DCM", "Not Attempted"),
}
"""CID 6042."""
_CAUSE = Code("CAUSE", "99VOXGATE", "Cause")
_COMMENT = Code("121106", "DCM", "Comment")
_FAILURES = frozenset({"engine-failed", "engine-crashed", "failed", "verification-failed"})


_CODES: Mapping[type[GatewayError], str] = {
    VerificationFailed: "verification-failed",
    EngineFailed: "engine-failed",
    DrawingRefused: "drawing-refused",
    InstanceDamaged: DAMAGED,
    GatewayError: "failed",
}


def code_of(error: GatewayError) -> str:
    """Return the named cause of a job that an error ends."""
    return next(_CODES[cls] for cls in type(error).__mro__ if cls in _CODES)


def is_notice(item: ResultObject) -> bool:
    """Tell whether an object says why there is no result."""
    return item.variant.startswith(_MARK)


def outcome(job: Job) -> JobState | None:
    """Return how a job ends once its notice is delivered; ``None`` where it delivers a result."""
    if not job.code:
        return None
    if job.code in _FAILURES:
        return JobState.FAILED
    return JobState.NOT_APPLICABLE if job.code == "not-applicable" else JobState.NOT_RUN


def write_notice(
    job: Job,
    state: JobState,
    code: str,
    reason: str,
    *,
    headers: Sequence[Header],
    paths: dict[str, Path],
    manifest: EngineManifest,
    writer: ResultWriter,
    clock: Callable[[], datetime],
    folder: Path,
) -> tuple[ResultObject, ...]:
    """Write and verify the reports that say why; the same job and cause give the same UIDs.

    Raises
    ------
    VerificationFailed
        They do not say it; nothing may be sent.
    """
    result = Result(
        # UIDs of its own: the job may yet have a result
        job_id=hashlib.sha256(f"{job.job_id}\0{code}".encode()).hexdigest()[:40],
        findings=Findings(
            labels=None,
            evaluations=(
                Evaluation(segment=None, concept=_SUMMARY, value=_STATUS[state]),
                Evaluation(segment=None, concept=_CAUSE, value=Code(code, "99VOXGATE", code.replace("-", " "))),
                Evaluation(segment=None, concept=_COMMENT, value=reason),
            ),
        ),
        grid=Raster(shape=_shape(headers[0])),
        source_paths=tuple(paths[uid] for uid in dict.fromkeys(header.sop_instance_uid for header in headers)),
        manifest=manifest,
        route=job.route,
        stack=job.stack,
        started_at=clock(),
        generation=job.generation,
        destinations=job.destinations,
        is_notice=True,
    )
    objects = writer.write(result, folder)
    if not objects:
        raise VerificationFailed("No destination's profile has a report in which a reason could be said.")
    writer.verify(result, objects)
    return tuple(
        replace(
            item,
            job_id=job.job_id,
            variant=f"{_MARK}{item.variant}",
            fallback=item.fallback and f"{_MARK}{item.fallback}",
        )
        for item in objects
    )


def _shape(header: Header) -> tuple[int, int, int]:
    """Return frames, rows and columns of the instance that an image is, or is a frame or tile of."""
    tile = header.tile
    rows, columns = (header.rows, header.columns) if tile is None else (tile.image_rows, tile.image_columns)
    return header.number_of_frames or 1, rows or 0, columns or 0
