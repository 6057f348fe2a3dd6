"""The one way in: whatever the transport, an instance is read, judged and kept here."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from domain.errors import (
    GatewayError,
    InstanceMismatch,
    InstanceRejected,
    MalformedInstance,
    OutOfSpace,
    StorageError,
    UnsupportedSopClass,
)
from domain.instance import Disposition, Header, Outcome, Reception
from domain.ports import Candidate, InstanceStore, StagedInstance
from volume.digest import inspect

log = logging.getLogger(__name__)

_READERS = 2
"""Threads that read finished instances while a request still goes on; most of their time is hashing."""

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """What is taken."""

    refused_sop_classes: frozenset[str] = frozenset({MEDIA_STORAGE_DIRECTORY})
    """A DICOMDIR describes a medium; it is nothing to store."""


class Intake:
    """The ``InstanceSink`` of every transport. Thread-safe."""

    def __init__(
        self,
        store: InstanceStore,
        settings: IntakeSettings | None = None,
        *,
        on_kept: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the way into ``store``; ``on_kept`` is called after each commit that kept anything."""
        self._store = store
        self._on_kept = on_kept
        self._settings = settings or IntakeSettings()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    def stage(self) -> StagedInstance:
        """See ``InstanceSink.stage``."""
        return _Staged(self._store.stage(), self._readers)

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        """See ``InstanceSink.commit``."""
        try:
            judged = [self._judge(item, reception) for item in staged]
            candidates = [item for item in judged if isinstance(item, Candidate)]
            kept = iter(self._store.keep(candidates, reception) if candidates else ())
        finally:
            for item in staged:
                item.discard()
        if candidates:
            self._on_kept()
        outcomes = [next(kept) if isinstance(item, Candidate) else item for item in judged]
        self._report(outcomes, reception)
        return outcomes

    def _judge(self, staged: StagedInstance, reception: Reception) -> Candidate | Outcome:
        """Return what may be kept, or the refusal."""
        try:
            header, digest = staged.read() if isinstance(staged, _Staged) else inspect(staged.path)
        except MalformedInstance as error:
            return _unread(error, reception)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OutOfSpace("No room to inflate a staged instance") from error
            raise StorageError("A staged instance could not be read") from error
        fault = self._fault(header, reception)
        kept = staged.inner if isinstance(staged, _Staged) else staged
        return Candidate(staged=kept, header=header, digest=digest) if fault is None else _refused(header, fault)

    def _fault(self, header: Header, reception: Reception) -> InstanceRejected | None:
        """Compare the dataset with what the transport said about it (PS3.7 9.1.1, PS3.18 10.5.1)."""
        expected = (
            ("SOPClassUID", header.sop_class_uid, reception.expected_sop_class_uid, "the request"),
            ("SOPInstanceUID", header.sop_instance_uid, reception.expected_sop_instance_uid, "the request"),
            ("StudyInstanceUID", header.study_instance_uid, reception.expected_study_instance_uid, "the URL"),
        )
        for keyword, said, wanted, where in expected:
            if wanted is not None and wanted != said:
                return InstanceMismatch(f"{keyword} of the dataset is not that of {where}")
        if header.sop_class_uid in self._settings.refused_sop_classes:
            return UnsupportedSopClass()
        return None

    def _report(self, outcomes: Sequence[Outcome], reception: Reception) -> None:
        for outcome in outcomes:
            if outcome.error is not None:
                log.warning(
                    "instance refused",
                    extra={
                        "error": type(outcome.error).__name__,
                        "why": str(outcome.error),
                        "sop_class": outcome.sop_class_uid,
                        "transport": reception.transport,
                        "sender": reception.sender,
                    },
                )


class _Staged:
    """A ``StagedInstance`` that is read while others are still received, if its writer says when it is whole."""

    def __init__(self, inner: StagedInstance, readers: Executor) -> None:
        self.inner = inner
        self._readers = readers
        self._reading: Future[tuple[Header, str]] | None = None

    @property
    def path(self) -> Path:
        """See ``StagedInstance.path``."""
        return self.inner.path

    def write(self, data: bytes | memoryview) -> None:
        """See ``StagedInstance.write``."""
        self.inner.write(data)

    def finish(self) -> None:
        """See ``StagedInstance.finish``."""
        self.inner.finish()
        self._reading = self._readers.submit(inspect, self.inner.path)

    def begin_sync(self) -> None:
        """See ``StagedInstance.begin_sync``."""
        self.inner.begin_sync()

    def read(self) -> tuple[Header, str]:
        """Return header and digest."""
        if self._reading is not None:
            return self._reading.result()
        self.inner.begin_sync()
        return inspect(self.inner.path)

    def discard(self) -> None:
        """See ``StagedInstance.discard``."""
        if self._reading is not None:
            self._reading.cancel()
        self.inner.discard()


def _unread(error: MalformedInstance, reception: Reception) -> Outcome:
    """Refuse what could not be read, naming the instance as far as it could be."""
    refusal: GatewayError = error
    in_request = {
        "SOPClassUID": reception.expected_sop_class_uid,
        "SOPInstanceUID": reception.expected_sop_instance_uid,
    }
    if in_request.get(error.attribute or "") is not None:
        # Empty or impossible in the dataset: then it is not what the command named (PS3.4 Table B.2-1, A9xx).
        refusal = InstanceMismatch(f"{error}, and so is not that of the request")
        refusal.__cause__ = error
    return Outcome(
        disposition=Disposition.REFUSED,
        sop_class_uid=error.sop_class_uid,
        sop_instance_uid=error.sop_instance_uid,
        study_instance_uid=error.study_instance_uid,
        error=refusal,
    )


def _refused(header: Header, error: InstanceRejected) -> Outcome:
    return Outcome(
        disposition=Disposition.REFUSED,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        study_instance_uid=header.study_instance_uid,
        error=error,
    )
