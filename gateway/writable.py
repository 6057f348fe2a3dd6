"""Whether files can be made in a folder, asked before work is done whose result would have nowhere to go."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile

_PROBE = bytes(4096)
"""A full disk may still have room for a name."""


def obstacle(folder: Path) -> str | None:
    """Return why no file can be made in ``folder``, which need not exist; leaves nothing behind."""
    here = folder.absolute()
    while not os.path.lexists(here) and here != here.parent:
        here = here.parent
    try:
        with TemporaryFile(dir=here, buffering=0) as file:
            file.write(_PROBE)
    except NotADirectoryError:
        return f"{here} is not a folder"
    except OSError as error:
        return error.strerror or type(error).__name__
    return None
