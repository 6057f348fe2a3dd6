"""A PACS for tests, with pynetdicom: stores, commits itself and answers queries, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from orthanc_server import free_port
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from dicom_out.settings import DimseSettings

COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
VERIFICATION = "1.2.840.10008.1.1"


def store(pacs: Pacs, event: Event) -> int:
    """Keep the object."""
    pacs.held[str(event.dataset.SOPInstanceUID)] = event.dataset
    return 0x0000


def commit(pacs: Pacs, event: Event) -> None:
    """Answer on a new association what is held."""
    pacs.report(pacs.asked[-1])


@dataclass
class Pacs:
    """Its behaviour is in the functions below; replace one to make it ill, put it back to heal it.

    ``held`` is what it stores, ``stores`` counts the requests, ``asked`` what it was asked for.
    """

    on_store: Callable[[Pacs, Event], int] = store
    on_asked: Callable[[Pacs, Event], None] = commit
    on_requested: Callable[[Event], None] = lambda _event: None
    visible: bool = True
    report_to: int = 0
    """Port of the gateway."""
    port: int = field(default_factory=free_port)
    held: dict[str, Dataset] = field(default_factory=dict)
    asked: list[Dataset] = field(default_factory=list)
    stores: int = 0
    said: list[int | None] = field(default_factory=list)
    """Statuses that the gateway answered event reports with."""
    find_status: int = 0x0000
    _server: ThreadedAssociationServer | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def settings(self, **changes: Any) -> DimseSettings:
        """Return the way to it, with short time limits."""
        limits: dict[str, Any] = {"connect_timeout_s": 2, "acse_timeout_s": 2, "response_timeout_s": 2}
        return DimseSettings(name="pacs", host="127.0.0.1", port=self.port, ae_title="PACS", **{**limits, **changes})

    def __enter__(self) -> Self:
        ae = AE("PACS")
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax or "")
        for sop_class_uid in (COMMITMENT, FIND, VERIFICATION):
            ae.add_supported_context(sop_class_uid)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, lambda event: self.on_requested(event)),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._asked),
            (evt.EVT_C_FIND, self._find),
        ]
        self._server = ae.make_server(
            ("127.0.0.1", self.port), evt_handlers=handlers, server_class=ThreadedAssociationServer
        )
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        self._threads = [thread]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            TCPServer.shutdown(self._server)
            self._server.server_close()
            for association in self._server.active_associations:
                association.abort()
        for thread in self._threads:
            thread.join()

    def answer(self, asked: Dataset, failing: dict[str, int] | None = None) -> tuple[Dataset, int]:
        """Return event information and type: what is held is committed, except for ``failing``."""
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        good: list[Dataset] = []
        bad: list[Dataset] = []
        for item in asked.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            reason = (failing or {}).get(uid, 0 if uid in self.held else 0x0112)
            copy = Dataset()
            copy.update(item)
            if reason:
                copy.FailureReason = reason
            (bad if reason else good).append(copy)
        if good:
            report.ReferencedSOPSequence = good
        if bad:
            report.FailedSOPSequence = bad
        return report, 2 if bad else 1

    def report(self, asked: Dataset, failing: dict[str, int] | None = None) -> None:
        """Answer a request on a new association, with role selection."""
        report, event_type = self.answer(asked, failing)
        ae = AE("PACS")
        ae.add_requested_context(COMMITMENT)
        role = build_role(COMMITMENT, scp_role=True)
        association = ae.associate("127.0.0.1", self.report_to, ae_title="VOXGATE", ext_neg=[role])
        assert association.is_established
        status, _ = association.send_n_event_report(report, event_type, COMMITMENT, COMMITMENT_INSTANCE)
        self.said.append(status.get("Status"))
        association.release()

    def later(self, what: Callable[[], None]) -> None:
        """Do something beside the association, as an answer on the same one must be."""
        thread = threading.Thread(target=what)
        thread.start()
        self._threads.append(thread)

    def _store(self, event: Event) -> int:
        self.stores += 1
        return self.on_store(self, event)

    def _asked(self, event: Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        self.on_asked(self, event)
        return 0x0000, None

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        if self.find_status:
            yield self.find_status, None
            return
        keyword = "SOPInstanceUID" if wanted.QueryRetrieveLevel == "IMAGE" else "SeriesInstanceUID"
        for dataset in self.held.values():
            if self.visible and dataset[keyword].value == wanted[keyword].value:
                match = Dataset()
                match.QueryRetrieveLevel = wanted.QueryRetrieveLevel
                setattr(match, keyword, wanted[keyword].value)
                yield 0xFF00, match


def commit_on_the_same_association(pacs: Pacs, event: Event) -> None:
    """Answer where the question came from, as soon as its response is out."""
    association, (report, event_type) = event.assoc, pacs.answer(pacs.asked[-1])

    def tell() -> None:
        status, _ = association.send_n_event_report(report, event_type, COMMITMENT, COMMITMENT_INSTANCE)
        pacs.said.append(status.get("Status"))

    pacs.later(tell)
