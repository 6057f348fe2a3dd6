"""An association that we open."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicom_out.cutoff import Cutoff
from dicom_out.segoptions import LABEL_MAP_STORAGE
from dicom_out.settings import DimseSettings
from domain.errors import PeerRefused, PeerUnreachable
from domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_GRACE_S = 2.0
"""pynetdicom's own timeouts come first; they end nothing while a PDU trickles in."""
_LABEL_MAP_NAME = "Label Map Segmentation Storage"


@contextmanager
def opened(
    settings: DimseSettings, contexts: list[PresentationContext], handlers: Sequence[tuple[Any, ...]] = ()
) -> Iterator[Association]:
    """Open an association; it may have been accepted without a single context.

    Raises
    ------
    PeerUnreachable
        There is none. A rejection counts as this: most are passed when somebody corrects a list of AE titles,
        and trying again harms nobody.
    """
    cutoff = Cutoff()
    with cutoff.after(settings.connect_timeout_s + settings.acse_timeout_s + _GRACE_S):
        association = _entity(settings).associate(
            settings.host,
            settings.port,
            contexts=contexts,
            ae_title=settings.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, _limit_silence, [settings.stall_timeout_s, cutoff]), *handlers],
        )
    answer: A_ASSOCIATE | None = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        raise PeerUnreachable(f"the destination rejected the association: {answer.reason_str}")
    if not association.is_established and (answer is None or answer.result != 0):
        raise PeerUnreachable("no connection to the destination, or no answer to the association request")
    try:
        yield association
    except Exception:
        # What is still to come from the peer would have to be taken before it hears of a release
        with limited(association, settings.acse_timeout_s):
            association.abort()
        raise
    if association.is_established:
        with limited(association, settings.acse_timeout_s):
            association.release()


@contextmanager
def limited(association: Association, limit_s: float) -> Iterator[None]:
    """Let the block, which waits for no longer than ``limit_s``, wait for no longer even where bytes trickle in."""
    with Cutoff(_connection(association)).after(limit_s + _GRACE_S):
        yield


@contextmanager
def opened_for(
    settings: DimseSettings, sop_class_uid: str, handlers: Sequence[tuple[Any, ...]] = ()
) -> Iterator[Association]:
    """Open an association for one SOP class other than those of storage.

    Raises
    ------
    PeerUnreachable
        There is none.
    PeerRefused
        The peer does not accept the SOP class.
    """
    context = PresentationContext()
    context.abstract_syntax = UID(sop_class_uid)
    context.transfer_syntax = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    with opened(settings, [context], handlers) as association:
        if not association.accepted_contexts:
            raise PeerRefused(f"the destination does not accept SOP class {sop_class_name(sop_class_uid)}")
        association.dimse_timeout = settings.response_timeout_s
        yield association


def _entity(settings: DimseSettings) -> ApplicationEntity:
    ae = ApplicationEntity(settings.calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = settings.connect_timeout_s
    ae.acse_timeout = settings.acse_timeout_s
    # Silence is bounded by the response's timeout; between two objects there is none
    ae.network_timeout = None
    return ae


def _connection(association: Association) -> socket.socket | None:
    transport = association.dul.socket
    return None if transport is None else transport.socket


def _limit_silence(event: Event, timeout_s: float, cutoff: Cutoff) -> None:
    """Give the connection a timeout, without which a peer that stops reading holds the sender for ever."""
    connection = _connection(event.assoc)
    if connection is None:
        return
    cutoff.watch(connection)
    connection.settimeout(timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def sop_class_name(uid: str) -> str:
    """Return the name of a SOP class (PS3.6 Table A-1); pydicom does not know that of label maps."""
    return _LABEL_MAP_NAME if uid == LABEL_MAP_STORAGE else UID(uid).name
