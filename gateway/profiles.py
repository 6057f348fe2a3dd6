"""``[profiles.<name>]`` and the built-in profiles as the writer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields

from dicom_out.profile import BUILT_IN, Options, Profile
from domain.errors import ConfigurationError
from gateway.config import Config
from gateway.sections import ProfileSection


def profiles(config: Config) -> dict[str, Profile]:
    """Return every profile by name, the built-in ones first."""
    own = {name: _own(name, section) for name, section in config.profiles.items()}
    return {**BUILT_IN, **own}


def profile_called(config: Config, name: str) -> Profile:
    """Return a profile.

    Raises
    ------
    ConfigurationError
        There is no such profile.
    """
    known = profiles(config)
    if name not in known:
        raise ConfigurationError(f'no profile called "{name}"; known: {", ".join(known)}')
    return known[name]


def profiles_of_destinations(config: Config) -> Mapping[str, Profile]:
    """Return the profile of each destination, by the destination's name."""
    return {item.name: profile_called(config, item.profile) for item in config.destinations}


def _own(name: str, section: ProfileSection) -> Profile:
    base = BUILT_IN[section.base]
    changed = {field.name: getattr(section, field.name) for field in fields(Options)}
    given = {key: value for key, value in changed.items() if value is not None}
    objects = base.objects if section.objects is None else tuple(dict.fromkeys(section.objects))
    pictures = base.pictures if section.pictures is None else tuple(dict.fromkeys(section.pictures))
    return Profile(
        name=name,
        objects=objects,
        pictures=None if pictures == objects else pictures,
        options=Options(**{**asdict(base.options), **given}),
        why=section.why,
    )
