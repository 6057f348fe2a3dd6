"""Jobs, their states, and the fate of every series."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class JobState(StrEnum):
    """Where a job is, or how it ended."""

    QUEUED = "queued"
    RUNNING = "running"
    DELIVERING = "delivering"
    DONE = "done"
    """Every object is as far at every destination as its profile can tell (or there is none configured)."""
    UNCONFIRMED = "unconfirmed"
    """Stored everywhere, but a destination did not confirm it in time; ``voxgate jobs retry`` asks again."""
    NOT_RUN = "not-run"
    """No route takes the stack, or it is refused: ``reason`` says why."""
    NOT_APPLICABLE = "not-applicable"
    """The engine looked and this is not for it."""
    FAILED = "failed"
    """Ended in an error; ``voxgate jobs retry`` runs it again."""
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Nothing more will happen by itself."""
        return self not in (JobState.QUEUED, JobState.RUNNING, JobState.DELIVERING)


class DeliveryState(StrEnum):
    """How far one object is known to have come at one destination.

    QUEUED, SENT, STORED, COMMITTED, VISIBLE, as far as the destination's profile can tell; the way ends early in
    UNCONFIRMED or DEAD, or goes on with another object: REPLACED.
    """

    QUEUED = "queued"
    SENT = "sent"
    """On its way; no answer yet. Found after a crash: whether it is stored is not known, and it is sent again."""
    STORED = "stored"
    """The destination answered success (or a warning that means stored)."""
    COMMITTED = "committed"
    """The destination took responsibility for it (PS3.4 J)."""
    VISIBLE = "visible"
    """A query at the destination finds it."""
    UNCONFIRMED = "unconfirmed"
    """Stored, but not confirmed in time: an alarm. The reason says what is missing."""
    REPLACED = "replaced"
    """The destination does not take its SOP class: another object was queued in its place. The reason says which."""
    DEAD = "dead"
    """Given up; the reason is beside it."""

    @property
    def is_stored(self) -> bool:
        """The destination has it, and nothing that was asked for is missing."""
        return self in (DeliveryState.STORED, DeliveryState.COMMITTED, DeliveryState.VISIBLE)

    @property
    def ended_well(self) -> bool:
        """Nothing is missing: the destination has it, or gets another object in its place."""
        return self.is_stored or self is DeliveryState.REPLACED

    @property
    def is_unsent(self) -> bool:
        """The destination has not said that it stored it; sending it is what comes next."""
        return self in (DeliveryState.QUEUED, DeliveryState.SENT)

    def has_reached(self, target: DeliveryState) -> bool:
        """Tell whether the object is as far as ``target``, one of STORED, COMMITTED and VISIBLE."""
        order = (DeliveryState.STORED, DeliveryState.COMMITTED, DeliveryState.VISIBLE)
        return self in order and order.index(self) >= order.index(target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stack on one route; or, with an empty route, the statement why nothing runs on it."""

    job_id: str
    series_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    stack: str
    sop_instance_uids: tuple[str, ...] = field(repr=False)
    """In slice order once assembled, otherwise as received. An enhanced image stands there once for each frame."""
    frame_numbers: tuple[int | None, ...] = ()
    """Which frame of each instance; empty where all are whole instances."""
    route: str = ""
    engine: str = ""
    engine_version: str = ""
    destinations: tuple[str, ...] = ()
    priority: int = 10
    """Lower first; STAT is 1."""
    generation: int = 1
    predecessor: str | None = None
    """Job of the earlier, smaller set of the same stack on the same route, or of the drawing before it was edited."""
    drawing: str = field(default="", repr=False)
    """SOP Instance UID of the object in which its prompt was drawn; empty where none was."""
    state: JobState = JobState.QUEUED
    code: str = ""
    """Named cause, e.g. ``missing-slices`` or ``no-route``."""
    reason: str = ""
    attempt: int = 1
    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds per step: ``assemble``, ``engine``, ``encode``, ``verify``, ``deliver``."""
    summary: list[dict[str, object]] = field(default_factory=list)
    """Per segment: label, volume_ml, measurements. For tables; no patient data."""
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """One DICOM object that a job wrote."""

    job_id: str
    kind: str
    """``SEG``, ``SR`` …: see ``dicom_out.kinds``."""
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    path: Path
    variant: str = ""
    """Names it among the objects of its job, e.g. a SEG with options; the instances of one variant share it."""
    needs: str = ""
    """Variant of the SEG to which it refers."""
    fallback: str = ""
    """Variant that goes to a destination that does not take this one's SOP class."""
    destinations: tuple[str, ...] | None = None
    """Who gets it in the first place; empty where it only stands in for another, ``None`` for every destination."""

    def is_for(self, destination: str) -> bool:
        """Tell whether a destination gets it in the first place."""
        return self.destinations is None or destination in self.destinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """State of one object at one destination."""

    job_id: str
    destination: str
    sop_instance_uid: str = field(repr=False)
    state: DeliveryState = DeliveryState.QUEUED
    attempts: int = 0
    reason: str = ""
    updated_at: datetime | None = None
