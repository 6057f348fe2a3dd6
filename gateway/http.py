"""The HTTP application: DICOMweb, the API and the state of the gateway on one port."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from flask import Flask, Response, jsonify, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from dicomweb import problems
from dicomweb.stow import StowSettings, stow_blueprint
from domain.engine import EngineManifest
from domain.ports import InstanceSink, JobLog, SeriesIndex
from gateway.api import api_blueprint
from gateway.openapi import document
from inference.api import PredictService

log = logging.getLogger(__name__)

_OPEN = frozenset({"health"})
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """``[http]`` in voxgate.toml."""

    host: str = "127.0.0.1"
    port: int = 5000
    """0 lets the system choose."""
    token: str = field(default="", repr=False)
    """Bearer token that every request but ``/health`` must carry; empty: none is asked for."""
    allow_unauthenticated: bool = False
    """Listen beyond loopback without a token."""
    processes: int = 1
    """That take requests, each for itself, on one port; questions to models need a single one."""
    threads: int = 32
    """Requests at a time, in each process."""
    idle_timeout_s: int = 60
    """A peer that neither sends nor takes a byte for so long is given up; a slow upload may take hours."""
    min_body_kb_s: int = 4
    """A body that comes more slowly (KiB/s over 30 s, or ``idle_timeout_s`` if that is longer; over 2 s while others
    wait for a thread) is cut off; 0: never."""
    graceful_timeout_s: int = 30
    """What a stopping server waits for requests that are under way."""
    retry_after_s: int = 60
    """Told to a peer when the store is out of space."""
    questions_per_minute: int = 120
    """What one client may ask of the models; not counted where the gateway listens on loopback only."""

    @property
    def is_exposed_without_token(self) -> bool:
        """Anybody who reaches this machine could store instances and read jobs, and nobody said that it may be so."""
        return not (self.token or self.allow_unauthenticated or _is_loopback(self.host))


def create_app(
    sink: InstanceSink,
    index: SeriesIndex,
    jobs: JobLog,
    settings: HttpSettings,
    health: Callable[[], Mapping[str, object]],
    *,
    version: str = "",
    engines: Sequence[EngineManifest] = (),
    stow: StowSettings | None = None,
    predict: PredictService | None = None,
) -> Flask:
    """Return the application.

    Parameters
    ----------
    health
        Called for each ``GET /health``; answered with 200 and ``healthy`` where its ``status`` is ``ok``, otherwise
        with 503. Readable without a token, so it tells nothing but states and counts.
    predict
        Answers questions about images; without it there is no ``/predict``.
    """
    app = Flask("voxgate", static_folder=None)
    problems.install(app, retry_after_s=settings.retry_after_s)
    _require_token(app, settings.token)
    app.after_request(_add_security_headers)
    app.register_blueprint(stow_blueprint(sink, stow), url_prefix="/dicomweb")
    app.register_blueprint(api_blueprint(index, jobs), url_prefix="/api/v1")
    if predict is not None:
        asking = predict.blueprint()
        if not _is_loopback(settings.host):
            from gateway.request_limit import limit_posts  # costs memory that a gateway on loopback does not need

            limit_posts(app, asking, settings.questions_per_minute)
        app.register_blueprint(asking)

    @app.get("/health", endpoint="health")
    def _health() -> tuple[Response, int]:
        state = _state_of(health)
        well = state.get("status") == "ok"
        if well:
            state["status"] = "healthy"  # what clients of the public MedVersa server look for
        if predict is not None:
            state["model_loaded"] = predict.model_loaded
        return jsonify(state), 200 if well else 503

    @app.get("/info")
    def _info() -> Response:
        about = predict.info() if predict is not None else {"name": "voxgate"}
        return jsonify(
            product="voxgate", version=version, engines=[_engine(manifest) for manifest in engines], **about
        )

    @app.get("/openapi.json")
    def _document() -> Response:
        return jsonify(document(version=version, needs_token=bool(settings.token)))

    return app


def _require_token(app: Flask, token: str) -> None:
    """Ask for ``token`` (RFC 6750 Section 2.1) before a request's body is looked at."""
    if not token:
        return
    expected = token.encode()

    @app.before_request
    def _check() -> None:
        if request.endpoint in _OPEN:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Header values come as Latin-1 (PEP 3333); the comparison takes the same time whatever differs.
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), expected)
        if scheme.lower() != "bearer" or not right:
            log.warning("request without the right token")
            raise Unauthorized(
                'Send the header "Authorization: Bearer …" with the token of [http] token.',
                www_authenticate=WWWAuthenticate("bearer", {"realm": "voxgate"}),
            )


def _add_security_headers(response: Response) -> Response:
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _state_of(health: Callable[[], Mapping[str, object]]) -> dict[str, object]:
    try:
        return dict(health())
    except Exception:
        log.exception("health check failed")
        return {"status": "failed"}


def _engine(manifest: EngineManifest) -> dict[str, object]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "title": manifest.title,
        "device": manifest.device,
        "licence": manifest.licence,
        "intended_use": manifest.intended_use,
    }


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
