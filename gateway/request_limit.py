"""How often one client may ask a model: beyond loopback always counted, on it never."""

from __future__ import annotations

import time

from flask import Blueprint, Flask, Response, jsonify
from flask_limiter import Limiter, RequestLimit
from flask_limiter.errors import RateLimitExceeded
from flask_limiter.util import get_remote_address


def limit_posts(app: Flask, blueprint: Blueprint, per_minute: int) -> None:
    """Answer 429 to a client's further POSTs to ``blueprint`` once it has sent ``per_minute`` within a minute.

    Clients are told apart by their address; those behind one proxy are one. Counts live in this process.
    """
    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://", strategy="moving-window")
    limiter.limit(f"{per_minute} per minute", methods=["POST"], on_breach=_too_many)(blueprint)
    # The application's handler for every HTTP error would put a problem in its place (PS3.18), which is for DICOMweb.
    app.register_error_handler(RateLimitExceeded, lambda error: error.response)


def _too_many(limit: RequestLimit) -> Response:
    details = [f"More than {limit.limit.amount} requests in a minute; see Retry-After"]
    response = jsonify(error="Too many requests", details=details)
    response.status_code = 429
    response.headers["Retry-After"] = str(max(1, round(limit.reset_at - time.time())))
    return response
