"""Where what was sent is unpacked: a temporary folder, and archives whose word counts for nothing."""

from __future__ import annotations

import errno
import io
import logging
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors import OutOfSpace
from inference.predict_request import InvalidRequest
from inference.predict_settings import PredictSettings

log = logging.getLogger(__name__)

_DIRECTORY_ENTRY = b"PK\x01\x02"
_CHUNK = 1 << 20


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder of its own, and remove it.

    Raises
    ------
    OutOfSpace
        The disk with the temporary files is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="voxgate-predict-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.warning("no room for temporary files", extra={"folder": tempfile.gettempdir(), "errno": error.errno})
        raise OutOfSpace("The gateway's disk for temporary files has no room for what was sent.") from error


def unpack(data: bytes, folder: Path, settings: PredictSettings, room: int) -> int:
    """Write an archive's entries under numbers of their own, no name of the archive; return how many bytes they have.

    Raises
    ------
    InvalidRequest
        413 where there are too many entries, or more than ``room`` bytes of them; 422 where it is no archive.
    """
    # Its directory is read as a whole. One that only says "few files" could hold millions, folders included.
    if data.count(_DIRECTORY_ENTRY) > 2 * settings.most_entries:
        raise _too_many(settings)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception:  # the module raises what it meets: BadZipFile, ValueError, NotImplementedError …
        raise InvalidRequest(422, ["images[0].data: not a zip archive"]) from None
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > settings.most_entries:
            raise _too_many(settings)
        unpacked = 0
        for index, entry in enumerate(entries):
            unpacked += _extract(archive, entry, folder / str(index), room - unpacked)
        return unpacked


def _too_many(settings: PredictSettings) -> InvalidRequest:
    return InvalidRequest(413, [f"images[0].data: more than {settings.most_entries} files in the archive"])


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, room: int) -> int:
    """Write one entry; return its size. What the directory says about it is the sender's word, so it is counted."""
    written = 0
    with path.open("wb") as target:
        for chunk in _chunks(archive, entry):
            written += len(chunk)
            if written > room:
                raise InvalidRequest(413, ["images[0].data: unpacks to more than [predict] most_unpacked_mb"])
            target.write(chunk)
    return written


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of an entry; nothing of it is on the disk, so that every fault is the sender's."""
    try:
        with archive.open(entry) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except Exception:
        raise InvalidRequest(422, ["images[0].data: a file of the archive cannot be unpacked"]) from None
