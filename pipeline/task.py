"""What the durable engine is asked to run."""

from __future__ import annotations

from dataclasses import dataclass

from domain.engine import derived_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A step with its arguments, under an identity that happens once.

    ``args`` of ``plan``: Series Instance UID, revision, planner's fingerprint. Of ``plan-study``: Study Instance UID,
    the series whose plan asks for it, its revision, planner's fingerprint, number. Of ``infer`` and ``encode``: job
    id, attempt (raised by an operator's retry), number (raised by automatic retries). Of ``deliver`` and ``confirm``:
    job id, destination, attempt, number.
    """

    step: str
    args: tuple[str | int, ...]
    queue: str
    priority: int = 10
    delay_s: float = 0.0

    @property
    def identity(self) -> str:
        """Names nobody: a Series Instance UID is replaced by its hash."""
        args = self.args
        if self.step == "plan":
            args = (derived_uid("series", str(args[0])), *args[1:])
        elif self.step == "plan-study":
            args = (derived_uid("study", str(args[0])), derived_uid("series", str(args[1])), *args[2:])
        return "/".join((self.step, *(str(part) for part in args)))
