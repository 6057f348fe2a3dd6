"""Sending by C-STORE (PS3.4 B)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dicom_out.association import limited, opened, sop_class_name
from dicom_out.c_store import send_file
from dicom_out.outgoing import Outgoing, read_all
from dicom_out.settings import SLOWEST_LINK, DimseSettings
from domain.errors import AlreadyThere, ClassRefused, DeliveryError, PeerOutOfResources, PeerRefused, PeerUnreachable
from domain.ports import SendReport

log = logging.getLogger(__name__)

MAX_CONTEXTS = 128
"""Presentation context identifiers are the odd numbers of one byte (PS3.8 9.3.2.2)."""

_DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5.7
_SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.6
_MAX_BREAKS = 3
_ALTERNATIVES: Mapping[str, tuple[str, ...]] = {
    # What a file can be turned into without loss, for a peer that takes only the default (PS3.5 10.1)
    ExplicitVRLittleEndian: (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    DeflatedExplicitVRLittleEndian: (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    ),
}


def judge(status: int) -> DeliveryError | None:
    """Return what a C-STORE response's status means; ``None`` for stored, with or without a warning.

    PS3.4 Table B.2-1: Bxxx warns of coerced or discarded elements of an object that *is* stored.
    """
    if status == 0x0000 or 0xB000 <= status <= 0xBFFF:
        return None
    if status == _DUPLICATE_SOP_INSTANCE:
        return AlreadyThere(f"the destination holds an object of the same SOP Instance UID (status {status:04X}H)")
    if status == _SOP_CLASS_NOT_SUPPORTED:
        return ClassRefused(f"the destination does not take objects of this SOP class (status {status:04X}H)")
    if 0xA700 <= status <= 0xA7FF:
        return PeerOutOfResources(f"the destination is out of resources (status {status:04X}H)")
    if 0xA900 <= status <= 0xA9FF:
        return PeerRefused(f"the destination says that dataset and SOP class do not match (status {status:04X}H)")
    if 0xC000 <= status <= 0xCFFF:
        return PeerRefused(f"the destination cannot understand the object (status {status:04X}H)")
    return PeerRefused(f"the destination refused the object (status {status:04X}H)")


class DimseDestination:
    """A ``Destination`` that takes C-STORE."""

    def __init__(self, settings: DimseSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """As configured."""
        return self._settings.name

    def send(self, paths: Sequence[Path]) -> list[SendReport]:
        """See ``Destination.send``. One association where 128 presentation contexts suffice, else several."""
        outgoing, reports = read_all(paths)
        for group in _groups(outgoing):
            for index, answer in self._send_group({index: outgoing[index] for index in group}):
                reports[index] = SendReport(sop_instance_uid=outgoing[index].sop_instance_uid, error=answer)
        return [reports[index] for index in range(len(paths))]

    def _send_group(self, group: Mapping[int, Outgoing]) -> Iterator[tuple[int, DeliveryError | None]]:
        """Send over as many associations as it takes; a peer that keeps breaking them is gone."""
        pending = list(group)
        breaks = 0
        gone: PeerUnreachable | None = None
        while pending and gone is None:
            try:
                answers = self._send_over_one([group[index] for index in pending])
            except PeerUnreachable as error:
                gone = error
                continue
            yield from zip(pending, answers, strict=False)
            pending = pending[len(answers) :]
            breaks = 0 if None in answers else breaks + 1
            if breaks == _MAX_BREAKS:
                gone = PeerUnreachable(f"the destination broke {breaks} associations in a row")
        if pending:
            log.warning("destination unreachable", extra={"destination": self.name, "reason": str(gone)})
            yield from ((index, gone) for index in pending)

    def _send_over_one(self, items: Sequence[Outgoing]) -> list[DeliveryError | None]:
        """Return what became of the first items: of all of them, unless the association ended before."""
        answers: list[DeliveryError | None] = []
        with opened(self._settings, _contexts(items)) as association:
            for item in items:
                error = _refused_context(association, item)
                if error is None and not association.is_established:
                    break
                answers.append(error or self._store(association, item))
                if isinstance(answers[-1], PeerUnreachable):
                    break  # whether or not pynetdicom knows yet that the association is over
        return answers

    def _store(self, association: Association, item: Outgoing) -> DeliveryError | None:
        # pynetdicom's clock starts before the first byte leaves
        association.dimse_timeout = self._settings.response_timeout_s + item.size / SLOWEST_LINK
        try:
            with limited(association, association.dimse_timeout):
                answer = send_file(association, item)
        except RuntimeError:
            return PeerUnreachable("the association ended before the object was sent")
        except Exception as error:  # pydicom raises whatever it meets in a broken file
            log.warning("object cannot be encoded", extra={"destination": self.name, "error": type(error).__name__})
            return DeliveryError("the file cannot be read or encoded")
        if "Status" not in answer:
            return PeerUnreachable("the association ended, or the time ran out, before the answer")
        if answer.Status != 0x0000 and judge(answer.Status) is None:
            log.warning("stored with a warning", extra={"destination": self.name, "status": f"{answer.Status:04X}"})
        return judge(answer.Status)


def _groups(outgoing: Mapping[int, Outgoing]) -> list[list[int]]:
    """Split into sets that need at most 128 presentation contexts each; equal needs share one context."""
    groups: list[list[int]] = []
    known: set[tuple[str, str]] = set()
    for index, item in outgoing.items():
        need = (item.sop_class_uid, item.transfer_syntax_uid)
        if not groups or (need not in known and len(known) == MAX_CONTEXTS):
            groups.append([])
            known = set()
        known.add(need)
        groups[-1].append(index)
    return groups


def _contexts(items: Sequence[Outgoing]) -> list[PresentationContext]:
    contexts = []
    for sop_class_uid, syntax in dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items):
        context = PresentationContext()
        context.abstract_syntax = UID(sop_class_uid)
        context.transfer_syntax = [UID(uid) for uid in _ALTERNATIVES.get(syntax, (syntax,))]
        contexts.append(context)
    return contexts


def _refused_context(association: Association, item: Outgoing) -> ClassRefused | None:
    """Return the refusal of what ``item`` needs, if the peer refused it when the association was made."""
    of_class = [cx for cx in association.accepted_contexts if cx.abstract_syntax == item.sop_class_uid]
    usable = _ALTERNATIVES.get(item.transfer_syntax_uid, (item.transfer_syntax_uid,))
    if not of_class:
        return ClassRefused(f"the destination does not accept SOP class {sop_class_name(item.sop_class_uid)}")
    if not any(cx.transfer_syntax[0] in usable for cx in of_class):
        return ClassRefused(
            f"the destination does not accept {sop_class_name(item.sop_class_uid)} "
            f"in transfer syntax {UID(item.transfer_syntax_uid).name}"
        )
    return None
