"""What docker-compose.yml joins, run natively: the same settings, with the names of hosts replaced by ports."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from gateway_server import ROOT, GatewayServer
from orthanc_server import PYTHON_PLUGIN, OrthancServer, free_port

from gateway.phantom import write_phantom

pytestmark = [pytest.mark.e2e, pytest.mark.peer]

TOKEN = "a-token-of-the-test"


def environment(service: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Return a service's environment as compose would, from an ``.env`` with ``given``."""
    variable = re.compile(r"\$\{(\w+):[-?]([^}]*)\}")
    return {
        name: variable.sub(lambda match: given.get(match[1], match[2]), str(value))
        for name, value in service["environment"].items()
    }


def test_orthanc_voxgate_and_postgresql_bring_a_result_that_is_committed_and_visible(
    tmp_path: Path, peer: Callable[[str], str], postgres_url: str
) -> None:
    if not PYTHON_PLUGIN.exists():
        pytest.skip("orthanc-python is not installed (make peers)")
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    given = {
        "VOXGATE_HTTP_TOKEN": TOKEN,
        "VOXGATE_DATABASE_URL": postgres_url,
        "ORTHANC_PASSWORD": "a-password",
        "ORTHANC_STABLE_AGE": "1",
    }
    dimse_port, http_port = free_port(), free_port()
    orthanc = OrthancServer(peer("Orthanc"), tmp_path / "orthanc", file=ROOT / "orthanc" / "orthanc.json")
    orthanc.environment.update(
        environment(services["orthanc"], given),
        VOXGATE_HOST="127.0.0.1",
        VOXGATE_DIMSE_PORT=str(dimse_port),
        VOXGATE_HTTP_URL=f"http://127.0.0.1:{http_port}",
        VOXGATE_SCRIPT=str(ROOT / "orthanc" / "voxgate_autorouting.py"),
        ORTHANC_DATA=str(tmp_path / "storage"),
        ORTHANC_DIMSE_PORT=str(orthanc.dimse_port),
        ORTHANC_HTTP_PORT=str(orthanc.http_port),
        ORTHANC_AUTHENTICATION="false",  # the helper of the tests knows no password
    )
    settings = environment(services["voxgate"], given)
    settings.update(
        VOXGATE_SCP__HOST="127.0.0.1",
        VOXGATE_SCP__PORT=str(dimse_port),
        VOXGATE_HTTP__HOST="127.0.0.1",
        VOXGATE_HTTP__PORT=str(http_port),
        VOXGATE_DESTINATIONS=settings["VOXGATE_DESTINATIONS"]
        .replace('"host": "orthanc"', '"host": "127.0.0.1"')
        .replace('"port": 4242', f'"port": {orthanc.dimse_port}'),
    )
    write_phantom(tmp_path / "chest", small=True)
    with orthanc, GatewayServer(tmp_path / "gateway", environment=settings) as gateway:
        orthanc.upload(tmp_path / "chest")
        (job,) = [job for job in gateway.wait_for_jobs(1) if job["route"]]
        assert (job["state"], job["reason"]) == ("done", "")
        assert [item["state"] for item in job["deliveries"]] == ["visible", "visible"]
        assert (orthanc.count("SEG"), orthanc.count("SR")) == (1, 1)
        assert not (gateway.store / "index.sqlite").exists()
        assert not (gateway.store / "jobs.sqlite").exists()
