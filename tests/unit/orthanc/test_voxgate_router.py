"""The plug-in's decisions, with Orthanc's module ``orthanc`` played by memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

import pytest
import voxgate_rest
import voxgate_router
from hypothesis import given, settings
from hypothesis import strategies as st
from voxgate_rest import Orthanc, SendFailed, Settings, Target, instance_key
from voxgate_router import Backlog, Router, eligible

SERIES = "5e71e500-00000000-00000000-00000000-00000000"


class OrthancException(Exception):
    """As the plug-in's: code and text."""


class ChangeType(Enum):
    ORTHANC_STARTED = auto()
    ORTHANC_STOPPED = auto()
    NEW_INSTANCE = auto()
    STABLE_SERIES = auto()
    JOB_SUCCESS = auto()
    JOB_FAILURE = auto()


class FakeOrthanc:
    """Orthanc's plug-in module in memory: one series, a target that takes what ``takes`` says."""

    OrthancException = OrthancException
    ChangeType = ChangeType

    def __init__(self, instances: int = 0, **configuration: Any) -> None:
        self.configuration = {"StableAge": 0, "DicomModalities": {"voxgate": []}, **configuration}
        self.instances = [f"{n:08x}-{n:08x}-0000" for n in range(instances)]
        self.changes = [("NewInstance", one) for one in self.instances]
        self.manufacturer = "TEST"
        self.metadata: dict[str, str] = {}
        self.properties: dict[int, str] = {}
        self.sent: list[list[str]] = []
        self.cancelled: list[str] = []
        self.lines: list[str] = []
        self.takes: Callable[[str], bool] = lambda instance: True
        self.answers_echo = True
        self.forgets_jobs = False
        self.stalls = False
        self.locked = False
        self.on_job: Callable[[str, bool], None] = lambda job, success: None
        self._jobs: dict[str, dict[str, Any]] = {}

    def series(self) -> dict[str, Any]:
        """What ``GET /series/…`` answers."""
        tags = {"Modality": "CT", "Manufacturer": self.manufacturer, "SeriesInstanceUID": "1.2"}
        return {"Instances": self.instances, "IsStable": True, "MainDicomTags": tags}

    def GetConfiguration(self) -> str:
        return json.dumps(self.configuration)

    def GetGlobalProperty(self, number: int, default: str) -> str:
        return self.properties.get(number, default)

    def SetGlobalProperty(self, number: int, value: str) -> None:
        self.properties[number] = value

    def LogWarning(self, line: str) -> None:
        self.lines.append(line)

    def RestApiPut(self, path: str, body: str) -> None:
        self.metadata[path.rsplit("/", 1)[1]] = body

    def RestApiGetAfterPlugins(self, path: str) -> bytes:
        if self.locked and path.startswith("/series"):
            raise OrthancException(11, "Database is locked")
        return json.dumps(self._answer(path)).encode()

    def _answer(self, path: str) -> Any:
        if path.startswith("/changes"):
            return self._page(0 if "last" in path else int(path.split("since=")[1].split("&")[0]))
        if path == "/modalities":
            return list(self.configuration["DicomModalities"])
        if path.endswith("metadata?expand"):
            return self.metadata
        if path == f"/series/{SERIES}":
            return self.series()
        if path.startswith("/instances/"):
            return {"ParentSeries": SERIES}
        if path.startswith("/jobs/") and not self.forgets_jobs:
            return self._jobs[path.rsplit("/", 1)[1]]
        raise OrthancException(17, "Unknown resource")

    def _page(self, since: int) -> dict[str, Any]:
        page = self.changes[since : since + 2]
        rows = [{"ChangeType": kind, "ID": one, "Seq": since + n + 1} for n, (kind, one) in enumerate(page)]
        last = since + len(page)
        return {"Changes": rows, "Done": last >= len(self.changes), "Last": last}

    def RestApiPostAfterPlugins(self, path: str, body: str) -> bytes:
        if path.endswith("/echo") and not self.answers_echo:
            raise OrthancException(9, "Error in the network protocol")
        if path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[2])
        if path.endswith("/store"):
            return json.dumps({"ID": self._start(json.loads(body)["Resources"])}).encode()
        return b"{}"

    def _start(self, resources: list[str]) -> str:
        job = f"job{len(self._jobs)}"
        success = self.answers_echo and all(self.takes(one) for one in resources)
        self.sent.append(resources)
        state = "Success" if success else "Failure"
        self._jobs[job] = {"State": "Running" if self.stalls else state, "Progress": 0, "ErrorCode": 9}
        if not self.stalls:
            self.on_job(job, success)
        return job


def router_of(sdk: FakeOrthanc, chosen: Settings | None = None) -> Router:
    """Return a router that hears of the end of jobs, as Orthanc's events tell it."""
    router = Router(Orthanc(sdk), chosen or Settings(), ChangeType)
    sdk.on_job = lambda job, success: router.on_change(
        ChangeType.JOB_SUCCESS if success else ChangeType.JOB_FAILURE, None, job
    )
    return router


@contextmanager
def routing(sdk: FakeOrthanc, **changed: Any) -> Iterator[Router]:
    """Run a router until the block ends. The log of changes is read from its beginning."""
    sdk.properties.setdefault(voxgate_rest.GLOBAL_PROPERTY, json.dumps({"cursor": 0, "waiting": {}}))
    router = router_of(sdk, Settings(retry_seconds=0.01, maximum_retry_seconds=0.02, **changed))
    router.on_change(ChangeType.ORTHANC_STARTED, None, "")
    try:
        yield router
    finally:
        router.on_change(ChangeType.ORTHANC_STOPPED, None, "")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxgate_rest, "JOB_POLL_S", 0.005)
    monkeypatch.setattr(voxgate_router, "COALESCE_S", 0.005)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def acknowledged(sdk: FakeOrthanc) -> set[str]:
    return set(
        json.loads(sdk.metadata.get(str(voxgate_rest.METADATA), '{"acknowledged": ""}'))["acknowledged"].split()
    )


def keys(instances: list[str]) -> set[str]:
    return {instance_key(one) for one in instances}


def test_what_was_acknowledged_is_remembered_with_the_series() -> None:
    sdk = FakeOrthanc(5)
    with routing(sdk):
        eventually(lambda: acknowledged(sdk) == keys(sdk.instances))
    assert sdk.sent == [sdk.instances]
    assert json.loads(sdk.properties[voxgate_rest.GLOBAL_PROPERTY]) == {"cursor": 5, "waiting": {}}


@settings(max_examples=30, deadline=None)
@given(bad=st.sets(st.integers(0, 99), max_size=2))
def test_every_instance_but_the_refused_ones_gets_through_in_one_attempt(bad: set[int]) -> None:
    sdk = FakeOrthanc(100)
    refused = {sdk.instances[n] for n in bad}
    sdk.takes = lambda one: one not in refused
    router = router_of(sdk)
    router._forward(SERIES, sdk.series(), 0)
    assert acknowledged(sdk) == keys([one for one in sdk.instances if one not in refused])
    assert router.status()["waiting"] == (1 if bad else 0)


def test_a_target_that_refuses_everything_is_not_asked_for_each_instance() -> None:
    sdk = FakeOrthanc(1000)
    sdk.takes = lambda one: False
    router_of(sdk)._forward(SERIES, sdk.series(), 0)
    assert len(sdk.sent) == voxgate_router.FAILED_SENDS_PER_ATTEMPT


def test_a_target_that_does_not_answer_is_tried_once_an_attempt() -> None:
    sdk = FakeOrthanc(4)
    sdk.answers_echo = False
    with routing(sdk) as router:
        eventually(lambda: len(sdk.sent) >= 3)
        assert all(part == sdk.instances for part in sdk.sent)
        assert router.status()["waiting"] == 1
        sdk.answers_echo = True
        eventually(lambda: acknowledged(sdk) == keys(sdk.instances))


def test_a_locked_database_makes_no_series_forgotten() -> None:
    sdk = FakeOrthanc(2)
    sdk.locked = True
    with routing(sdk) as router:
        eventually(lambda: any(item["attempts"] > 1 for item in router.status()["series"]))  # type: ignore[attr-defined]
        sdk.locked = False
        eventually(lambda: acknowledged(sdk) == keys(sdk.instances))


def test_the_outcome_is_known_although_orthanc_keeps_no_history_of_jobs() -> None:
    sdk = FakeOrthanc(2)
    sdk.forgets_jobs = True
    with routing(sdk):
        eventually(lambda: acknowledged(sdk) == keys(sdk.instances))
    assert len(sdk.sent) == 1


def test_a_transfer_without_progress_is_cancelled() -> None:
    sdk = FakeOrthanc(2)
    sdk.stalls = True
    target = Target(Orthanc(sdk), Settings(stall_seconds=0.05), threading.Event())
    with pytest.raises(SendFailed, match="no progress"):
        target.send(sdk.instances)
    assert sdk.cancelled == ["job0"]


def test_orthanc_ends_although_a_transfer_goes_on() -> None:
    sdk = FakeOrthanc(2)
    sdk.stalls = True
    with routing(sdk):
        eventually(lambda: bool(sdk.sent))
    assert json.loads(sdk.properties[voxgate_rest.GLOBAL_PROPERTY])["waiting"] == {SERIES: 0}


def test_own_results_are_dropped_without_a_transfer() -> None:
    sdk = FakeOrthanc(2)
    sdk.manufacturer = "Voxgate"
    with routing(sdk) as router:
        eventually(lambda: json.loads(sdk.properties[voxgate_rest.GLOBAL_PROPERTY])["cursor"] == 2)
        eventually(lambda: router.status()["waiting"] == 0)
    assert sdk.sent == []


@pytest.mark.parametrize("left", ["no JSON", "[]", '{"something": "else"}', ""])
def test_an_unreadable_state_begins_anew_at_the_end_of_the_log(left: str) -> None:
    sdk = FakeOrthanc(2)
    sdk.properties[voxgate_rest.GLOBAL_PROPERTY] = left
    backlog = Backlog(Orthanc(sdk))
    backlog.load(due=0.0)
    assert backlog.waiting == {}
    assert "waiting" in json.loads(sdk.properties[voxgate_rest.GLOBAL_PROPERTY])


def test_a_target_that_orthanc_does_not_know_is_named_in_the_log() -> None:
    sdk = FakeOrthanc(0)
    with routing(sdk, target="voxgaet"):
        eventually(lambda: any("not configured in Orthanc" in line and "voxgaet" in line for line in sdk.lines))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "CT"}, True),
        ({"Modality": "mr ", "Manufacturer": "ACME"}, True),
        ({"Modality": "CT", "Manufacturer": " voxgate "}, False),
        ({"Modality": "SEG"}, False),
        ({"Modality": "SR", "Manufacturer": "Voxgate"}, False),
        ({}, False),
    ],
)
def test_only_ct_and_mr_that_no_voxgate_made_are_eligible(tags: dict[str, str], expected: bool) -> None:
    assert eligible(tags, Settings()) is expected


def test_settings_are_read_from_camel_case_keys() -> None:
    section = {"Target": "v", "Protocol": "stow", "Modalities": ["ct"], "HttpUrl": "http://v:5000", "StallSeconds": 9}
    assert Settings.from_configuration(section) == Settings(
        target="v", protocol="stow", modalities=("CT",), http_url="http://v:5000", stall_seconds=9.0
    )


def test_every_fault_of_the_settings_is_reported_at_once() -> None:
    section = {"Enabled": "yes", "HttpUrl": "ftp://v", "StallSeconds": True, "Target": 1, "Retries": 3}
    with pytest.raises(ValueError) as raised:
        Settings.from_configuration(section)
    assert all(f"Voxgate.{key}: " in str(raised.value) for key in section)


def test_back_off_doubles_up_to_its_maximum() -> None:
    chosen = Settings(retry_seconds=5, maximum_retry_seconds=60)
    assert [chosen.backoff_s(n) for n in (1, 2, 3, 4, 5, 10_000)] == [5, 10, 20, 40, 60, 60]
