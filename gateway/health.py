"""What ``GET /health`` says."""

from __future__ import annotations

import shutil

from domain.errors import GatewayError
from gateway.config import Config
from store.store import Store


def health(config: Config, store: Store) -> dict[str, object]:
    """Return ``ok`` while instances can be taken and jobs can be recorded."""
    free_mb = shutil.disk_usage(config.store.path).free >> 20
    space = free_mb > config.store.low_water_mb
    try:
        store.series.arrivals()
        index = True
    except GatewayError:
        index = False
    return {
        "status": "ok" if space and index else "failing",
        "index": "ok" if index else "cannot be read",
        "space": "ok" if space else "below store.low_water_mb: nothing is taken in",
    }
