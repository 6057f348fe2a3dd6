"""Faults of a configuration that only several settings together, or settings and engines, can show."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from dicom_out.profile import BUILT_IN
from domain.series import StackKind
from gateway.sections import EngineSection, HttpSection, ScpSection

if TYPE_CHECKING:
    from inference.manifest import EngineDeclaration

Faults = list[tuple[str, str]]
"""Path of a setting, and what is wrong with it."""
_Engines = Mapping[str, "EngineDeclaration"]
_OF_EVERY_ENGINE = ("enabled", "device", "deadline_s")
"""Settings that the gateway itself looks at."""


def faults_between(raw: Mapping[str, Any], engines: Collection[str], *, together: bool) -> Faults:
    """Check what was read, tolerant of anything faulty in itself.

    ``engines`` are those that may be named; ``together`` tells that all parts run on this host.
    """
    from inference.registry import declarations

    declared = declarations()
    return [
        *_twice(raw), *_unknown_names(raw, engines), *_unknown_profiles(raw), *_exposed(raw),
        *_not_for_the_engine(raw, declared), *_of_other_engines(raw, declared),
        *_of_questions(raw, engines), *(_one_port_twice(raw) if together else ()), *_no_database(raw),
    ]  # fmt: skip


def _entries(raw: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = raw.get(key)
    if not isinstance(found, list | tuple):
        return []
    return [entry if isinstance(entry, Mapping) else {} for entry in found]


def _twice(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("destinations", "routes"):
        names = [entry.get("name") for entry in _entries(raw, key)]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                yield f"{key}[{index}].name", f'"{name}" is the name of {key}[{names.index(name)}] already'


def _unknown_names(raw: Mapping[str, Any], engines: Collection[str]) -> Iterator[tuple[str, str]]:
    destinations = [str(entry["name"]) for entry in _entries(raw, "destinations") if "name" in entry]
    for index, route in enumerate(_entries(raw, "routes")):
        engine = route.get("engine")
        if isinstance(engine, str) and engine not in engines:
            yield f"routes[{index}].engine", _no_engine(engine, engines)
        named = route.get("destinations")
        for place, name in enumerate(named if isinstance(named, list | tuple) else ()):
            if name not in destinations:
                known = _listed(destinations)
                yield f"routes[{index}].destinations[{place}]", f'no destination called "{name}"; known: {known}'
    for name in _section(raw, "engines"):
        if name not in engines:
            yield f"engines.{name}", _no_engine(name, engines)


def _unknown_profiles(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    own = [str(name) for name in _section(raw, "profiles")]
    for name in own:
        if name in BUILT_IN:
            yield f"profiles.{name}", f'"{name}" is a built-in profile; give yours another name and base = "{name}"'
    for index, destination in enumerate(_entries(raw, "destinations")):
        name = destination.get("profile", "default")
        if isinstance(name, str) and name not in (*BUILT_IN, *own):
            known = ", ".join([*BUILT_IN, *sorted(set(own) - set(BUILT_IN))])
            yield f"destinations[{index}].profile", f'no profile called "{name}"; known: {known}'


def _no_engine(name: str, engines: Collection[str]) -> str:
    from inference.registry import not_installed

    lacks = not_installed().get(name)
    if lacks:
        return f'the engine "{name}" needs {lacks}, which is not installed (make models)'
    return f'no engine called "{name}"; known: {_listed(engines)}'


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"


def _exposed(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Listening beyond this machine must be protected, or asked for in so many words."""
    scp, http = _section(raw, "scp"), _section(raw, "http")
    if not _is_loopback(scp.get("host", "127.0.0.1")) and not (
        _given(scp, "calling_ae_titles") or _given(scp, "addresses") or _given(scp, "allow_any_peer")
    ):
        yield (
            "scp.host",
            "listens beyond this machine: set scp.calling_ae_titles or scp.addresses, or scp.allow_any_peer = true",
        )
    if not _is_loopback(http.get("host", "127.0.0.1")) and not (
        _given(http, "token") or _given(http, "allow_unauthenticated")
    ):
        yield (
            "http.host",
            "listens beyond this machine: set http.token, or http.allow_unauthenticated = true",
        )


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, Mapping) else {}


def _given(section: Mapping[str, Any], key: str) -> bool:
    value = section.get(key)
    if isinstance(value, str):
        return bool(re.sub(r"^(0|false|no|off|f|n)$", "", value.strip(), flags=re.IGNORECASE))
    return bool(value)


def _is_loopback(host: object) -> bool:
    if str(host).lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _not_for_the_engine(raw: Mapping[str, Any], engines: _Engines) -> Iterator[tuple[str, str]]:
    """A route may ask only for what its engine can do."""
    promptable = _listed([name for name, declared in engines.items() if declared.manifest.takes_prompts])
    imaging = _listed([name for name, declared in engines.items() if StackKind.IMAGE in declared.inputs.kinds])
    for index, route in enumerate(_entries(raw, "routes")):
        engine = engines.get(str(route.get("engine")))
        if engine is None:
            continue
        name = engine.manifest.name
        for key in ("prompt", "prompts_from_dicom"):
            # An empty table is a rule without conditions
            if route.get(key, False) not in (False, None, (), []) and not engine.manifest.takes_prompts:
                yield (
                    f"routes[{index}].{key}",
                    f'the engine "{name}" takes no prompts: leave it out, or name one that does: {promptable}',
                )
        if route.get("unit") == "study" and StackKind.IMAGE not in engine.inputs.kinds:
            yield (
                f"routes[{index}].unit",
                f'"study" is for engines that work on single images, and "{name}" is none: {imaging}',
            )


def _of_other_engines(raw: Mapping[str, Any], engines: _Engines) -> Iterator[tuple[str, str]]:
    """``[engines.<name>]`` may hold only what that engine looks at."""
    for name, section in _section(raw, "engines").items():
        if name not in engines or not isinstance(section, Mapping):
            continue
        own = engines[name].settings
        for key, value in section.items():
            allowed = own.get(key, ())
            if key in EngineSection.model_fields and key not in (*_OF_EVERY_ENGINE, *own):
                takes = ", ".join((*_OF_EVERY_ENGINE, *own))
                yield f"engines.{name}.{key}", f"means nothing to {name}, which takes {takes}: leave it out"
            elif allowed and value not in ("", *allowed):
                yield f"engines.{name}.{key}", f"must be one of {', '.join(allowed)}"


def _of_questions(raw: Mapping[str, Any], engines: Collection[str]) -> Iterator[tuple[str, str]]:
    predict = _section(raw, "predict")
    engine = predict.get("engine")
    if _given(predict, "enabled") and isinstance(engine, str) and engine not in engines:
        yield "predict.engine", _no_engine(engine, engines)
    if _given(predict, "enabled") and str(_section(raw, "http").get("processes", 0)) not in ("0", "1"):
        yield (
            "http.processes",
            "must be 0 or 1 where predict.enabled is true: each process would hold the models for itself",
        )


def _one_port_twice(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Two receivers cannot listen on one port of one address; 0 lets the system choose."""
    scp = ScpSection().model_dump() | dict(_section(raw, "scp"))
    http = HttpSection().model_dump() | dict(_section(raw, "http"))
    places = [(str(section["host"]), str(section["port"])) for section in (scp, http)]
    if places[0] == places[1] and places[0][1] != "0":
        yield "http.port", "is scp.port too: choose another for one of them, or run them on two hosts (--role)"


def _no_database(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    url = _section(raw, "database").get("url")
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    if not isinstance(text, str) or not text:
        return
    from store.database import database_fault  # who needs no other database does not wait for this

    fault = database_fault(text)
    if fault is not None:
        yield "database.url", fault
