"""What follows after a destination stored something: it takes responsibility, and a query finds it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.commitment import FAILURES, NO_SUCH_INSTANCE, CommitmentLog, Committer, Finder, Reference, Transaction
from domain.errors import DeliveryError
from domain.job import Delivery, DeliveryState, Job, ResultObject
from domain.ports import JobLog
from pipeline.delivery import DeliverySettings, asked

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one destination can tell about what it stored, and how long it may take to."""

    committer: Committer | None = None
    finder: Finder | None = None
    rounds: DeliverySettings = DeliverySettings(first_retry_s=2.0, max_retry_s=1800.0, give_up_after_h=24.0)
    """When it is asked again, and after how long that ends in an alarm."""
    ask_again_s: float = 3600.0
    """A storage commitment request without an answer for so long is made anew."""

    @property
    def target(self) -> DeliveryState:
        """How far an object comes here when all goes well."""
        if self.finder is not None:
            return DeliveryState.VISIBLE
        return DeliveryState.STORED if self.committer is None else DeliveryState.COMMITTED


_STORED_IS_ALL = Profile()


class Confirming:
    """Brings deliveries from STORED to where their destination's profile ends, as far as one look can."""

    def __init__(
        self,
        *,
        jobs: JobLog,
        transactions: CommitmentLog,
        profiles: Mapping[str, Profile],
        clock: Callable[[], datetime],
    ) -> None:
        self._jobs = jobs
        self._transactions = transactions
        self._profiles = profiles
        self._clock = clock

    def profile(self, destination: str) -> Profile:
        """Return what can be asked there; nothing where nothing is configured."""
        return self._profiles.get(destination, _STORED_IS_ALL)

    def has_news(self, job: Job) -> bool:
        """Tell whether an answer came that nobody has acted upon."""
        return any(
            transaction.answered
            for destination in job.destinations
            for transaction in self._transactions.open(job.job_id, destination)
        )

    def look(self, job: Job, destination: str) -> None:
        """Ask what can be asked now and record the answers; an object that was lost there is queued again."""
        profile = self.profile(destination)
        if profile.committer is not None:
            self._act_on_answers(job, destination)
            self._ask(job, destination, profile.committer, timedelta(seconds=profile.ask_again_s))
            self._act_on_answers(job, destination)
        if profile.finder is not None:
            before = DeliveryState.STORED if profile.committer is None else DeliveryState.COMMITTED
            self._find(job, destination, profile.finder, before)

    def stop(self, job: Job, destination: str) -> None:
        """Give up: raise the alarm for what is stored and not confirmed."""
        for item in self._below(job, destination):
            self._alarm(job, item, f"{self._missing(item)} in time. {item.reason}".strip())

    def _below(self, job: Job, destination: str) -> list[Delivery]:
        target = self.profile(destination).target
        found = (item for item in self._jobs.deliveries(job.job_id) if item.destination == destination)
        return [item for item in found if item.state.is_stored and not item.state.has_reached(target)]

    def _at(self, job: Job, destination: str, state: DeliveryState) -> dict[str, Delivery]:
        return {item.sop_instance_uid: item for item in self._below(job, destination) if item.state is state}

    # ------------------------------------------------------------------------------------------ storage commitment

    def _act_on_answers(self, job: Job, destination: str) -> None:
        for transaction in self._transactions.open(job.job_id, destination):
            if transaction.answered:
                self._act_on(job, destination, transaction)
                # Closed last: acting twice after a crash does no harm, not acting would
                self._transactions.close(transaction.transaction_uid)

    def _act_on(self, job: Job, destination: str, transaction: Transaction) -> None:
        waiting = self._at(job, destination, DeliveryState.STORED)
        for uid in transaction.sop_instance_uids & set(waiting):
            if uid in transaction.committed:
                self._set(job, waiting[uid], DeliveryState.COMMITTED)
                continue
            reason = transaction.failed.get(uid)
            lost = reason == NO_SUCH_INSTANCE
            self._set(job, waiting[uid], DeliveryState.QUEUED if lost else DeliveryState.STORED, _refusal(reason))
            log.warning(
                "destination does not commit itself",
                extra={"job": job.job_id, "destination": destination, "reason": _refusal(reason), "sent_again": lost},
            )

    def _ask(self, job: Job, destination: str, committer: Committer, again: timedelta) -> None:
        """Ask about what nobody was asked about lately."""
        waiting = self._at(job, destination, DeliveryState.STORED)
        now = self._clock()
        for transaction in self._transactions.open(job.job_id, destination):
            if transaction.taken and transaction.requested_at > now - again:
                waiting = {uid: item for uid, item in waiting.items() if uid not in transaction.sop_instance_uids}
        objects = [item for item in self._jobs.objects(job.job_id) if item.sop_instance_uid in waiting]
        if not objects:
            return
        # Not derived: nobody can guess it, so nobody else can answer
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        self._transactions.begin(
            Transaction(
                transaction_uid=transaction_uid,
                job_id=job.job_id,
                destination=destination,
                sop_instance_uids=frozenset(item.sop_instance_uid for item in objects),
                requested_at=now,
            )
        )
        references = [_reference(item) for item in objects]
        try:
            error = asked(destination, lambda: committer.request(transaction_uid, references))
        except DeliveryError as broken:
            error = broken
        if error is None:
            self._transactions.taken(transaction_uid)
        else:
            self._not_answered(job, waiting, error)

    # ------------------------------------------------------------------------------------------ query

    def _find(self, job: Job, destination: str, finder: Finder, before: DeliveryState) -> None:
        waiting = self._at(job, destination, before)
        objects = [item for item in self._jobs.objects(job.job_id) if item.sop_instance_uid in waiting]
        if not objects:
            return
        try:
            found = asked(destination, lambda: finder.visible(job.study_instance_uid, objects))
        except DeliveryError as error:
            self._not_answered(job, waiting, error)
            return
        for uid in found & set(waiting):
            self._set(job, waiting[uid], DeliveryState.VISIBLE)

    # ------------------------------------------------------------------------------------------ outcomes

    def _not_answered(self, job: Job, waiting: Mapping[str, Delivery], error: DeliveryError) -> None:
        for item in waiting.values():
            if error.retryable:
                self._set(job, item, item.state, str(error))
            else:
                self._alarm(job, item, f"{self._missing(item)}: {error}")

    def _missing(self, item: Delivery) -> str:
        if item.state is DeliveryState.STORED and self.profile(item.destination).committer is not None:
            return "Stored, but storage commitment was not confirmed"
        return f"{item.state.value.capitalize()}, but not found by a query"

    def _alarm(self, job: Job, item: Delivery, reason: str) -> None:
        log.warning(
            "stored but not confirmed",
            extra={"job": job.job_id, "destination": item.destination, "reached": item.state.value, "reason": reason},
        )
        self._set(job, item, DeliveryState.UNCONFIRMED, reason)

    def _set(self, job: Job, item: Delivery, state: DeliveryState, reason: str = "") -> None:
        self._jobs.set_delivery(
            job.job_id, item.destination, item.sop_instance_uid, state=state, reason=reason, attempted=False
        )


def _reference(item: ResultObject) -> Reference:
    return Reference(sop_class_uid=item.sop_class_uid, sop_instance_uid=item.sop_instance_uid)


def _refusal(reason: int | None) -> str:
    if reason is None:
        return "The destination's answer about storage commitment leaves the object out."
    meaning = FAILURES.get(reason, "no standard meaning")
    return f"The destination answered storage commitment with failure {reason:04X}H ({meaning})."
