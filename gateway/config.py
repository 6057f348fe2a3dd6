"""Reads ``voxgate.toml`` and the environment; nothing else in Voxgate does. Every fault is reported at once."""

from __future__ import annotations

import codecs
import difflib
import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self, cast

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from domain.errors import ConfigurationError
from gateway.config_faults import Faults, faults_between
from gateway.sections import (
    CompletenessSection,
    DatabaseSection,
    DeliverySection,
    DestinationSection,
    DimseDestination,
    EngineSection,
    HttpSection,
    LogSection,
    Name,
    PredictSection,
    ProfileSection,
    RouteSection,
    ScpSection,
    StoreSection,
    StowDestination,
    WeightsSection,
)

PREFIX = "VOXGATE_"
DEFAULT_FILE = Path("voxgate.toml")
LUNGS_ROUTE = RouteSection(name="lungs", engine="lungs", modality=("CT",), min_instances=20)
# What is T1 the engine itself tells, by description and by times: one rule, in one place.
DEEPBET_ROUTE = RouteSection(name="deepbet", engine="deepbet", modality=("MR",))


class Config(BaseSettings):
    """Everything that can be set. Made by ``load_config``; frozen; secrets stay out of ``repr``."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    store: StoreSection = StoreSection()
    scp: ScpSection = ScpSection()
    http: HttpSection = HttpSection()
    predict: PredictSection = PredictSection()
    database: DatabaseSection = DatabaseSection()
    completeness: CompletenessSection = CompletenessSection()
    delivery: DeliverySection = DeliverySection()
    log: LogSection = LogSection()
    weights: WeightsSection = WeightsSection()
    destinations: tuple[DestinationSection, ...] = ()
    routes: tuple[RouteSection, ...] = ()
    engines: dict[str, EngineSection] = {}
    profiles: dict[Name, ProfileSection] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the environment over the file; both are named by the caller, never guessed here."""
        given = cast(InitSettingsSource, init_settings).init_kwargs
        return (
            _Environment(settings_cls, given["environ"]),
            TomlConfigSettingsSource(settings_cls, given["file"]),
        )

    @model_validator(mode="wrap")
    @classmethod
    def _keep_what_was_read(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Let the checks between sections see what was read, also when a section is faulty."""
        try:
            return handler(raw)
        except ValidationError as error:
            raise _Faulty(raw, [_fault(detail, cls) for detail in error.errors(include_input=False)]) from None


class _Faulty(Exception):
    """Carries what was read and the faults found so far, out of pydantic."""

    def __init__(self, raw: dict[str, Any], faults: Faults) -> None:
        super().__init__()
        self.raw = raw
        self.faults = faults


class _Environment(PydanticBaseSettingsSource):
    """``VOXGATE_<SECTION>__<KEY>``, and ``PORT`` for ``http.port``."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._environ = environ

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Not used: the source reads all at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for name, value in self._environ.items():
            path = name.removeprefix(PREFIX).lower().split("__") if name.startswith(PREFIX) else []
            if len(path) > 1:
                _put(read, path, value)
            elif path and path[0] in ("destinations", "routes"):
                read[path[0]] = _json(name, value)
            elif path and path[0] in Config.model_fields:
                raise ConfigurationError(f"environment {name}: name a setting of it, as in {name}__KEY")
        if self._environ.get("PORT"):
            _put(read, ["http", "port"], self._environ["PORT"])
        return read


def _put(into: dict[str, Any], path: list[str], value: str) -> None:
    for key in path[:-1]:
        into = into.setdefault(key, {})
    into[path[-1]] = value


def _json(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        raise ConfigurationError(f"environment {name}: not JSON") from None


def load_config(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    engines: Collection[str] | None = None,
    together: bool = False,
) -> Config:
    """Return the configuration.

    Parameters
    ----------
    file
        ``voxgate.toml``; default is ``VOXGATE_CONFIG``, then ``./voxgate.toml`` if there is one, then none.
    environ
        Default is the environment of this process.
    engines
        Names of the engines that a route may name; default is those of this installation.
    together
        Check also what is a fault only where all parts run on one host.

    Raises
    ------
    ConfigurationError
        The message lists every fault with its path, one a line.
    """
    environ = os.environ if environ is None else environ
    engines = _installed_engines() if engines is None else engines
    file = _file(file, environ)
    try:
        config = Config(file=file, environ=environ)  # type: ignore[call-arg]
        raw, faults = config.model_dump(exclude_unset=True), Faults()
    except _Faulty as error:
        raw, faults = error.raw, error.faults
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: not TOML: {error}{_byte_order_mark(file)}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: not TOML: it is not encoded in UTF-8; save it so") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    faults += faults_between(raw, engines, together=together)
    if faults:
        where = f" ({file})" if file else ""
        raise ConfigurationError(
            f"the configuration{where} is faulty:\n" + "\n".join(f"  {path}: {fault}" for path, fault in faults)
        )
    if "routes" in config.model_fields_set:
        return config
    defaults = (LUNGS_ROUTE, DEEPBET_ROUTE)
    return config.model_copy(update={"routes": tuple(route for route in defaults if route.engine in engines)})


def _installed_engines() -> tuple[str, ...]:
    from inference.registry import engine_names

    return engine_names()


def _byte_order_mark(file: Path | None) -> str:
    begins_with_mark = file is not None and file.read_bytes().startswith(codecs.BOM_UTF8)
    return "; it begins with a byte order mark: save it as UTF-8 without one" if begins_with_mark else ""


def _file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    if file is None and environ.get("VOXGATE_CONFIG"):
        file = Path(environ["VOXGATE_CONFIG"])
    if file is None:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    if not file.is_file():
        raise ConfigurationError(f"{file}: there is no such file")
    return file


# -- Faults of one setting ------------------------------------------------------------------------------------------

_SAID: dict[str, str] = {
    "missing": "is required",
    "too_short": "must have at least one entry",
    "union_tag_not_found": 'kind = "dimse" or "stow" is required',
    "union_tag_invalid": 'kind must be "dimse" or "stow"',
}
_TAGS = ("dimse", "stow")


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """Return path and sentence; the value is never quoted, since it may be a secret."""
    parts = [part for part in detail["loc"] if part not in _TAGS]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    if detail["type"] == "extra_forbidden":
        return path, "unknown setting" + _meant(str(parts[-1]), _keys(parts))
    said = _SAID.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    said = said.replace("Input should be", "must be").replace("String should", "must")
    said = re.sub(r"a valid (tuple|list)$", "a list", re.sub(r"a valid dictionary$", "a table", said))
    return path, re.sub(r"a valid dictionary or instance of \w+", "a table", said)  # names of ours mean nothing there


def _keys(parts: list[Any]) -> list[str]:
    """Return the settings that are known where the last part stands."""
    section: dict[str, tuple[type[BaseModel], ...]] = {
        "store": (StoreSection,),
        "scp": (ScpSection,),
        "http": (HttpSection,),
        "predict": (PredictSection,),
        "database": (DatabaseSection,),
        "completeness": (CompletenessSection,),
        "delivery": (DeliverySection,),
        "log": (LogSection,),
        "weights": (WeightsSection,),
        "destinations": (DimseDestination, StowDestination),
        "routes": (RouteSection,),
        "engines": (EngineSection,),
        "profiles": (ProfileSection,),
    }
    models = section.get(str(parts[0]), (Config,)) if len(parts) > 1 else (Config,)
    return [name for model in models for name in model.model_fields]


def _meant(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
