"""``/api/v1``: jobs to read, and a sender's word on how many instances a series has."""

from __future__ import annotations

import re

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest, NotFound

from domain.job import Job, JobState
from domain.ports import JobLog, SeriesIndex
from gateway.job_view import job_as_json

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
MOST_INSTANCES = 1_000_000
MOST_JOBS = 1000
_LARGEST_BODY = 64 << 10


def api_blueprint(index: SeriesIndex, jobs: JobLog) -> Blueprint:
    """Return the resources below ``/api/v1``."""
    blueprint = Blueprint("api", __name__)

    @blueprint.put("/series/<series>/expected-instances")
    def expect(series: str) -> Response:
        index.expect(_uid(series), _announced())
        return Response(status=204)

    @blueprint.get("/jobs")
    def list_jobs() -> Response:
        found = jobs.find(
            series_instance_uid=_uid_argument("series"),
            study_instance_uid=_uid_argument("study"),
            state=_state(),
            limit=_limit(),
        )
        return jsonify(jobs=[_view(job) for job in found])

    @blueprint.get("/jobs/<job_id>")
    def show_job(job_id: str) -> Response:
        job = jobs.get(job_id)
        if job is None:
            raise NotFound("There is no job with this id; GET /api/v1/jobs lists those there are.")
        return jsonify(_view(job))

    def _view(job: Job) -> dict[str, object]:
        return job_as_json(job, jobs.deliveries(job.job_id), jobs.objects(job.job_id))

    return blueprint


def _announced() -> int:
    """Return the number of instances in the request's body."""
    request.max_content_length = _LARGEST_BODY
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # thousands of brackets deep
        body = None
    instances = body.get("instances") if isinstance(body, dict) else None
    if type(instances) is not int or not 1 <= instances <= MOST_INSTANCES:
        raise BadRequest('Send JSON (Content-Type application/json) like {"instances": 120}, a number from 1.')
    return instances


def _uid_argument(name: str) -> str | None:
    given = request.args.get(name)
    return _uid(given) if given else None


def _uid(text: str) -> str:
    if len(text) > 64 or not _UID.fullmatch(text):
        raise BadRequest("This is no valid UID (PS3.5 Section 9.1).")
    return text


def _state() -> JobState | None:
    given = request.args.get("state")
    if not given:
        return None
    try:
        return JobState(given)
    except ValueError as error:
        raise BadRequest(f"The argument state takes one of {', '.join(JobState)}.") from error


def _limit() -> int:
    given = request.args.get("limit", "100")
    if not (given.isascii() and given.isdecimal() and 1 <= int(given[:9]) <= MOST_JOBS):
        raise BadRequest(f"The argument limit takes a number from 1 to {MOST_JOBS}.")
    return int(given)
