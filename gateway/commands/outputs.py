"""Where a command is to write, looked at before it works: nobody waits for a result that has nowhere to go."""

from __future__ import annotations

from pathlib import Path

from domain.errors import ConfigurationError
from gateway.terminal import printable
from gateway.writable import obstacle


def require_writable(option: str, given: Path, folder: Path | None = None) -> None:
    """Refuse an option whose path, or the folder that it lies in, takes no file.

    Raises
    ------
    ConfigurationError
        Nothing could be written there.
    """
    why_not = obstacle(given if folder is None else folder)
    if why_not is not None:
        raise ConfigurationError(f"{option}: {printable(given)} cannot be written: {printable(Path(why_not))}")


def require_picture(option: str, file: Path) -> None:
    """Refuse a file that cannot be written, as it is a folder or lies in none.

    Raises
    ------
    ConfigurationError
        It is so.
    """
    folder = file.absolute().parent
    if file.is_dir():
        raise ConfigurationError(f"{option}: {printable(file)} is a folder; name the file")
    if not folder.is_dir():
        raise ConfigurationError(f"{option}: there is no folder {printable(folder)}")
    require_writable(option, file, folder)
