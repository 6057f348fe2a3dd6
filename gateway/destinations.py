"""``[[destinations]]`` as the packages take them: where to send, and what can be asked afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicom_out.commitment import DimseCommitter
from dicom_out.destinations import make_destination
from dicom_out.finding import DimseFinder, QidoFinder
from dicom_out.settings import DimseSettings, StowSettings
from domain.ports import Destination
from gateway.sections import DestinationSection, DimseDestination, StowDestination
from pipeline.confirming import Profile
from pipeline.delivery import DeliverySettings
from scp.commitment import ReportHandler
from store.store import Store

CONFIRMATION = ("profile", "confirm", "confirm_within_h", "commitment_wait_s", "commitment_again_h", "query_level")
"""Settings that sending does not need."""


def destinations(sections: Sequence[DestinationSection]) -> dict[str, Destination]:
    """Return the destinations by name; nothing is opened yet."""
    return {section.name: make_destination(_settings(section)) for section in sections}


def profiles(sections: Sequence[DestinationSection], store: Store) -> dict[str, Profile]:
    """Return by name what each destination can tell about what it stored."""
    hearing = ReportHandler(transactions=store.transactions)
    return {
        section.name: _dimse_profile(section, hearing)
        if isinstance(section, DimseDestination)
        else _stow_profile(section)
        for section in sections
    }


def _settings(section: DestinationSection) -> DimseSettings | StowSettings:
    make: Callable[..., DimseSettings | StowSettings]
    make = DimseSettings if isinstance(section, DimseDestination) else StowSettings
    return make(**section.plain("kind", *CONFIRMATION))


def _dimse_profile(section: DimseDestination, hearing: ReportHandler) -> Profile:
    settings = DimseSettings(**section.plain("kind", *CONFIRMATION))
    committer = DimseCommitter(
        settings=settings,
        log=hearing.transactions,
        on_report=hearing.on_event_report,
        wait_s=section.commitment_wait_s,
    )
    finder = DimseFinder(settings=settings, level=section.query_level)
    return Profile(
        committer=committer if "commitment" in section.confirm else None,
        finder=finder if "query" in section.confirm else None,
        rounds=_rounds(section.confirm_within_h),
        ask_again_s=3600.0 * section.commitment_again_h,
    )


def _stow_profile(section: StowDestination) -> Profile:
    finder = QidoFinder(settings=StowSettings(**section.plain("kind", *CONFIRMATION)))
    return Profile(finder=finder if "query" in section.confirm else None, rounds=_rounds(section.confirm_within_h))


def _rounds(within_h: float) -> DeliverySettings:
    return DeliverySettings(first_retry_s=2.0, max_retry_s=1800.0, give_up_after_h=within_h)
