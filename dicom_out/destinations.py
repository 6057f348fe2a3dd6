"""Destinations from settings, and many files to one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_out.dimse import DimseDestination
from dicom_out.settings import DimseSettings, StowSettings
from dicom_out.stow import StowDestination
from domain.errors import PeerUnreachable
from domain.ports import Destination, SendReport

_BATCH = 50
_DICOMDIR = "DICOMDIR"  # the one name that PS3.10 8.6 prescribes; it describes a medium and is never sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of many files."""

    reports: tuple[tuple[Path, SendReport], ...]
    """One for each DICOM file, in order."""
    skipped: int
    """Files that are not DICOM Part 10, and DICOMDIRs."""

    @property
    def stored(self) -> int:
        """How many the destination confirmed."""
        return sum(report.error is None for _, report in self.reports)


def make_destination(settings: DimseSettings | StowSettings) -> Destination:
    """Return the destination that ``settings`` describe; nothing is opened yet."""
    if isinstance(settings, DimseSettings):
        return DimseDestination(settings)
    return StowDestination(settings)


def send_files(
    paths: Sequence[Path],
    destination: Destination,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Sent:
    """Send the DICOM files in ``paths``, folders included; keep going after failures unless nobody is there.

    Parameters
    ----------
    paths
        Files and folders; any storage SOP class in any transfer syntax.
    destination
        Where they go.
    on_progress
        Called with how many files are done, and how many there are, before the first batch and after each.
    """
    files = list(_files(paths))
    dicom = [path for path in files if _is_part10(path)]
    reports: list[tuple[Path, SendReport]] = []
    on_progress(0, len(dicom))
    for start in range(0, len(dicom), _BATCH):
        batch = dicom[start : start + _BATCH]
        answers = destination.send(batch)
        reports += zip(batch, answers, strict=True)
        on_progress(len(reports), len(dicom))
        if all(isinstance(answer.error, PeerUnreachable) for answer in answers):
            gone = SendReport(sop_instance_uid="", error=answers[-1].error)
            reports += ((path, gone) for path in dicom[start + _BATCH :])
            break
    return Sent(reports=tuple(reports), skipped=len(files) - len(dicom))


def any_to_send(paths: Sequence[Path]) -> bool:
    """Tell whether ``send_files`` would find anything to send."""
    return any(map(_is_part10, _files(paths)))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(inner for inner in path.rglob("*") if inner.is_file())
        else:
            yield path


def _is_part10(path: Path) -> bool:
    if path.name == _DICOMDIR:
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
