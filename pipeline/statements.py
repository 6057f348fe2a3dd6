"""Statements why nothing runs on a stack or a series: jobs without a route."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from domain.engine import Verdict
from domain.job import Job, JobState
from domain.series import Stack
from volume.frames import frame_numbers, image_names

PART_OF_STUDY = "part-of-study"
"""Code of the statement about images that a route takes together with the rest of their study."""


def not_run(stack: Stack, code: str, reason: str) -> Job:
    """Return the statement why nothing runs on a stack, as a job without a route."""
    return Job(
        job_id=hashlib.sha256("\0".join(("not-run", *sorted(image_names(stack.headers)))).encode()).hexdigest()[:40],
        series_instance_uid=stack.headers[0].series_instance_uid,
        study_instance_uid=stack.headers[0].study_instance_uid,
        stack=stack.name,
        sop_instance_uids=tuple(header.sop_instance_uid for header in stack.headers),
        frame_numbers=frame_numbers(stack.headers),
        state=JobState.NOT_RUN,
        code=code,
        reason=reason,
    )


def nothing_kept(series_instance_uid: str, reason: str) -> Job:
    """Return the statement about a series of which no instance was kept."""
    return Job(
        job_id=hashlib.sha256(f"nothing-kept\0{series_instance_uid}".encode()).hexdigest()[:40],
        series_instance_uid=series_instance_uid,
        study_instance_uid="",
        stack="",
        sop_instance_uids=(),
        state=JobState.NOT_RUN,
        code="conflict",
        reason=reason,
    )


def why_no_route(verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """Return each route's answer in one sentence."""
    if not verdicts:
        return "No route is configured."
    return "; ".join(f"route {name!r}: {verdict.reason}" for name, verdict in verdicts)
