"""Fakes that implement the ports in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domain.errors import GatewayError
from domain.instance import Disposition, Outcome, Reception
from domain.ports import StagedInstance


class TemporaryInstance:
    """A ``StagedInstance`` in the system's temporary folder."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self.path = Path(file.name)

    def write(self, data: bytes | memoryview) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def finish(self) -> None:
        """Every write is in the file already."""

    def begin_sync(self) -> None:
        """Nothing waits for the disk."""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass
class RecordingSink:
    """An ``InstanceSink`` in memory; set ``fail_with`` or ``refuse_with`` to make it fail or refuse."""

    fail_with: GatewayError | None = None
    refuse_with: GatewayError | None = None
    received: list[tuple[bytes, Reception]] = field(default_factory=list)

    def stage(self) -> StagedInstance:
        if self.fail_with is not None:
            raise self.fail_with
        return TemporaryInstance()

    def commit(self, staged: Sequence[StagedInstance], reception: Reception) -> list[Outcome]:
        outcomes = []
        for item in staged:
            data = item.path.read_bytes()
            item.discard()
            if self.refuse_with is not None:
                outcomes.append(Outcome(disposition=Disposition.REFUSED, error=self.refuse_with))
                continue
            self.received.append((data, reception))
            outcomes.append(Outcome(disposition=Disposition.STORED))
        return outcomes
