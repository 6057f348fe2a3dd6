"""``[[destinations]]`` in voxgate.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SLOWEST_LINK = 50_000
"""Bytes a second: what is larger has so much longer to arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DimseSettings:
    """A destination that takes C-STORE."""

    name: str
    host: str
    port: int
    ae_title: str
    """The destination's, called by us."""
    calling_ae_title: str = "VOXGATE"
    connect_timeout_s: float = 10.0
    acse_timeout_s: float = 30.0
    """Wait for the answer to the association request, and to the release."""
    response_timeout_s: float = 60.0
    """Wait for a C-STORE response, beyond the time that the bytes themselves take."""
    stall_timeout_s: float = 60.0
    """A peer that takes or gives no byte for so long in the middle of a PDU is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StowSettings:
    """A destination that takes STOW-RS."""

    name: str
    url: str
    """Root of the DICOMweb service; ``/studies`` is added."""
    token: str = field(default="", repr=False)
    """Bearer token."""
    username: str = ""
    password: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request, over ours."""
    ca_file: Path | None = None
    """Certificates to trust instead of the public ones; they are always verified."""
    timeout_s: float = 60.0
    """For the connection, and for each pause in sending or receiving; twice that for a whole request, beyond the time
    that the bytes themselves take."""
