"""Finds DICOM files among what a user names on the command line: files, folders, zip archives."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from domain.errors import ConfigurationError


def dicom_files(paths: Sequence[Path], unpacked: Path) -> list[Path]:
    """Return the Part 10 files below ``paths``, in the order of their names; zip archives go to ``unpacked``.

    Raises
    ------
    ConfigurationError
        A path does not exist, or no file is DICOM.
    """
    files = list(_files(paths, unpacked))
    found = [path for path in files if is_part10(path)]
    if not found:
        raise ConfigurationError(f"no DICOM instance among {len(files)} file(s)")
    return found


def is_part10(path: Path) -> bool:
    """Tell whether a file has the preamble and prefix of PS3.10 Section 7.1."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _files(paths: Sequence[Path], unpacked: Path) -> Iterator[Path]:
    for number, path in enumerate(paths):
        if not path.exists():
            raise ConfigurationError(f"{path}: there is no such file or folder")
        if path.is_dir():
            yield from _below(path)
        elif zipfile.is_zipfile(path):
            yield from _below(_unzip(path, unpacked / str(number)))
        else:
            yield path


def _below(folder: Path) -> list[Path]:
    return sorted(item for item in folder.rglob("*") if item.is_file())


def _unzip(path: Path, target: Path) -> Path:
    # zipfile strips absolute and parent paths itself.
    with zipfile.ZipFile(path) as archive:
        archive.extractall(target)
    return target
