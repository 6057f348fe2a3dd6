"""Engine manifests: the TOML beside each engine, read and checked without importing the engine."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from domain.codes import Code
from domain.engine import Answer, EngineManifest, Verdict
from domain.errors import ConfigurationError
from domain.findings import SegmentDescription
from domain.series import SeriesFacts, StackKind
from inference.terminology import Terminology
from inference.weighting import native_t1
from inference.weights import WeightsFile, WeightsPackage


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Which series an engine takes, as far as headers tell. Empty or ``None``: no condition."""

    kinds: tuple[str, ...] = (StackKind.VOLUME,)
    """``volume``, ``image``, ``cine``."""
    modality: tuple[str, ...] = ()
    min_instances: int = 1
    """Of a volume."""
    max_slice_spacing_mm: float | None = None
    max_pixel_spacing_mm: float | None = None
    excluded_image_types: tuple[str, ...] = ()
    native_t1: bool = False
    """Only T1-weighted magnetic resonance of a head without contrast agent."""
    image_modality: tuple[str, ...] = ()
    """In place of ``modality`` for images and cine; empty: the same."""

    def accepts(self, facts: SeriesFacts) -> Verdict:
        """Tell whether the engine can work on a series with these facts."""
        for condition in (
            self._kind,
            self._modality,
            self._image_type,
            self._weighting,
            self._instances,
            self._spacing,
        ):
            verdict = condition(facts)
            if verdict is not None:
                return verdict
        return Verdict(Answer.YES, "the headers fit the engine's inputs")

    def _kind(self, facts: SeriesFacts) -> Verdict | None:
        if facts.kind in self.kinds:
            return None
        wanted = " and ".join(StackKind(kind).plural for kind in self.kinds)
        return Verdict(Answer.NO, f"the engine works on {wanted}; this is {facts.kind.in_words}")

    def _modality(self, facts: SeriesFacts) -> Verdict | None:
        modality = self.modality if facts.kind is StackKind.VOLUME else self.image_modality or self.modality
        if not modality or facts.modality in modality:
            return None
        wanted = " or ".join(modality)
        if facts.kind is not StackKind.VOLUME:
            wanted += f" of {facts.kind.plural}"
        if facts.modality is None:
            return Verdict(Answer.UNKNOWN, f"Modality is missing; the engine takes {wanted}")
        return Verdict(Answer.NO, f"Modality is not {wanted}")

    def _image_type(self, facts: SeriesFacts) -> Verdict | None:
        for excluded in self.excluded_image_types:
            if excluded in facts.image_type:
                return Verdict(Answer.NO, f"ImageType is {excluded}")
        return None

    def _weighting(self, facts: SeriesFacts) -> Verdict | None:
        verdict = native_t1(facts) if self.native_t1 else None
        return None if verdict is None or verdict.answer is Answer.YES else verdict

    def _instances(self, facts: SeriesFacts) -> Verdict | None:
        if facts.kind is not StackKind.VOLUME or facts.instances >= self.min_instances:
            return None
        return Verdict(Answer.NO, f"{facts.instances} instances; the engine needs {self.min_instances}")

    def _spacing(self, facts: SeriesFacts) -> Verdict | None:
        if facts.spacing_mm is None:
            return None
        between_slices, *in_plane = facts.spacing_mm
        if self.max_slice_spacing_mm is not None and between_slices > self.max_slice_spacing_mm:
            return Verdict(Answer.NO, f"the slices are more than {self.max_slice_spacing_mm:g} mm apart")
        if self.max_pixel_spacing_mm is not None and max(in_plane) > self.max_pixel_spacing_mm:
            return Verdict(Answer.NO, f"PixelSpacing is above {self.max_pixel_spacing_mm:g} mm")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDeclaration:
    """A manifest with what only the registry needs to know."""

    manifest: EngineManifest
    inputs: Inputs
    entry: str
    """``module:callable``; the callable takes the manifest and the engine's settings and returns the engine."""
    requires_modules: tuple[str, ...] = ()
    """Python packages beyond the core."""
    requires_weights: bool = False
    """The operator must name a file of weights."""
    weights: WeightsPackage | None = None
    """The package that holds them, where ``voxgate weights install`` can get them."""
    weights_folder: bool = False
    """The weights are a folder, or a name in the hub's cache, instead of a file."""
    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Default prompts by modality and task, for requests that bring none."""
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Settings of ``[engines.<name>]`` that mean something to it, with the texts that one may be; none: anything."""
    accept_license: str = ""
    """What the operator must write into the configuration to accept the licence of the weights; empty: nothing."""


def licence_sentence(engine: str, licence: str) -> str:
    """Return why an engine cannot be used whose licence is not accepted, and how it is."""
    return (
        f"its weights are licensed for {licence} only; whoever may use them says so with "
        f'[engines.{engine}] accept_license = "{licence}"'
    )


def read_declaration(path: Path, terms: Terminology | None = None) -> EngineDeclaration:
    """Read one ``manifest.toml``.

    Parameters
    ----------
    terms
        What its codes are looked up in; one for several manifests is read once.

    Raises
    ------
    ConfigurationError
        It cannot be read, or lists every fault with its key.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: not readable as TOML") from error
    reader = _Reader(terms or Terminology())
    declaration = _declaration(reader, table)
    if reader.faults:
        raise ConfigurationError("\n".join(f"{path}: {fault}" for fault in reader.faults))
    return declaration


def _declaration(read: _Reader, table: Mapping[str, Any]) -> EngineDeclaration:
    engine, inputs = read.table(table, "engine"), read.table(table, "inputs")
    requires = read.table(table, "requires", optional=True)
    segments = tuple(
        _segment(read, read.mapping(item, f"segments[{index}]"), f"segments[{index}]")
        for index, item in enumerate(read.items(table, "segments"))
    )
    if len({segment.key for segment in segments}) != len(segments):
        read.faults.append("segments: two have the same key")
    weights = _weights(read, read.table(table, "weights")) if "weights" in table else None
    declaration = EngineDeclaration(
        manifest=_manifest(read, engine, segments, weights),
        inputs=_inputs(read, inputs),
        entry=read.text(engine, "engine.entry"),
        requires_modules=read.texts(requires, "requires.modules"),
        requires_weights=read.flag(requires, "requires.weights"),
        weights=weights,
        weights_folder=read.flag(requires, "requires.weights_folder"),
        prompts=_prompts(read, read.table(table, "prompts", optional=True)),
        settings=_settings(read, read.table(table, "settings", optional=True), requires),
        accept_license=read.text(requires, "requires.accept_license") if "accept_license" in requires else "",
    )
    read.refuse_unknown(table, ("engine", "inputs", "prompts", "requires", "segments", "settings", "weights"), "")
    return declaration


def _manifest(
    read: _Reader,
    engine: Mapping[str, Any],
    segments: tuple[SegmentDescription, ...],
    weights: WeightsPackage | None,
) -> EngineManifest:
    device = read.text(engine, "engine.device")
    if device not in ("", "cpu", "gpu"):
        read.faults.append("engine.device: neither cpu nor gpu")
    texts = ("name", "version", "title", "algorithm_name", "manufacturer", "licence", "intended_use")
    read.refuse_unknown(
        engine,
        (
            *texts,
            "device",
            "entry",
            "algorithm_family",
            "finding_site",
            "weights_digest",
            "deadline_s",
            "takes_prompts",
        ),
        "engine.",
    )
    return EngineManifest(
        **{key: read.text(engine, f"engine.{key}") for key in texts},
        device=device,
        algorithm_family=read.code(engine, "engine.algorithm_family"),
        segments=segments,
        finding_site=read.code(engine, "engine.finding_site") if "finding_site" in engine else None,
        weights_digest=weights.sha256 if weights else str(engine.get("weights_digest", "")),
        deadline_s=int(read.number(engine, "engine.deadline_s", 1800)),
        takes_prompts=read.flag(engine, "engine.takes_prompts"),
    )


def _inputs(read: _Reader, inputs: Mapping[str, Any]) -> Inputs:
    read.refuse_unknown(inputs, Inputs.__dataclass_fields__, "inputs.")
    limits = {
        key: read.number(inputs, f"inputs.{key}", 0.0)
        for key in ("max_slice_spacing_mm", "max_pixel_spacing_mm")
        if key in inputs
    }
    kinds = read.texts(inputs, "inputs.kinds") or (StackKind.VOLUME,)
    if not set(kinds) <= set(StackKind):
        read.faults.append(f"inputs.kinds: not all of them are {', '.join(StackKind)}")
        kinds = (StackKind.VOLUME,)
    return Inputs(
        kinds=kinds,
        modality=read.texts(inputs, "inputs.modality"),
        min_instances=int(read.number(inputs, "inputs.min_instances", 1)),
        excluded_image_types=read.texts(inputs, "inputs.excluded_image_types"),
        native_t1=read.flag(inputs, "inputs.native_t1"),
        image_modality=read.texts(inputs, "inputs.image_modality"),
        **limits,
    )


def _weights(read: _Reader, table: Mapping[str, Any]) -> WeightsPackage:
    read.refuse_unknown(table, WeightsPackage.__dataclass_fields__, "weights.")
    files = []
    for index, item in enumerate(read.items(table, "files")):
        path = f"weights.files[{index}]"
        mapping = read.mapping(item, path)
        read.refuse_unknown(mapping, WeightsFile.__dataclass_fields__, f"{path}.")
        files.append(
            WeightsFile(**{key: read.text(mapping, f"{path}.{key}") for key in ("name", "member", "sha256")})
        )
    texts = {key: read.text(table, f"weights.{key}") for key in ("package", "version", "sha256")}
    return WeightsPackage(**texts, files=tuple(files))


def _prompts(read: _Reader, table: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        modality: {task: read.text(tasks, f"prompts.{modality}.{task}") for task in tasks}
        for modality, tasks in ((name, read.mapping(value, f"prompts.{name}")) for name, value in table.items())
    }


def _settings(read: _Reader, table: Mapping[str, Any], requires: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return what is declared, with what follows from what the engine requires."""
    implied = [name for name in ("weights", "accept_license") if requires.get(name)]
    return {**dict.fromkeys(implied, ()), **{name: read.texts(table, f"settings.{name}") for name in table}}


def _segment(read: _Reader, item: Mapping[str, Any], path: str) -> SegmentDescription:
    if "structure" in item:
        return _structure(read, item, path)
    read.refuse_unknown(item, SegmentDescription.__dataclass_fields__, f"{path}.")
    return SegmentDescription(
        key=read.text(item, f"{path}.key"),
        label=read.text(item, f"{path}.label"),
        category=read.code(item, f"{path}.category"),
        type=read.code(item, f"{path}.type"),
        type_modifiers=tuple(
            read.code({"it": code}, f"{path}.type_modifiers.it") for code in item.get("type_modifiers", ())
        ),
        anatomic_region=read.code(item, f"{path}.anatomic_region") if "anatomic_region" in item else None,
        colour_rgb=read.colour(item, f"{path}.colour_rgb"),
    )


def _structure(read: _Reader, item: Mapping[str, Any], path: str) -> SegmentDescription:
    """Return a segment that takes codes and colour from the table of structures; key and label may be its own."""
    read.refuse_unknown(item, ("structure", "key", "label", "colour_rgb"), f"{path}.")
    name = read.text(item, f"{path}.structure")
    found = read.terms.structure(name)
    if found is None:
        omitted = read.terms.omitted().get(name)
        why = "its code is not in the DICOM Standard" if omitted else "voxgate terms lists those that there are"
        read.faults.append(f"{path}.structure: no structure is called {name!r}; {why}")
        nothing = Code("", "", "")
        found = SegmentDescription(key=name, label=name, category=nothing, type=nothing)
    own: dict[str, Any] = {key: read.text(item, f"{path}.{key}") for key in ("key", "label") if key in item}
    if "colour_rgb" in item:
        own["colour_rgb"] = read.colour(item, f"{path}.colour_rgb")
    return replace(found, **own)


class _Reader:
    """Takes values out of parsed TOML and collects what is wrong with them, so that all faults are told at once."""

    def __init__(self, terms: Terminology) -> None:
        self.faults: list[str] = []
        self.terms = terms

    def text(self, table: Mapping[str, Any], path: str) -> str:
        return str(self._take(table, path, lambda value: isinstance(value, str) and value != "", "a text", ""))

    def texts(self, table: Mapping[str, Any], path: str) -> tuple[str, ...]:
        if _key(path) not in table:
            return ()
        found = self._take(
            table, path, lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
            "a list of texts", [],
        )  # fmt: skip
        return tuple(found)

    def flag(self, table: Mapping[str, Any], path: str) -> bool:
        return _key(path) in table and bool(
            self._take(table, path, lambda value: isinstance(value, bool), "true or false", False)
        )

    def number(self, table: Mapping[str, Any], path: str, default: float) -> float:
        if _key(path) not in table:
            return default
        return float(
            self._take(
                table, path, lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v > 0,
                "a number above 0", default,
            )
        )  # fmt: skip

    def code(self, table: Mapping[str, Any], path: str) -> Code:
        parts = self._take(
            table, path,
            lambda value: isinstance(value, list) and len(value) == 3
            and all(isinstance(v, str) and v for v in value),
            "[value, scheme, meaning]", ["", "", ""],
        )  # fmt: skip
        code = Code(*parts)
        fault = self.terms.fault(code) if code.value else None
        if fault is not None:
            self.faults.append(f"{path}: {fault}")
        return code

    def colour(self, table: Mapping[str, Any], path: str) -> tuple[int, int, int]:
        red, green, blue = self._take(
            table, path,
            lambda value: isinstance(value, list) and len(value) == 3
            and all(isinstance(v, int) and 0 <= v <= 255 for v in value),
            "three numbers from 0 to 255", [0, 0, 0],
        )  # fmt: skip
        return red, green, blue

    def table(self, table: Mapping[str, Any], path: str, *, optional: bool = False) -> Mapping[str, Any]:
        if optional and path not in table:
            return {}
        return self.mapping(table.get(path), path)

    def mapping(self, value: object, path: str) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self.faults.append(f"{path}: not a table")
        return {}

    def items(self, table: Mapping[str, Any], path: str) -> list[object]:
        value = table.get(path, [])
        if isinstance(value, list):
            return value
        self.faults.append(f"{path}: not a list")
        return []

    def refuse_unknown(self, table: Mapping[str, Any], known: Container[str], prefix: str) -> None:
        self.faults += [f"{prefix}{key}: unknown" for key in table if key not in known]

    def _take(
        self, table: Mapping[str, Any], path: str, fits: Callable[[Any], bool], kind: str, default: object
    ) -> Any:
        value = table.get(_key(path))
        if value is not None and fits(value):
            return value
        self.faults.append(f"{path}: " + ("missing" if value is None else f"not {kind}"))
        return default


def _key(path: str) -> str:
    return path.rpartition(".")[2]
