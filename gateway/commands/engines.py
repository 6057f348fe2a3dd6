"""``voxgate engines``."""

from __future__ import annotations

from gateway import wiring
from gateway.config import Config
from gateway.terminal import print_json, print_table, quiet_logs


def unusable_engines(config: Config) -> dict[str, str]:
    """Return why the engines of routes cannot be used, by route."""
    registry = wiring.engine_registry(config)
    obstacles = {route.name: registry.obstacle(route.engine) for route in config.routes}
    return {name: obstacle for name, obstacle in obstacles.items() if obstacle is not None}


def list_engines(config: Config, *, as_json: bool) -> None:
    """List name, version, device and licence of every engine, and why others cannot be used."""
    quiet_logs()
    registry = wiring.engine_registry(config)
    manifests, unavailable = registry.manifests(), registry.unavailable()
    if as_json:
        print_json(
            [
                {
                    "name": manifest.name,
                    "usable": True,
                    "version": manifest.version,
                    "title": manifest.title,
                    "device": manifest.device,
                    "licence": manifest.licence,
                    "intended_use": manifest.intended_use,
                    "weights_digest": manifest.weights_digest,
                    "device_uid": manifest.device_uid,
                    "segments": [segment.label for segment in manifest.segments],
                }
                for manifest in manifests
            ]
            + [{"name": name, "usable": False, "reason": reason} for name, reason in unavailable.items()]
        )
        return
    print_table(
        ("Engine", "Version", "What", "Device", "Licence"),
        [(item.name, item.version, item.title, item.device, item.licence) for item in manifests]
        + [(name, "-", f"cannot be used: {reason}", "-", "-") for name, reason in unavailable.items()],
    )
