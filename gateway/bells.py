"""Where the parts of one gateway wake each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.config import Config
from gateway.runfiles import run_folder
from pipeline.bell import ARRIVALS, Bell, Seldom, bell


def bell_of(config: Config, name: str) -> Bell:
    """Return what wakes those who wait for ``name``, on every host of this database."""
    return bell(config.database.url.get_secret_value() or "sqlite://", bells_folder(config), name)


def bells_folder(config: Config) -> Path:
    """Return the folder of the bells of this machine."""
    return run_folder(config.store.path) / "bells"


def tells_of_arrivals(config: Config) -> Callable[[], None]:
    """Return what a receiver calls when it has kept something."""
    return Seldom(bell_of(config, ARRIVALS).ring)
