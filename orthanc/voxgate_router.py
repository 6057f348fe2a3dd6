"""Forwards every new instance of a stable CT or MR series to Voxgate until it is acknowledged.

What is remembered, and where, all in Orthanc's own database:

* a global property holds how far Orthanc's log of changes was read and which series still wait. Orthanc's list of
  unstable series is in memory only, so "stable series" never fires for what arrived in the minute before a crash:
  the log of changes is therefore what counts, the event only saves waiting;
* metadata of each series hold the instances that Voxgate acknowledged, so that late slices alone are sent.

The log shows Orthanc's identifiers (hashes), counts and error codes, never an attribute of a patient.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from voxgate_rest import Orthanc, RestError, Settings, Stopping, Target, instance_key

# Finds one bad instance among a thousand (10 halvings), and gives up when nearly all are refused.
FAILED_SENDS_PER_ATTEMPT = 24
CHANGES_PER_PAGE = 1000
UNSTABLE_RECHECK_S = 2.0
SAVE_S = 1.0
IDLE_S = 10.0
# One wake-up for a burst of events.
COALESCE_S = 0.1
OnChange = Callable[[Any, Any, str], None]


@dataclass
class Waiting:
    """A series that may hold instances that Voxgate has not acknowledged."""

    due: float
    """Monotonic time of the next attempt."""
    attempts: int = 0
    reason: str = "arriving"


class Backlog:
    """The series that wait, and how far the log of changes was read: saved together, so that none is lost.

    A saved state that lags behind does no harm: the series is examined once more.
    """

    def __init__(self, orthanc: Orthanc) -> None:
        self._orthanc = orthanc
        self._saved_at = time.monotonic()
        self._changed = False
        self.cursor = 0
        self.waiting: dict[str, Waiting] = {}

    def load(self, *, due: float) -> None:
        """Read what an earlier run left. The first run ever begins now: an archive is not forwarded as a whole."""
        state = self._orthanc.load()
        if {"cursor", "waiting"} <= state.keys():
            self.cursor = int(state["cursor"])
            self.waiting = {
                series: Waiting(due=due, attempts=int(attempts), reason="Orthanc was started again")
                for series, attempts in state["waiting"].items()
            }
        else:
            self.cursor = int((self._orthanc.get("/changes?last") or {}).get("Last", 0))
            self._changed = True
            self.save()

    def arrived(self, series: str, *, due: float) -> None:
        """Note that a series has new instances."""
        self.waiting[series] = Waiting(due=due)
        self._changed = True

    def advance(self, cursor: int) -> None:
        """Note how far the log of changes was read."""
        self._changed = self._changed or cursor != self.cursor
        self.cursor = cursor

    def failed(self, series: str, reason: str, *, due: float, attempts: int) -> None:
        """Note a failed attempt."""
        self.waiting[series] = Waiting(due=due, attempts=attempts, reason=reason)
        self._changed = True

    def settled(self, series: str) -> None:
        """Note that nothing of the series waits any more."""
        self._changed = self.waiting.pop(series, None) is not None or self._changed

    def save(self) -> None:
        """Write the state where it changed."""
        if self._changed:
            attempts = {series: item.attempts for series, item in self.waiting.items()}
            self._orthanc.save({"cursor": self.cursor, "waiting": attempts})
            self._changed = False
        self._saved_at = time.monotonic()

    def save_soon(self) -> float:
        """Write the state unless it was written a moment ago, so that a burst of instances is one write.

        Returns
        -------
        float
            Seconds after which to call again; infinite when everything is written.
        """
        left_s = self._saved_at + SAVE_S - time.monotonic()
        if left_s <= 0:
            self.save()
        return left_s if self._changed else math.inf


class Router:
    """One thread that reads Orthanc's changes and forwards, one series at a time.

    ``on_change`` and ``status`` are called by Orthanc's threads and only look or set flags.
    """

    def __init__(self, orthanc: Orthanc, settings: Settings, change_type: Any) -> None:
        self._orthanc = orthanc
        self._settings = settings
        self._change_type = change_type
        self._stable_age_s = float(orthanc.configuration.get("StableAge", 60))
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._target = Target(orthanc, settings, self._stopping)
        self._backlog = Backlog(orthanc)
        self._failures = 0
        """Of the target itself, in a row."""
        self._target_due = 0.0
        self._acknowledged = 0
        self._last_acknowledged_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="voxgate-autorouting", daemon=True)

    def on_change(self, change: Any, _level: Any, resource: str) -> None:
        """Take note of an event of Orthanc."""
        kinds = self._change_type
        if change == kinds.ORTHANC_STARTED:
            self._thread.start()
        elif change == kinds.ORTHANC_STOPPED:
            self._stop()
        elif change in (kinds.JOB_SUCCESS, kinds.JOB_FAILURE):
            self._target.note_outcome(resource, success=change == kinds.JOB_SUCCESS)
        elif change in (kinds.NEW_INSTANCE, kinds.STABLE_SERIES):
            self._wake.set()

    def status(self) -> dict[str, object]:
        """Return what an administrator wants to know: what waits and why."""
        now = time.monotonic()
        waiting = dict(self._backlog.waiting)
        last = self._last_acknowledged_at
        return {
            "target": self._settings.target,
            "protocol": self._settings.protocol,
            "failed_attempts_in_a_row": self._failures,
            "next_attempt_in_s": round(max(0.0, self._target_due - now), 1),
            "acknowledged_since_start": self._acknowledged,
            "last_acknowledged_s_ago": None if last is None else round(now - last, 1),
            "waiting": len(waiting),
            "series": [
                {
                    "orthanc_id": series,
                    "attempts": item.attempts,
                    "reason": item.reason,
                    "due_in_s": round(max(0.0, item.due - now), 1),
                }
                for series, item in list(waiting.items())[:100]
            ],
        }

    def _stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        # After a restart Orthanc calls every series stable, also one that is still arriving.
        self._backlog.load(due=time.monotonic() + self._stable_age_s)
        self._orthanc.log("forwarding to", target=self._settings.target, waiting=len(self._backlog.waiting))
        if not self._target.configured():
            self._orthanc.log("the target is not configured in Orthanc", target=self._settings.target)
        while not self._stopping.is_set():
            try:
                self._read_changes()
                self._forward_due()
                idle_s = min(IDLE_S, self._backlog.save_soon())
            except Stopping:
                break
            except Exception as error:
                self._orthanc.log("unexpected error", error=type(error).__name__)
                idle_s = self._settings.retry_seconds
                self._stopping.wait(idle_s)
            self._wait(idle_s)
        self._backlog.save()

    def _wait(self, idle_s: float) -> None:
        now = time.monotonic()
        dues = [max(item.due, self._target_due) for item in self._backlog.waiting.values()]
        self._wake.wait(min(max(0.0, min(dues, default=math.inf) - now), idle_s))
        self._stopping.wait(COALESCE_S)
        self._wake.clear()

    def _read_changes(self) -> None:
        done = False
        while not done and not self._stopping.is_set():
            page = self._orthanc.get(f"/changes?since={self._backlog.cursor}&limit={CHANGES_PER_PAGE}")
            if page is None:
                return
            for change in page["Changes"]:
                self._note(change)
            self._backlog.advance(int(page["Last"]) if page["Changes"] else self._backlog.cursor)
            done = bool(page["Done"]) or not page["Changes"]

    def _note(self, change: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if change["ChangeType"] == "NewInstance":
            instance = self._orthanc.get(f"/instances/{change['ID']}")
            if instance is not None:
                self._backlog.arrived(instance["ParentSeries"], due=now + self._stable_age_s)
        elif change["ChangeType"] == "StableSeries":
            self._backlog.arrived(change["ID"], due=now)

    def _forward_due(self) -> None:
        for series, item in sorted(self._backlog.waiting.items(), key=lambda pair: pair[1].due):
            now = time.monotonic()
            if self._stopping.is_set() or now < self._target_due or now < item.due:
                return
            try:
                self._attempt(series, item)
            except RestError as error:
                self._retry(series, str(error), item.attempts + 1)
            self._backlog.save_soon()

    def _attempt(self, series: str, item: Waiting) -> None:
        facts = self._orthanc.get(f"/series/{series}")
        if facts is None or not eligible(facts["MainDicomTags"], self._settings):
            self._backlog.settled(series)
        elif not facts["IsStable"]:
            item.due = time.monotonic() + UNSTABLE_RECHECK_S
        else:
            self._forward(series, facts, item.attempts)

    def _forward(self, series: str, facts: Mapping[str, Any], attempts: int) -> None:
        acknowledged = self._orthanc.acknowledged(series)
        missing = sorted(one for one in facts["Instances"] if instance_key(one) not in acknowledged)
        if missing:
            self._target.announce(facts["MainDicomTags"]["SeriesInstanceUID"], len(facts["Instances"]))
            refusal = self._transfer(series, missing, acknowledged)
            if refusal is not None:
                self._retry(series, refusal, attempts + 1)
                return
        self._backlog.settled(series)

    def _transfer(self, series: str, missing: list[str], acknowledged: set[str]) -> str | None:
        """Send, remember what was acknowledged, and return why the rest was not; ``None`` when all was."""
        refusal: str | None = None
        failures = 0
        parts = [missing]
        while parts and failures < FAILED_SENDS_PER_ATTEMPT:
            part = parts.pop()
            try:
                self._target.send(part)
            except RestError as error:
                refusal, failures = str(error), failures + 1
                if not self._target.reachable():
                    self._target_failed(refusal)
                    break
                self._target_answers()
                # One refused instance must not keep the others back.
                half = len(part) // 2
                parts += [part[half:], part[:half]] if half else []
            else:
                self._target_answers()
                self._acknowledge(series, part, acknowledged)
        return None if all(instance_key(one) in acknowledged for one in missing) else refusal

    def _acknowledge(self, series: str, sent: list[str], acknowledged: set[str]) -> None:
        acknowledged.update(instance_key(one) for one in sent)
        self._orthanc.acknowledge(series, acknowledged)
        self._acknowledged += len(sent)
        self._last_acknowledged_at = time.monotonic()
        self._orthanc.log("acknowledged", series=series, instances=len(sent))

    def _target_answers(self) -> None:
        self._failures, self._target_due = 0, 0.0

    def _target_failed(self, reason: str) -> None:
        self._failures += 1
        wait_s = self._settings.backoff_s(self._failures)
        self._target_due = time.monotonic() + wait_s
        self._orthanc.log("target does not answer", failures=self._failures, retry_in_s=wait_s, reason=reason)

    def _retry(self, series: str, reason: str, attempts: int) -> None:
        # Where the target does not answer at all, the series has done nothing wrong: it goes with the target.
        wait_s = 0.0 if self._target_due else self._settings.backoff_s(attempts)
        self._backlog.failed(series, reason, due=time.monotonic() + wait_s, attempts=attempts)
        if wait_s:
            self._orthanc.log(
                "not every instance was acknowledged",
                series=series,
                attempts=attempts,
                retry_in_s=wait_s,
                reason=reason,
            )


def eligible(tags: Mapping[str, str], settings: Settings) -> bool:
    """Whether a series is forwarded: CT and MR, and never what a Voxgate made."""
    modality = tags.get("Modality", "").strip().upper()
    manufacturer = tags.get("Manufacturer", "").strip().casefold()
    return modality in settings.modalities and manufacturer != "voxgate"


def install(sdk: Any, *, also: OnChange | None = None) -> None:
    """Join the parts and register them with Orthanc, unless the configuration turns forwarding off.

    Parameters
    ----------
    sdk
        The plug-in's module ``orthanc``.
    also
        Called after our own callback for changes: Orthanc takes but one.
    """
    callbacks = [also] if also else []
    orthanc = Orthanc(sdk)
    settings = Settings.from_configuration(orthanc.configuration.get("Voxgate") or {})
    if settings.enabled:
        router = Router(orthanc, settings, sdk.ChangeType)
        callbacks.insert(0, router.on_change)
        sdk.RegisterRestCallback("/voxgate/status", partial(_answer_status, router))
    else:
        orthanc.log("forwarding is turned off")

    def on_change(change: Any, level: Any, resource: str) -> None:
        for callback in callbacks:
            callback(change, level, resource)

    if callbacks:
        sdk.RegisterOnChangeCallback(on_change)


def _answer_status(router: Router, output: Any, _uri: str, **request: Any) -> None:
    if request["method"] == "GET":
        output.AnswerBuffer(json.dumps(router.status(), indent=2), "application/json")
    else:
        output.SendMethodNotAllowed("GET")
