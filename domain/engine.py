"""An engine as the rest of the gateway sees it: its manifest, its case, and which route leads to it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from domain.codes import Code
from domain.context import StudyContext as StudyContext
from domain.errors import NotApplicable
from domain.findings import SegmentDescription

if TYPE_CHECKING:
    from domain.findings import Findings
    from domain.image import Image
    from domain.prompt import Prompt
    from domain.series import SeriesFacts
    from domain.volume import Volume

# Manufacturer (0008,0070) of everything Voxgate writes; by it the loop guard knows its own results.
OWN_MANUFACTURER = "Voxgate"

# UUIDv5 name space of everything Voxgate derives; never change it: UIDs of sent objects depend on it.
NAMESPACE = uuid.UUID("6c1f0f0e-3d0b-5d0c-9a53-6f2b1d1c7a4e")


def derived_uid(*parts: str) -> str:
    """Return the UID ``2.25.<UUIDv5 of parts>`` (PS3.5 B.2): the same parts always give the same UID."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(parts)).int}"


class Answer(Enum):
    """Outcome of a condition; ``UNKNOWN`` when a fact it needs is missing."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer with its reason, in words a PACS administrator understands."""

    answer: Answer
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineManifest:
    """What an engine declares about itself; read from the TOML beside it."""

    name: str
    version: str
    title: str
    device: str
    """``cpu``, or the queue of the device that the operator gave it (``queue_of_device``)."""
    algorithm_name: str
    algorithm_family: Code
    """CID 7162."""
    manufacturer: str
    licence: str
    intended_use: str
    segments: tuple[SegmentDescription, ...]
    finding_site: Code | None = None
    weights_digest: str = ""
    """SHA-256 of the weights; empty for an algorithm without weights."""
    deadline_s: int = 1800
    """A case that runs longer is taken to hang."""
    settings: str = ""
    """The operator's settings that change what comes out, e.g. a window; empty where all are the engine's own."""
    takes_prompts: bool = False
    """It segments what it is pointed at (``domain.prompt``)."""

    @property
    def device_uid(self) -> str:
        """Changes whenever name, version or weights change (IHE AIR: the device is the model)."""
        return derived_uid("engine", self.name, self.version, self.weights_digest)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One piece of work for an engine: a volume, or images without patient coordinates.

    A mask of several images lies on the first of them.
    """

    volume: Volume | None = None
    images: tuple[Image, ...] = ()
    priors: int = 0
    """So many images, the last ones, are of earlier studies of the patient."""
    context: StudyContext = StudyContext()
    options: Mapping[str, object] = field(default_factory=dict)
    prompt: Prompt | None = None
    """What to look for, for engines that are pointed at something."""
    progress: Callable[[float], None] | None = None
    """Called with the share that is done (0 to 1) by engines that can tell."""

    def the_volume(self) -> Volume:
        """Return the volume.

        Raises
        ------
        NotApplicable
            There are only images.
        """
        if self.volume is None:
            raise NotApplicable("The engine works on volumes, and these images have no patient coordinates.")
        return self.volume


def job_id(
    sop_instance_uids: tuple[str, ...],
    *,
    route: str,
    engine: EngineManifest,
    options: str = "",
    prompt: str = "",
) -> str:
    """Return the identity of a job: 40 hex digits that name nobody.

    The same instances, route, engine (name, version, weights, settings), options and prompt give the same job,
    however often and by whichever way the instances arrive.
    """
    digest = hashlib.sha256()
    own = (engine.settings,) if engine.settings else ()
    for part in (
        *sorted(sop_instance_uids), route, engine.name, engine.version, engine.weights_digest, options, prompt, *own,
    ):  # fmt: skip
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:40]


def queue_of_device(device: str) -> str | None:
    """Return the queue of a CUDA device as settings write it: ``gpu`` for ``cuda:0``, ``gpu-1`` for ``cuda:1``.

    ``None`` for what is no CUDA device: such engines share the queue of the CPU.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        return None
    return f"gpu-{int(number)}" if int(number or 0) else "gpu"


class Engine(Protocol):
    """A model that turns a case into findings."""

    @property
    def manifest(self) -> EngineManifest: ...

    def load(self) -> None:
        """Read the weights. Called once, in the worker that will call ``run``."""
        ...

    def run(self, case: Case) -> Findings:
        """Return what was found, on the case's own grid.

        Blocking and not thread-safe: the caller holds the device.

        Raises
        ------
        NotApplicable
            The engine looked, and this series is not for it.
        EngineUnavailable
            Out of memory, or the device is gone. Retryable.
        EngineFailed
            The model cannot handle this case.
        """
        ...


class EngineRegistry(Protocol):
    """The engines of this installation. Listing them imports no model library."""

    def manifests(self) -> tuple[EngineManifest, ...]: ...

    def manifest(self, name: str) -> EngineManifest:
        """Raise ``EngineFailed`` when there is no such engine."""
        ...

    def accepts(self, name: str, facts: SeriesFacts) -> Verdict:
        """Tell whether the engine can work on such a series, by header facts alone."""
        ...

    def engine(self, name: str) -> Engine:
        """Return the engine, loaded; kept for the life of the process."""
        ...
