"""A job as JSON: what the HTTP interface and ``voxgate jobs`` answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from domain.job import Delivery, Job, ResultObject
from gateway.standing import Standing


def job_as_json(job: Job, deliveries: Sequence[Delivery], objects: Sequence[ResultObject]) -> dict[str, object]:
    """Return everything that is known about a job; its UIDs name instances, so this is no text for logs."""
    return {
        "job_id": job.job_id,
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "stack": job.stack,
        "instances": len(job.sop_instance_uids),
        "state": job.state.value,
        "final": job.state.is_final,
        "code": job.code,
        "reason": job.reason,
        "route": job.route,
        "engine": job.engine,
        "engine_version": job.engine_version,
        "generation": job.generation,
        "predecessor": job.predecessor,
        "priority": job.priority,
        "attempt": job.attempt,
        "destinations": list(job.destinations),
        "timings_s": job.timings_s,
        "summary": job.summary,
        "objects": [_object(result) for result in objects],
        "deliveries": [_delivery(delivery) for delivery in deliveries],
        "created_at": _moment(job.created_at),
        "updated_at": _moment(job.updated_at),
    }


def waiting_as_json(series_instance_uid: str, standing: Standing) -> dict[str, object]:
    """Return how far a series without a job is, with the fields of a job that a reader of jobs looks at."""
    return {
        "job_id": None,
        "study_instance_uid": standing.study_instance_uid,
        "series_instance_uid": series_instance_uid,
        "instances": standing.instances,
        "expected": standing.expected,
        "state": standing.state,
        "final": False,
        "code": "",
        "reason": standing.sentence,
        "objects": [],
        "deliveries": [],
    }


def _object(result: ResultObject) -> dict[str, object]:
    return {
        "kind": result.kind,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "series_instance_uid": result.series_instance_uid,
    }


def _delivery(delivery: Delivery) -> dict[str, object]:
    return {
        "destination": delivery.destination,
        "sop_instance_uid": delivery.sop_instance_uid,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "reason": delivery.reason,
        "updated_at": _moment(delivery.updated_at),
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
