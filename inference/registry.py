"""The engines of this installation, found by their manifests and imported on use."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from domain.engine import Answer, Engine, EngineManifest, Verdict, queue_of_device
from domain.errors import ConfigurationError, EngineFailed
from domain.series import SeriesFacts
from inference.checkpoints import container_of, digest_of, folder_of
from inference.manifest import EngineDeclaration, licence_sentence, read_declaration
from inference.terminology import Terminology
from inference.weights import WeightsPackage

_CHANGING = ("window", "precision", "orientation")
"""Settings of an engine that are part of a job's identity; where and how fast it computes are not."""
ENGINES = Path(__file__).parent
"""Each sub-folder with a ``manifest.toml`` is an engine."""


def engine_names(folder: Path = ENGINES) -> tuple[str, ...]:
    """Return the names of the engines whose software is installed; weights and settings are not looked at."""
    return tuple(name for name, known in declarations(folder).items() if not _missing_modules(known))


def not_installed(folder: Path = ENGINES) -> dict[str, str]:
    """Return what the other engines lack, by name."""
    lacking = {name: _missing_modules(known) for name, known in declarations(folder).items()}
    return {name: ", ".join(modules) for name, modules in lacking.items() if modules}


class Registry:
    """Implements ``domain.ports.EngineRegistry``.

    Parameters
    ----------
    settings
        ``[engines.<name>]`` by name: ``enabled``, ``weights``, ``device``, ``deadline_s``, passed on to the engine.
    folder
        Where the engines' folders lie.
    weights
        Where ``voxgate weights install`` puts them: a folder for each engine. ``None``: nowhere.

    Raises
    ------
    ConfigurationError
        A manifest is faulty, or there are settings for an engine that does not exist.
    """

    def __init__(
        self, settings: Mapping[str, Mapping[str, object]], folder: Path = ENGINES, weights: Path | None = None
    ) -> None:
        self._settings = settings
        self._weights = weights
        self._checked: set[str] = set()
        self._known = declarations(folder)
        self._manifests: dict[str, EngineManifest] = {}
        self._engines: dict[str, Engine] = {}
        unknown = [name for name in settings if name not in self._known]
        if unknown:
            raise ConfigurationError("\n".join(f"engines.{name}: there is no such engine" for name in unknown))

    def manifests(self) -> tuple[EngineManifest, ...]:
        """Return the manifests of the engines that can be used, by name."""
        return tuple(self.manifest(name) for name in self._known if self._obstacle(name) is None)

    def unavailable(self) -> dict[str, str]:
        """Return why each of the other engines cannot be used."""
        obstacles = {name: self._obstacle(name) for name in self._known}
        return {name: reason for name, reason in obstacles.items() if reason is not None}

    def packages(self) -> dict[str, tuple[WeightsPackage, Path | None]]:
        """Return the weights that can be installed, with the folder they belong in, by engine."""
        return {
            name: (known.weights, self._folder_of_weights(name))
            for name, known in self._known.items()
            if known.weights is not None
        }

    def manifest(self, name: str) -> EngineManifest:
        """Return an engine's manifest, with the digest and the deadline that the operator gives it."""
        known = self._usable(name)
        if name not in self._manifests:
            self._manifests[name] = self._with_settings(name, known)
        return self._manifests[name]

    def accepts(self, name: str, facts: SeriesFacts) -> Verdict:
        """Tell whether the engine can be used and takes such a series."""
        if name not in self._known:
            return Verdict(Answer.NO, "there is no such engine")
        verdict = self._known[name].inputs.accepts(facts)
        if verdict.answer is not Answer.YES:
            return verdict  # nobody need install anything for a series that the engine would not take
        obstacle = self._obstacle(name)
        return verdict if obstacle is None else Verdict(Answer.NO, f"the engine cannot be used: {obstacle}")

    def engine(self, name: str) -> Engine:
        """Return the engine, loaded on first use and kept."""
        if name not in self._engines:
            module, _, factory = self._usable(name).entry.partition(":")
            make = getattr(importlib.import_module(module), factory)
            engine: Engine = make(self.manifest(name), self._settings_of(name))
            engine.load()
            self._engines[name] = engine
        return self._engines[name]

    def names(self) -> tuple[str, ...]:
        """Return the names of all engines, whatever stands in their way."""
        return tuple(self._known)

    def obstacle(self, name: str) -> str | None:
        """Return why an engine cannot be used, ``None`` where it can."""
        return self._obstacle(name) if name in self._known else "there is no such engine"

    def prompts(self, name: str) -> Mapping[str, Mapping[str, str]]:
        """Return an engine's default prompts by modality and task."""
        return self._known[name].prompts if name in self._known else {}

    def is_loaded(self, name: str) -> bool:
        """Tell whether an engine's weights have been read in this process."""
        return name in self._engines

    def devices(self) -> dict[str, str]:
        """Return where each engine that can be used computes: ``cpu``, ``cuda:0`` …; empty where it will find out."""
        return {name: self._device(name) for name in self._known if self._obstacle(name) is None}

    def _device(self, name: str) -> str:
        if "torch" not in self._known[name].requires_modules:
            return "cpu"
        device = str(self._settings.get(name, {}).get("device") or "")
        return {"cuda": "cuda:0", "auto": ""}.get(device, device)

    def _usable(self, name: str) -> EngineDeclaration:
        if name not in self._known:
            raise EngineFailed("There is no such engine.")
        obstacle = self._obstacle(name)
        if obstacle is not None:
            raise EngineFailed(f"The engine cannot be used: {obstacle}.")
        return self._known[name]

    def _obstacle(self, name: str) -> str | None:
        """Return why an engine cannot be used, or ``None``."""
        known, settings = self._known[name], self._settings.get(name, {})
        if settings.get("enabled") is False:
            return f"engines.{name}.enabled is false"
        missing = _missing_modules(known)
        if missing:
            return f"not installed: {', '.join(missing)} (make models)"
        if known.weights is not None:
            return self._fault_of_package(name, known.weights)
        if known.accept_license and settings.get("accept_license") != known.accept_license:
            return licence_sentence(name, known.accept_license)
        if not known.requires_weights:
            return None
        weights = settings.get("weights")
        if weights is None:
            return f"engines.{name}.weights is not set"
        if known.weights_folder:
            return _obstacle_of_folder(name, str(weights))
        return None if Path(str(weights)).is_file() else f"engines.{name}.weights is not a file"

    def _settings_of(self, name: str) -> dict[str, object]:
        """Return an engine's settings, with the folder of its weights and what must be in it."""
        settings, package = dict(self._settings.get(name, {})), self._known[name].weights
        if package is not None:
            settings |= {"weights": self._folder_of_weights(name), "package": package}
        return settings

    def _folder_of_weights(self, name: str) -> Path | None:
        chosen = self._settings.get(name, {}).get("weights")
        if chosen is not None:
            return Path(str(chosen))
        return self._weights / name if self._weights is not None else None

    def _fault_of_package(self, name: str, package: WeightsPackage) -> str | None:
        """Return what is wrong with installed weights; found right once, they are not read again."""
        folder = self._folder_of_weights(name)
        if name in self._checked or folder is None:
            return None if folder else "there is no folder for weights"
        fault = package.fault(folder)
        if fault is not None:
            return f"{fault} (voxgate weights install {name})"
        self._checked.add(name)
        return None

    def _with_settings(self, name: str, known: EngineDeclaration) -> EngineManifest:
        settings = self._settings.get(name, {})
        deadline_s = settings.get("deadline_s")
        # Where its cases wait is the operator's choice: a queue is served only where a device is configured.
        queue = queue_of_device(str(settings.get("device") or ""))
        found = replace(self._with_digest(name, known), device=queue or "cpu", settings=self._changed(name))
        return replace(found, deadline_s=deadline_s) if isinstance(deadline_s, int) else found

    def _changed(self, name: str) -> str:
        """Return the operator's settings by which an engine finds something else, in one order."""
        chosen = self._settings.get(name, {})
        said = {key: chosen.get(key) for key in _CHANGING if chosen.get(key) not in (None, "", "auto")}
        return " ".join(f"{key}={value}" for key, value in said.items())

    def _with_digest(self, name: str, known: EngineDeclaration) -> EngineManifest:
        if known.weights is not None or not known.requires_weights:
            return known.manifest
        weights = str(self._settings[name]["weights"])
        file = container_of(folder_of(weights)) if known.weights_folder else Path(weights)
        return replace(known.manifest, weights_digest=digest_of(file))


def declarations(folder: Path = ENGINES) -> dict[str, EngineDeclaration]:
    """Return what every engine says of itself, installed or not, by name."""
    terms = Terminology()
    found = [read_declaration(path, terms) for path in sorted(folder.glob("*/manifest.toml"))]
    by_name = {declaration.manifest.name: declaration for declaration in found}
    if len(by_name) != len(found):
        raise ConfigurationError(f"{folder}: two engines have the same name")
    return by_name


def _obstacle_of_folder(name: str, weights: str) -> str | None:
    try:
        container_of(folder_of(weights))
    except ConfigurationError as error:
        return f"engines.{name}.weights: {error}"
    return None


def _missing_modules(known: EngineDeclaration) -> list[str]:
    """Return the packages that are not installed; looking for one does not import it."""
    return [module for module in known.requires_modules if importlib.util.find_spec(module) is None]
