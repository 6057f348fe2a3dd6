"""Reads a stored object in which somebody drew."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom

from domain.errors import DrawingRefused, StorageError
from volume.drawings.reading import read_sketch
from volume.drawings.sketch import Sketch


def read_drawing(path: Path) -> Sketch:
    """Return what is drawn in a Part 10 file; see ``read_sketch``.

    Raises
    ------
    DrawingRefused
        It is no prompt.
    StorageError
        The file is gone or cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            return read_sketch(pydicom.dcmread(path))
    except OSError as error:
        raise StorageError(f"A drawing cannot be read (errno {error.errno}).") from error
    except DrawingRefused:
        raise
    except Exception as error:
        raise DrawingRefused(f"It cannot be read ({type(error).__name__}).") from None
