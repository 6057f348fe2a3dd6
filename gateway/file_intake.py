"""Takes a user's files into a store, and says of each one what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domain.instance import Disposition, Outcome, Reception
from domain.ports import InstanceSink, StagedInstance
from gateway import wiring

OnStep = Callable[[str, float], None]
"""Called with what is being done and how much of it (0 to 1)."""
_BATCH = 64
_HEAD = 512
"""Bytes of a file that hold its preamble and its Media Storage SOP Class UID (PS3.10 7.1)."""
_MEDIA_STORAGE_DIRECTORY = b"1.2.840.10008.1.3.10"
DIRECTORY = "a DICOMDIR, which describes a medium"
"""What is said of one: every CD has it, and that it is no image is no fault of the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file that was not taken."""

    path: Path
    """As the user knows it; it may name a patient, and is for the terminal and never for logs."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesReport:
    """What became of every file; the four kinds add up to ``given``."""

    taken: int
    duplicates: tuple[Path, ...]
    """Hold an instance that another file has brought."""
    refused: tuple[LeftOut, ...]
    skipped: tuple[LeftOut, ...]
    """Hold no instance, and were not expected to."""

    @property
    def given(self) -> int:
        """Number of files."""
        return self.taken + len(self.duplicates) + len(self.refused) + len(self.skipped)


@dataclass(slots=True)
class _Sorted:
    taken: int = 0
    duplicates: list[Path] = field(default_factory=list)
    refused: list[LeftOut] = field(default_factory=list)
    skipped: list[LeftOut] = field(default_factory=list)

    def add(self, path: Path, outcome: Outcome) -> None:
        if outcome.disposition is Disposition.STORED:
            self.taken += 1
        elif outcome.disposition is Disposition.DUPLICATE:
            self.duplicates.append(path)
        else:
            self.refused.append(LeftOut(path=path, reason=str(outcome.error)))


def take_files(
    files: Sequence[Path], sink: InstanceSink, say: OnStep, *, shown: Callable[[Path], Path]
) -> FilesReport:
    """Commit the files that are DICOM; ``shown`` returns a file's path as the user knows it."""
    found = _Sorted()
    for start in range(0, len(files), _BATCH):
        say("reading", start / len(files))
        staged: list[tuple[Path, StagedInstance]] = []
        for path in files[start : start + _BATCH]:
            if _is_wanted(path, shown(path), found):
                staged.append((shown(path), _staged(path, sink)))
        reception = Reception(transport="file", sender="", address="", received_at=wiring.now())
        outcomes = sink.commit([item for _, item in staged], reception)
        for (path, _), outcome in zip(staged, outcomes, strict=True):
            found.add(path, outcome)
    return FilesReport(
        taken=found.taken,
        duplicates=tuple(found.duplicates),
        refused=tuple(found.refused),
        skipped=tuple(found.skipped),
    )


def _is_wanted(path: Path, shown: Path, found: _Sorted) -> bool:
    """Tell whether a file is to be staged; notes why not."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        found.refused.append(LeftOut(path=shown, reason=f"cannot be read ({error.strerror})"))
        return False
    if head[128:132] != b"DICM":
        found.skipped.append(LeftOut(path=shown, reason="not DICOM"))
    elif _MEDIA_STORAGE_DIRECTORY in head:
        found.skipped.append(LeftOut(path=shown, reason=DIRECTORY))
    else:
        return True
    return False


def is_directory(path: Path) -> bool:
    """Tell whether a file is a DICOMDIR."""
    try:
        with path.open("rb") as file:
            return _MEDIA_STORAGE_DIRECTORY in file.read(_HEAD)
    except OSError:
        return False


def _staged(path: Path, sink: InstanceSink) -> StagedInstance:
    item = sink.stage()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            item.write(chunk)
    return item
