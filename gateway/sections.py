"""The sections of ``voxgate.toml``: every setting with its default, its bounds and its meaning.

The frozen ``*Settings`` of the packages are made from these in ``gateway.wiring``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from dicom_out.profile import Choice
from domain.series import Resample


def _as_list(value: object) -> object:
    """Take ``a, b`` or ``["a", "b"]`` where the environment gives a list as text."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _as_roles(value: object) -> object:
    """Take names of objects in any case."""
    found = _as_list(value)
    return [item.upper() if isinstance(item, str) else item for item in found] if isinstance(found, list) else found


def _as_table(value: object) -> object:
    """Take JSON where the environment gives a table as text."""
    return json.loads(value or "{}") if isinstance(value, str) else value


def _host_and_port(value: object) -> object:
    """Take ``host:port``; IPv6 addresses stand in brackets."""
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError("must be host:port")
    return host.strip("[]"), int(port)


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _form(pattern: str, said: str) -> AfterValidator:
    """Take what matches ``pattern``; ``said`` tells in words what is wanted."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(said)
        return value

    return AfterValidator(check)


AeTitle = Annotated[str, _form(r"[ -\[\]-~]{1,16}", "must be 1 to 16 ASCII characters without backslash")]
"""Default repertoire without backslash and control characters, at most 16 (PS3.5 Table 6.2-1, AE)."""
AeTitles = Annotated[tuple[AeTitle, ...], BeforeValidator(_as_list)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_as_list)]
"""IP addresses or CIDR networks."""
Port = Annotated[int, Field(ge=0, le=65535)]
PeerAddress = Annotated[tuple[str, Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(_host_and_port)]
"""Written ``host:port``."""
Seconds = Annotated[float, Field(gt=0)]
Uid = Annotated[
    str,
    _form(r"(?=.{3,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", "must be a UID of at most 64 characters"),
]
Uids = Annotated[tuple[Uid, ...], BeforeValidator(_as_list)]
Name = Annotated[
    str,
    _form(r"[^\x00-\x1f/\\]{1,64}", "must be 1 to 64 characters without slash, backslash and control characters"),
]


class Section(BaseModel):
    """Frozen; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    def plain(self, *leave_out: str) -> dict[str, Any]:
        """Return the settings with their secrets in the clear, for the ``*Settings`` of the packages."""
        found = {name: getattr(self, name) for name in type(self).model_fields if name not in leave_out}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in found.items()
        }


def _folder(value: object) -> object:
    # Before it is a path, of which an empty one is the working folder
    if value == "" or "\0" in str(value):
        raise ValueError("must name a folder")
    return value


class StoreSection(Section):
    """``[store]``."""

    path: Annotated[Path, BeforeValidator(_folder)] = Path("voxgate-data")
    low_water_mb: Annotated[int, Field(ge=0)] = 1024
    retention_days: Annotated[float, Field(ge=0)] = 0


class ScpSection(Section):
    """``[scp]``."""

    ae_title: AeTitle = "VOXGATE"
    host: str = "127.0.0.1"
    port: Port = 11112
    require_called_ae_title: bool = True
    calling_ae_titles: AeTitles = ()
    addresses: Networks = ()
    allow_any_peer: bool = False
    max_associations: Annotated[int, Field(ge=1)] = 20
    max_pdu: Annotated[int, Field(ge=0)] = 131072
    acse_timeout_s: Seconds = 30.0
    dimse_timeout_s: Seconds = 60.0
    network_timeout_s: Seconds = 300.0
    stall_timeout_s: Seconds = 30.0
    yield_after_s: Seconds = 5.0
    max_instance_mb: Annotated[int, Field(ge=1)] = 2048
    stop_timeout_s: Seconds = 20.0
    storage_commitment: bool = True
    peers: Annotated[dict[AeTitle, PeerAddress], BeforeValidator(_as_table)] = {}
    commitment_give_up_h: Annotated[float, Field(ge=0)] = 72.0
    private_sop_classes: Uids = ()
    private_transfer_syntaxes: Uids = ()


class HttpSection(Section):
    """``[http]``."""

    host: str = "127.0.0.1"
    port: Port = 5000
    token: SecretStr = SecretStr("")
    allow_unauthenticated: bool = False
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    threads: Annotated[int, Field(ge=1, le=1000)] = 32
    idle_timeout_s: Annotated[int, Field(ge=1)] = 60
    min_body_kb_s: Annotated[int, Field(ge=0)] = 4
    graceful_timeout_s: Annotated[int, Field(ge=0)] = 30
    retry_after_s: Annotated[int, Field(ge=1)] = 60
    questions_per_minute: Annotated[int, Field(ge=1)] = 120


class PredictSection(Section):
    """``[predict]``; see ``inference.predict_settings``."""

    enabled: bool = False
    engine: str = "medversa"
    name: str = "MedVersa_Internal"
    timeout_s: Seconds = 600.0
    queue: Annotated[int, Field(ge=1, le=1000)] = 16
    gather_ms: Annotated[int, Field(ge=0, le=1000)] = 0
    retry_after_s: Annotated[int, Field(ge=1)] = 10
    most_body_mb: Annotated[int, Field(ge=1)] = 256
    most_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    most_pictures: Annotated[int, Field(ge=1)] = 10
    most_voxels: Annotated[int, Field(ge=1)] = 600_000_000
    most_entries: Annotated[int, Field(ge=1)] = 5000
    most_unpacked_mb: Annotated[int, Field(ge=1)] = 2048
    keep_answers_h: Annotated[float, Field(gt=0)] = 24.0


class DatabaseSection(Section):
    """``[database]``."""

    url: SecretStr = SecretStr("")


class CompletenessSection(Section):
    """``[completeness]``."""

    quiet_s: Annotated[float, Field(ge=0)] = 10.0
    max_wait_s: Seconds = 3600.0
    drawing_wait_s: Annotated[float, Field(ge=0)] = 3600.0


class DeliverySection(Section):
    """``[delivery]``. Who sets only ``max_retry_s`` means the first delay too: none is longer."""

    first_retry_s: Seconds = 15.0
    max_retry_s: Seconds = 3600.0
    give_up_after_h: Annotated[float, Field(ge=0)] = 72.0

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if "first_retry_s" in self.model_fields_set and self.first_retry_s > self.max_retry_s:
            raise ValueError(
                f"first_retry_s ({self.first_retry_s:g}) is above max_retry_s ({self.max_retry_s:g}): "
                "lower the one or raise the other"
            )
        return self


class LogSection(Section):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class DimseDestination(Section):
    """A ``[[destinations]]`` entry that takes C-STORE."""

    name: Name
    kind: Literal["dimse"]
    profile: str = "default"
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: AeTitle = "VOXGATE"
    connect_timeout_s: Seconds = 10.0
    acse_timeout_s: Seconds = 30.0
    response_timeout_s: Seconds = 60.0
    stall_timeout_s: Seconds = 60.0
    confirm: Annotated[tuple[Literal["commitment", "query"], ...], BeforeValidator(_as_list)] = ()
    confirm_within_h: Annotated[float, Field(gt=0)] = 24.0
    commitment_wait_s: Annotated[float, Field(ge=0)] = 10.0
    commitment_again_h: Annotated[float, Field(gt=0)] = 1.0
    query_level: Literal["image", "series"] = "image"


class StowDestination(Section):
    """A ``[[destinations]]`` entry that takes STOW-RS."""

    name: Name
    kind: Literal["stow"]
    profile: str = "default"
    url: Annotated[str, _form(r"https?://[^/].*", "must begin with http:// or https:// and a host")]
    token: SecretStr = SecretStr("")
    username: str = ""
    password: SecretStr = SecretStr("")
    ca_file: Path | None = None
    timeout_s: Seconds = 60.0
    confirm: Annotated[tuple[Literal["query"], ...], BeforeValidator(_as_list)] = ()
    confirm_within_h: Annotated[float, Field(gt=0)] = 24.0


DestinationSection = Annotated[DimseDestination | StowDestination, Field(discriminator="kind")]


class ProfileSection(Section):
    """``[profiles.<name>]``: a built-in profile with changes; see ``dicom_out.profile``."""

    base: Literal["default", "ohif", "weasis", "slicer", "pacs-basic"] = "default"
    objects: Annotated[tuple[Choice, ...] | None, Field(min_length=1), BeforeValidator(_as_roles)] = None
    pictures: Annotated[tuple[Choice, ...] | None, Field(min_length=1), BeforeValidator(_as_roles)] = None
    segmentation: Literal["binary", "labelmap", "fractional"] | None = None
    compression: Literal["none", "rle"] | None = None
    report: Literal["comprehensive-3d", "comprehensive"] | None = None
    text: Literal["basic", "enhanced", "comprehensive"] | None = None
    grid: Literal["source", "regular"] | None = None
    empty_frames: bool | None = None
    max_frames: Annotated[int, Field(ge=0)] | None = None
    preliminary: Literal["", "preliminary", "final"] | None = None
    regionless: Literal["group", "statement"] | None = None
    identified: bool | None = None
    superseded: Literal["keep", "reject"] | None = None
    why: str = ""


class PromptSection(Section):
    """One object of a route's default ``prompt``.

    ``voxel`` and ``fraction`` write x before y (column before row), as MedSAM2's model card does, with ``slice``
    beside them; ``lps`` writes x, y, z in mm and has no ``slice``.
    """

    space: Literal["voxel", "lps", "fraction"] = "voxel"
    slice: float | None = None
    box: tuple[float, ...] = ()
    points: tuple[tuple[float, ...], ...] = ()
    background: tuple[tuple[float, ...], ...] = ()
    """Points outside the object."""
    label: Annotated[str, Field(max_length=64)] = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        size = 3 if self.space == "lps" else 2
        if (self.slice is None) != (size == 3):
            raise ValueError("slice belongs to voxel and fraction, and only to them")
        if self.box and len(self.box) != 2 * size:
            raise ValueError(f"box must be {2 * size} numbers")
        if any(len(point) != size for point in (*self.points, *self.background)):
            raise ValueError(f"a point must be {size} numbers")
        if not self.box and not self.points:
            raise ValueError("box or points is required")
        return self


class DrawingSection(Section):
    """Which drawings prompt a route's engine; see ``pipeline.rules.DrawingRule``."""

    calling_ae_titles: AeTitles = ()
    names: Texts = ()
    finding_codes: Annotated[
        tuple[Annotated[str, _form(r"[^:]+:[^:]+", "must be scheme:code, e.g. SCT:108369006")], ...],
        BeforeValidator(_as_list),
    ] = ()
    contours: Literal["traced", "box", "mask"] = "traced"


def _as_rule(value: object) -> object:
    """Take ``true`` for a rule without conditions, ``false`` for none."""
    return ({} if value else None) if isinstance(value, bool) else value


def _as_objects(value: object) -> object:
    """Take one table where there is one object."""
    return [value] if isinstance(value, dict) else value


class RouteSection(Section):
    """A ``[[routes]]`` entry; see ``pipeline.rules.Route``."""

    name: Name
    engine: str
    unit: Literal["series", "study"] = "series"
    priors: Annotated[int, Field(ge=0, le=8)] = 0
    modality: Texts = ()
    body_part_examined: Texts = ()
    series_description: Texts = ()
    exclude_series_description: Texts = ()
    calling_ae_titles: AeTitles = ()
    min_instances: Annotated[int, Field(ge=1)] = 1
    max_slice_thickness_mm: Annotated[float, Field(gt=0)] | None = None
    destinations: Annotated[tuple[str, ...] | None, BeforeValidator(_as_list)] = None
    priority: Annotated[int, Field(ge=1, le=1000)] = 10
    report_refusals: bool = False
    burned_in: Literal["take", "refuse"] = "take"
    options: dict[str, str | int | float | bool] = {}
    prompt: Annotated[tuple[PromptSection, ...], BeforeValidator(_as_objects)] = ()
    prompts_from_dicom: Annotated[DrawingSection | None, BeforeValidator(_as_rule)] = None
    resample: Annotated[tuple[Resample, ...], BeforeValidator(_as_list)] = ()

    @model_validator(mode="after")
    def _priors_of_studies(self) -> Self:
        if self.priors and self.unit != "study":
            raise ValueError('priors need unit = "study"')
        return self

    @model_validator(mode="after")
    def _volumes_are_series(self) -> Self:
        if self.unit == "study" and (self.resample or self.prompts_from_dicom is not None):
            key = "resample" if self.resample else "prompts_from_dicom"
            raise ValueError(f'{key} works on volumes, and unit = "study" on single images: leave one of them out')
        return self

    @model_validator(mode="after")
    def _one_space(self) -> Self:
        if len({item.space for item in self.prompt}) > 1:
            raise ValueError("all objects of a prompt must be in one space")
        return self


class WeightsSection(Section):
    """``[weights]``: where ``voxgate weights install`` puts what engines need."""

    path: Path = Path("~/.local/share/voxgate/weights")


class EngineSection(Section):
    """``[engines.<name>]``: where the weights are, and where and how the engine computes."""

    enabled: bool = True
    weights: Path | None = None
    device: Annotated[
        str, _form(r"(auto|cpu|mps|cuda(:[0-9]{1,3})?)?", "must be auto, cpu, mps, cuda or cuda:<number>")
    ] = ""
    deadline_s: Annotated[int, Field(gt=0)] | None = None
    """A case that runs longer is taken to hang; default: what the engine declares."""
    base_model: str = ""
    accept_license: str = ""
    precision: str = ""
    orientation: str = ""
    batch: Annotated[int, Field(ge=1, le=8)] = 8
    window: Annotated[tuple[float, float] | None, BeforeValidator(_as_list)] = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    vram_gb: Annotated[float, Field(gt=0)] | None = None
    cpu_fallback: bool = False
