"""Where instances are kept, and when the store stops taking them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """``[store]``."""

    path: Path
    low_water_mb: int = 1024
    """Free space in MiB below which nothing more is taken; 0 takes until the disk is full."""
