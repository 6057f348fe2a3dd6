"""``[scp]`` in voxgate.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpSettings:
    """How we listen for associations, and whom we accept."""

    ae_title: str = "VOXGATE"
    host: str = "127.0.0.1"
    port: int = 11112
    """0 lets the system choose; tests use it."""
    max_associations: int = 20
    require_called_ae_title: bool = True
    """Refuse associations that call another AE title than ours."""
    calling_ae_titles: tuple[str, ...] = ()
    """AE titles that may send; empty accepts any."""
    addresses: tuple[str, ...] = ()
    """IP addresses or CIDR networks that may send; empty accepts any."""
    max_pdu: int = 131072
    """Largest PDU we take, in bytes; 0 for no limit (PS3.8 D.1)."""
    acse_timeout_s: float = 30.0
    """Wait for the association request after the connection, and for the release."""
    dimse_timeout_s: float = 60.0
    """Wait for a DIMSE message where one is due."""
    network_timeout_s: float = 300.0
    """An association without any message for so long is aborted."""
    yield_after_s: float = 5.0
    """Where ``max_associations`` are open, one that has been silent for so long gives way to a new one."""
    stall_timeout_s: float = 30.0
    """A PDU that stops in the middle for so long closes the connection."""
    max_instance_mb: int = 2048
    """An instance is held in memory until it is whole; an association that sends a larger one is aborted."""
    stop_timeout_s: float = 20.0
    """When stopping, associations have so long to finish; then they are aborted."""
    storage_commitment: bool = True
    """Answer those who ask whether we hold what they sent."""
    peers: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Host and port by AE title, for answers that need an association of our own."""
    commitment_give_up_h: float = 72.0
    """An answer that reaches its peer by no way for so long is given up."""
    private_sop_classes: tuple[str, ...] = ()
    """UIDs of storage SOP classes to take beyond the standard's."""
    private_transfer_syntaxes: tuple[str, ...] = ()
    """UIDs of transfer syntaxes to take beyond the standard's."""
