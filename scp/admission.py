"""Who may open an association (PS3.8 9.3.4: why it is rejected)."""

from __future__ import annotations

import logging
import threading
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import cast

from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from scp.association import StoreAssociation
from scp.settings import ScpSettings

log = logging.getLogger(__name__)


class Rejection(Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    CALLING_AE_TITLE = (1, 1, 3)
    CALLED_AE_TITLE = (1, 1, 7)
    LOCAL_LIMIT = (2, 3, 2)


class Admission:
    """Accepts or rejects associations by their AE titles, address and number. Thread-safe.

    Only associations that were admitted count, so that connections which never ask for one cannot keep senders out.
    """

    def __init__(self, settings: ScpSettings) -> None:
        self._settings = settings
        self._networks = tuple(ip_network(text, strict=False) for text in settings.addresses)
        self._lock = threading.Lock()
        self._admitted: set[Association] = set()

    def on_requested(self, event: Event) -> None:
        """Reject the association behind an ``EVT_REQUESTED`` where it is not welcome."""
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)  # the event says that it came
        rejection = self._examine(event.assoc, request)
        if rejection is None:
            return
        log.warning(
            "association rejected",
            extra={
                "reason": rejection.name.lower(),
                "calling_ae_title": request.calling_ae_title,
                "address": event.assoc.requestor.address,
            },
        )
        event.assoc.acse.send_reject(*rejection.value)
        event.assoc.kill()

    def admitted(self) -> tuple[Association, ...]:
        """Return the associations that are still running."""
        with self._lock:
            self._admitted = {assoc for assoc in self._admitted if assoc.is_alive()}
            return tuple(self._admitted)

    def _examine(self, assoc: Association, request: A_ASSOCIATE) -> Rejection | None:
        allowed = self._settings.calling_ae_titles
        if self._settings.require_called_ae_title and request.called_ae_title.strip() != self._settings.ae_title:
            return Rejection.CALLED_AE_TITLE
        if allowed and request.calling_ae_title.strip() not in allowed:
            return Rejection.CALLING_AE_TITLE
        if self._networks and not self._is_listed(assoc.requestor.address):
            return Rejection.CALLING_AE_TITLE  # there is no reason "address"; this one sends the reader to our list
        return None if self._count(assoc) else Rejection.LOCAL_LIMIT

    def _is_listed(self, address: str) -> bool:
        peer = ip_address(address.partition("%")[0])
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._networks)

    def _count(self, assoc: Association) -> bool:
        with self._lock:
            self._admitted = {other for other in self._admitted if other.is_alive()}
            if len(self._admitted) >= self._settings.max_associations and not self._made_room():
                return False
            self._admitted.add(assoc)
            return True

    def _made_room(self) -> bool:
        """End the association that has been silent for longest; its peer opens another when it has more to send."""
        idle_s = {other: other.idle_s for other in self._admitted if isinstance(other, StoreAssociation)}
        longest = max(idle_s, key=idle_s.__getitem__, default=None)
        if longest is None or idle_s[longest] < self._settings.yield_after_s:
            return False
        log.warning("idle association gives way", extra={"calling_ae_title": longest.requestor.ae_title})
        self._admitted.discard(longest)
        # In a thread of its own: it waits until that association has come to its end
        threading.Thread(target=longest.abort, name="yield", daemon=True).start()
        return True
