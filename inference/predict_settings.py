"""``[predict]``: the limits of ``POST /predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """What one request may ask of the gateway."""

    enabled: bool = False
    """The engine then runs in the HTTP process, which needs its memory."""
    engine: str = "medversa"
    """Used where the request names none."""
    name: str = "MedVersa_Internal"
    """Told by ``GET /info``, as clients of the public server expect it."""
    timeout_s: float = 600.0
    """From arrival to answer, waiting included."""
    queue: int = 16
    """Requests that wait; further ones are told to come again."""
    gather_ms: int = 0
    """A question to a model that answers several at once waits so long for others; who waits already joins it."""
    retry_after_s: int = 10
    most_body_mb: int = 256
    most_pixels: int = 64_000_000
    most_pictures: int = 10
    most_voxels: int = 600_000_000
    most_entries: int = 5000
    most_unpacked_mb: int = 2048
    folder: Path | None = None
    """Where questions with ``?async=1`` and their answers are kept; ``None``: there are none."""
    keep_answers_h: float = 24.0
