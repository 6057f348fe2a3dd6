"""Settings, Orthanc's REST API, and Voxgate as Orthanc reaches it: what ``voxgate_autorouting`` is built from."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

# Of the ranges that Orthanc leaves to its users (1024 to 65535); never change them, they name what is stored.
GLOBAL_PROPERTY = 4317
METADATA = 4317

# A call takes some 20 µs.
JOB_POLL_S = 0.1
# OrthancPluginErrorCode: InexistentItem, UnknownResource.
ABSENT = (7, 17)
HTTP_TIMEOUT_S = 3.0
# More than Orthanc runs at a time, so that the one waited for is among them.
OUTCOMES_KEPT = 100
DIMSE_STATUS = re.compile(r"DIMSE status 0x[0-9A-Fa-f]{4}")


@dataclass(frozen=True)
class Settings:
    """The section "Voxgate" of Orthanc's configuration; its keys are these names in CamelCase."""

    enabled: bool = True
    target: str = "voxgate"
    """Name in DicomModalities, or in DicomWeb.Servers where the protocol is ``stow``."""
    protocol: str = "dimse"
    """``dimse`` or ``stow``."""
    modalities: tuple[str, ...] = ("CT", "MR")
    http_url: str = ""
    """Where Voxgate's HTTP port is, e.g. ``http://127.0.0.1:5000``: it is told how many instances to expect."""
    http_token: str = field(default="", repr=False)
    retry_seconds: float = 5.0
    """Before the second attempt; doubled before each further one."""
    maximum_retry_seconds: float = 600.0
    stall_seconds: float = 300.0
    """A transfer without any progress for so long is cancelled."""

    @classmethod
    def from_configuration(cls, section: Mapping[str, Any]) -> Settings:
        """Return the settings of a configuration section.

        Raises
        ------
        ValueError
            Lists every unknown key and every bad value.
        """
        keys = {"".join(word.capitalize() for word in f.name.split("_")): f for f in fields(cls)}
        faults = [f"Voxgate.{key}: unknown" for key in section if key not in keys]
        values: dict[str, Any] = {}
        for key, known in keys.items():
            if key in section:
                try:
                    values[known.name] = _checked(known.name, section[key])
                except ValueError as error:
                    faults.append(f"Voxgate.{key}: {error}")
        if faults:
            raise ValueError("; ".join(faults))
        return cls(**values)

    def backoff_s(self, attempts: int) -> float:
        """Return how long to wait after that many failed attempts."""
        return min(self.retry_seconds * 2.0 ** min(attempts - 1, 32), self.maximum_retry_seconds)


def _checked(name: str, value: Any) -> Any:
    if name == "enabled":
        return _of_type(value, bool, "true or false")
    if name == "modalities":
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise ValueError("must be a list of modalities")
        return tuple(item.strip().upper() for item in value)
    if name.endswith("_seconds"):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError("must be a number of seconds above 0")
        return float(value)
    text = _of_type(value, str, "a text")
    if name == "protocol" and text not in ("dimse", "stow"):
        raise ValueError('must be "dimse" or "stow"')
    if name == "http_url" and text and urllib.parse.urlsplit(text).scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    return text


def _of_type(value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"must be {expected}")  # noqa: TRY004 - a fault of the configuration, not of the program
    return value


class Orthanc:
    """Orthanc's REST API and database as this plug-in needs them; ``sdk`` is the plug-in's module ``orthanc``.

    The plug-in holds Python's global lock during a call, so every call here must be a short one: transfers are
    started as jobs of Orthanc and asked for, never waited for inside a call.
    """

    def __init__(self, sdk: Any) -> None:
        self._sdk = sdk
        self.configuration: Mapping[str, Any] = json.loads(sdk.GetConfiguration())
        registered: Mapping[str, Any] = self.configuration.get("UserMetadata") or {}
        self._metadata_name = next((name for name, number in registered.items() if number == METADATA), str(METADATA))

    def get(self, path: str) -> Any:
        """Return the answer, ``None`` where there is no such resource.

        Raises
        ------
        RestError
            Anything else, e.g. a database that is locked: that says nothing about the resource.
        """
        try:
            return json.loads(self._sdk.RestApiGetAfterPlugins(path))
        except self._sdk.OrthancException as error:
            if error.args[0] in ABSENT:
                return None
            raise RestError(str(error.args[1])) from error

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer; raises ``RestError`` where Orthanc did not carry out the request."""
        try:
            return json.loads(self._sdk.RestApiPostAfterPlugins(path, json.dumps(body)))
        except self._sdk.OrthancException as error:
            raise RestError(str(error.args[1])) from error

    def acknowledged(self, series: str) -> set[str]:
        """Return the keys (see ``instance_key``) of the instances of a series that Voxgate acknowledged."""
        # Asking for an absent item would put an error into Orthanc's log, asking for all does not.
        metadata = self.get(f"/series/{series}/metadata?expand") or {}
        try:
            return set(json.loads(metadata.get(self._metadata_name, "{}"))["acknowledged"].split())
        except (KeyError, ValueError, AttributeError, TypeError):
            return set()

    def acknowledge(self, series: str, keys: Iterable[str]) -> None:
        """Remember the acknowledged instances; nothing to do when the series was deleted meanwhile."""
        ordered = sorted(keys)
        value = {"instances": len(ordered), "at": _now(), "acknowledged": " ".join(ordered)}
        try:
            self._sdk.RestApiPut(f"/series/{series}/metadata/{METADATA}", json.dumps(value))
        except self._sdk.OrthancException:
            self.log("could not write metadata of the series", series=series)

    def load(self) -> dict[str, Any]:
        """Return what ``save`` wrote, empty where it never did."""
        try:
            state = json.loads(self._sdk.GetGlobalProperty(GLOBAL_PROPERTY, "") or "{}")
        except ValueError:
            state = None
        if not isinstance(state, dict):
            self.log("what an earlier run left cannot be read: beginning anew", property=GLOBAL_PROPERTY)
            state = {}
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state in one transaction of Orthanc's database."""
        self._sdk.SetGlobalProperty(GLOBAL_PROPERTY, json.dumps(state, separators=(",", ":")))

    def log(self, message: str, **facts: object) -> None:
        """Write one line; Orthanc shows warnings by default, and nothing below."""
        self._sdk.LogWarning(f"Voxgate: {message} {json.dumps(facts)}" if facts else f"Voxgate: {message}")


class RestError(Exception):
    """Orthanc's REST API did not do what was asked; the message is Orthanc's for that code, which quotes nothing."""


class SendFailed(RestError):
    """The target did not acknowledge every instance of a transfer."""


class Stopping(Exception):
    """Orthanc is about to end."""


def instance_key(instance: str) -> str:
    """Return 64 bits of the hash that Orthanc calls an instance: enough to tell the instances of one series."""
    return instance.replace("-", "")[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Target:
    """Voxgate as Orthanc reaches it."""

    def __init__(self, orthanc: Orthanc, settings: Settings, stopping: threading.Event) -> None:
        self._orthanc = orthanc
        self._settings = settings
        self._stopping = stopping
        self._outcomes: deque[tuple[str, bool]] = deque(maxlen=OUTCOMES_KEPT)
        # No proxy: the gateway is in the same network, and a proxy would see UIDs.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def note_outcome(self, job: str, success: bool) -> None:
        """Take note of Orthanc's event; a job may leave Orthanc's short history before it is asked for."""
        self._outcomes.append((job, success))

    def send(self, instances: Sequence[str]) -> None:
        """Transfer instances and return when each is acknowledged.

        Raises
        ------
        SendFailed
            At least one was not; which ones is not known.
        """
        name = urllib.parse.quote(self._settings.target, safe="")
        if self._settings.protocol == "stow":
            answer = self._orthanc.post(
                f"{self._dicomweb_root()}/servers/{name}/stow", {"Resources": list(instances), "Synchronous": False}
            )
        else:
            answer = self._orthanc.post(
                f"/modalities/{name}/store",
                # Permissive would go on after a failure, without saying which instance failed, and try to connect
                # once for every instance.
                {"Resources": list(instances), "Asynchronous": True, "Permissive": False},
            )
        self._wait(answer["ID"])

    def _wait(self, job: str) -> None:
        seen: object = None
        deadline = time.monotonic() + self._settings.stall_seconds
        while not self._has_ended(state := self._orthanc.get(f"/jobs/{job}") or {}, job):
            # Waiting for other jobs of Orthanc to end is no fault of this transfer.
            if state.get("State") == "Pending" or state.get("Progress") != seen:
                seen = state.get("Progress")
                deadline = time.monotonic() + self._settings.stall_seconds
            elif time.monotonic() > deadline:
                self._cancel(job)
                raise SendFailed("no progress")
            if self._stopping.wait(JOB_POLL_S):
                self._cancel(job)
                raise Stopping

    def _has_ended(self, state: Mapping[str, Any], job: str) -> bool:
        """Whether a job ended well; raises ``SendFailed`` where it ended otherwise."""
        if state.get("State") == "Failure":
            # Of Orthanc's details the status alone is taken: what else they may quote is not known.
            dimse_status = DIMSE_STATUS.search(state.get("ErrorDetails", ""))
            raise SendFailed(dimse_status[0] if dimse_status else state.get("ErrorDescription"))
        if state.get("State") == "Success":
            if state.get("Content", {}).get("FailedInstancesCount", 0):
                raise SendFailed("not every instance was acknowledged")
            return True
        outcome = None if state else dict(self._outcomes).get(job)
        if outcome is False:
            raise SendFailed("Orthanc's job failed")
        return outcome is True

    def _cancel(self, job: str) -> None:
        try:
            self._orthanc.post(f"/jobs/{job}/cancel", {})
        except RestError:
            self._orthanc.log("could not cancel a job")

    def configured(self) -> bool:
        """Whether Orthanc knows the target at all."""
        stow = self._settings.protocol == "stow"
        known = self._orthanc.get(f"{self._dicomweb_root()}/servers" if stow else "/modalities")
        return self._settings.target in (known or [])

    def reachable(self) -> bool:
        """Whether the target answers at all; tells a dead target from a refused instance."""
        name = urllib.parse.quote(self._settings.target, safe="")
        if self._settings.protocol == "stow":
            server = (self._orthanc.get(f"{self._dicomweb_root()}/servers?expand") or {}).get(self._settings.target)
            return server is not None and self._http(server["Url"], {}) is not None
        try:
            self._orthanc.post(f"/modalities/{name}/echo", {})
        except RestError:
            return False
        return True

    def announce(self, series_instance_uid: str, instances: int) -> None:
        """Tell Voxgate how many instances the series has, so that it need not wait. Failing does no harm."""
        if not self._settings.http_url:
            return
        uid = urllib.parse.quote(series_instance_uid, safe="")
        url = f"{self._settings.http_url.rstrip('/')}/api/v1/series/{uid}/expected-instances"
        headers = {"Content-Type": "application/json"}
        if self._settings.http_token:
            headers["Authorization"] = f"Bearer {self._settings.http_token}"
        status = self._http(url, headers, method="PUT", body=json.dumps({"instances": instances}).encode())
        if status is None or status >= 300:
            self._orthanc.log("the number of instances could not be announced", status=status)

    def _http(
        self, url: str, headers: Mapping[str, str], *, method: str = "GET", body: bytes | None = None
    ) -> int | None:
        """Return the status, ``None`` where there was no answer."""
        # The opener knows http and https alone where the settings were checked, and Orthanc takes no other either.
        request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=HTTP_TIMEOUT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def _dicomweb_root(self) -> str:
        root = (self._orthanc.configuration.get("DicomWeb") or {}).get("Root", "/dicom-web/")
        return "/" + str(root).strip("/")
