"""``voxgate profiles``."""

from __future__ import annotations

from dataclasses import asdict

from pydicom.uid import UID

from dicom_out.kinds import KINDS
from dicom_out.package import kind_name
from dicom_out.profile import Options, Profile, Role
from gateway.config import Config
from gateway.profiles import profiles
from gateway.terminal import print_json, print_table, quiet_logs

_DEFAULTS = asdict(Options())


def list_profiles(config: Config, *, as_json: bool) -> None:
    """List objects, options and reason of every profile, and the destinations that have it."""
    quiet_logs()
    users = {name: [item.name for item in config.destinations if item.profile == name] for name in profiles(config)}
    if as_json:
        print_json([_as_json(profile, users[profile.name]) for profile in profiles(config).values()])
        return
    print_table(
        ("Profile", "Objects", "Options", "Destinations", "Why"),
        [
            (
                profile.name,
                _listed(profile),
                "\n".join(f"{name} = {value}" for name, value in _changed(profile).items()) or "-",
                ", ".join(users[profile.name]) or "-",
                profile.why or "-",
            )
            for profile in profiles(config).values()
        ],
    )


def _as_json(profile: Profile, users: list[str]) -> dict[str, object]:
    return {
        "name": profile.name,
        "objects": _objects(profile, profile.objects),
        "pictures": None if profile.pictures is None else _objects(profile, profile.pictures),
        "options": asdict(profile.options),
        "destinations": users,
        "why": profile.why,
    }


def _listed(profile: Profile) -> str:
    lines = [_sentence(item) for item in _objects(profile, profile.objects)]
    if profile.pictures is not None:
        lines += ["on pictures and cine:", *(f"  {_sentence(item)}" for item in _objects(profile, profile.pictures))]
    return "\n".join(lines)


def _objects(profile: Profile, roles: tuple[Role, ...]) -> list[dict[str, object]]:
    """Return the kinds that serve a profile; which of them a result has depends on what was found."""
    kinds = {kind.name: kind for kind in KINDS}
    wanted = [kinds[kind_name(role, profile.options)] for role in roles]
    return [
        {
            "kind": kind.name,
            "sop_class_uid": str(kind.sop_class_uid),
            "sop_class": UID(kind.sop_class_uid).name,
            "fallback": kind.fallback or None,
        }
        for kind in wanted
    ]


def _sentence(item: dict[str, object]) -> str:
    return f"{item['kind']}, else {item['fallback']}" if item["fallback"] else str(item["kind"])


def _changed(profile: Profile) -> dict[str, object]:
    """Return the options that are not the default, and only them."""
    return {name: value for name, value in asdict(profile.options).items() if value != _DEFAULTS[name]}
