"""Part 10 files on disk: written under temporary names, synced, renamed; no name says anything about a patient."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

from domain.errors import OutOfSpace, StorageError
from store.database import translated
from store.kernel_sync import BegunSync, KernelSyncs

INSTANCES = "instances"
QUARANTINE = "quarantine"
RESULTS = "results"
_TEMPORARY = "tmp"
_MIB = 1 << 20
_CHECK_EVERY = 16 * _MIB
"""Free space is looked at again after this many bytes of one instance."""
_OPEN_FILES = 64
_SYNC_THREADS = 8
# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)
_AHEAD = _MIB // 4
"""After this many bytes the disk begins to write them, so that the sync at the end waits for less."""
_WRITE = 2
"""SYNC_FILE_RANGE_WRITE (sync_file_range(2)): begins, waits for nothing, promises nothing."""


class StagedFile:
    """A ``StagedInstance``: a file in this process' temporary folder."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._discarded = False
        self._unchecked = 0
        self._ahead = 0
        self._syncing: Future[None] | None = None
        self._begun: BegunSync | None = None
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        files.opened(self)

    def write(self, data: bytes | memoryview) -> None:
        """See ``StagedInstance.write``; what could not be written whole is discarded at once."""
        try:
            with translated(), self._lock:
                self._append(memoryview(data).cast("B"))
        except StorageError:
            self.discard()
            raise

    def _append(self, view: memoryview) -> None:
        self._unchecked += len(view)
        if self._unchecked >= _CHECK_EVERY:
            self._files.require_space()
            self._unchecked = 0
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            self._files.opened(self)
        self._ahead += len(view)
        while view:
            view = view[os.write(self._fd, view) :]
        if self._ahead >= _AHEAD:
            begin_writing(self._fd)
            self._ahead = 0

    def rest(self) -> None:
        """Close the file until more is written, unless that is now; more may be staged than files can be open."""
        if self._lock.acquire(blocking=False):
            try:
                if self._fd is not None:
                    os.close(self._fd)
                    self._fd = None
            finally:
                self._lock.release()

    def finish(self) -> None:
        """See ``StagedInstance.finish``: the bytes go to the disk while others are still received or read."""
        self._files.closed(self)
        with self._lock:
            if self._syncing is None and self._begun is None:
                fd, self._fd = self._fd, None
                self._syncing = self._files.sync_soon(self.path, fd)

    def begin_sync(self) -> None:
        """See ``StagedInstance.begin_sync``."""
        self._files.closed(self)
        with self._lock:
            if self._fd is not None and self._syncing is None:
                self._begun = self._files.kernel_syncs.begin(self._fd)
                self._fd = None if self._begun else self._fd

    def sync(self) -> None:
        """Return when all bytes are on the disk: at once in this thread, unless that has begun already."""
        self._files.closed(self)
        with self._lock:
            begun, self._begun = self._begun, None
            if begun is not None:
                begun.wait()
                return
            if self._syncing is None:
                fd, self._fd = self._fd, None
                sync_file(self.path, fd)
                return
        self._syncing.result()

    def discard(self) -> None:
        """See ``StagedInstance.discard``."""
        if self._discarded:
            return
        self._discarded = True
        with suppress(OSError), self._lock:
            begun, self._begun = self._begun, None
            if begun is not None:
                begun.wait()
        self.rest()
        self._files.closed(self)
        self.path.unlink(missing_ok=True)


class Files:
    """The folders of the store. Thread-safe, and safe for several processes on one folder."""

    def __init__(self, root: Path, *, low_water_mb: int) -> None:
        self.root = root.resolve()
        self._low_water = low_water_mb * _MIB
        self._numbers = count()
        self._open: OrderedDict[int, StagedFile] = OrderedDict()
        self._lock = threading.Lock()
        self.kernel_syncs = KernelSyncs()
        self._handed = threading.Semaphore(2 * _SYNC_THREADS)
        self._syncers = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="sync")
        with translated():
            self._make_folders()
            self._temporary, self._alive = self._own_folder()

    def close(self) -> None:
        """Remove this process' temporary files."""
        self._syncers.shutdown()
        self.kernel_syncs.close()
        shutil.rmtree(self._temporary, ignore_errors=True)
        os.close(self._alive)

    def _make_folders(self) -> None:
        """Create the folders and make their names durable once, so that no commit has to."""
        for name in (_TEMPORARY, RESULTS, INSTANCES, QUARANTINE):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for area in (INSTANCES, QUARANTINE):
            if sum(1 for _ in (self.root / area).iterdir()) < 256:
                for number in range(256):
                    (self.root / area / f"{number:02x}").mkdir(exist_ok=True)
            sync_folder(self.root / area)
        sync_folder(self.root)
        sync_folder(self.root.parent)

    def _own_folder(self) -> tuple[Path, int]:
        """Create this process' temporary folder, locked: in use for as long as the process lives."""
        while True:
            folder = self.root / _TEMPORARY / secrets.token_hex(8)
            folder.mkdir()
            lock = _locked(folder, fcntl.LOCK_SH)
            if lock is not None and folder.is_dir():
                return folder, lock

    def require_space(self) -> None:
        """Raise ``OutOfSpace`` below the low-water mark."""
        state = os.statvfs(self.root)
        if state.f_bavail * state.f_frsize < self._low_water:
            raise OutOfSpace("The store has reached its low-water mark")

    def stage(self) -> StagedFile:
        """Open a temporary file; see ``InstanceSink.stage``."""
        with translated():
            self.require_space()
            return StagedFile(self._temporary / f"{next(self._numbers)}.part", self)

    def opened(self, file: StagedFile) -> None:
        """Note that ``file`` is open, and close the one that was opened first if there are too many."""
        with self._lock:
            self._open[id(file)] = file
            oldest = self._open.popitem(last=False)[1] if len(self._open) > _OPEN_FILES else None
        if oldest is not None and oldest is not file:
            oldest.rest()

    def closed(self, file: StagedFile) -> None:
        """Note that ``file`` will not be written to again."""
        with self._lock:
            self._open.pop(id(file), None)

    def sync_soon(self, path: Path, fd: int | None) -> Future[None]:
        """Begin to bring a file's bytes to the disk; an open descriptor is used, and closed, at once if many wait."""
        if fd is not None and not self._handed.acquire(blocking=False):
            os.close(fd)
            fd = None
        return self._syncers.submit(self._sync_handed, path, fd)

    def _sync_handed(self, path: Path, fd: int | None) -> None:
        try:
            sync_file(path, fd)
        finally:
            if fd is not None:
                self._handed.release()

    def sync(self, paths: Sequence[Path]) -> None:
        """Bring the bytes of the files to the disk, several at a time: the disk joins their waits."""
        if len(paths) > 1:
            list(self._syncers.map(sync_file, paths))
        else:
            for path in paths:
                sync_file(path)

    def sync_folders(self, folders: Iterable[Path]) -> None:
        """Bring the names in the folders to the disk."""
        for folder in sorted(set(folders)):
            sync_folder(folder)

    def target(self, area: str, series_instance_uid: str, sop_instance_uid: str) -> Path:
        """Return a fresh name: a series shares a folder, so that a group of its instances needs one folder sync.

        The last part is random: two writers of the same instance never touch each other's file, and the index
        decides whose is kept.
        """
        series = hashlib.sha256(series_instance_uid.encode()).hexdigest()
        instance = hashlib.sha256(sop_instance_uid.encode()).hexdigest()
        return Path(f"{self.root}/{area}/{series[:2]}/{instance[:40]}-{secrets.token_hex(4)}.dcm")

    def relative(self, path: Path) -> str:
        """Return the path as the index keeps it: the store can be moved."""
        return str(path).removeprefix(f"{self.root}{os.sep}").replace(os.sep, "/")

    def is_in(self, area: str, path: Path) -> bool:
        """Tell whether a file lies in an area."""
        return str(path).startswith(f"{self.root}{os.sep}{area}{os.sep}")

    def kept(self, area: str) -> Iterator[str]:
        """Yield every file of an area, as the index names it."""
        for number in range(256):
            folder = f"{area}/{number:02x}"
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    yield f"{folder}/{entry.name}"

    def remove_stale(self) -> int:
        """Remove temporary files of processes that are gone; return how many."""
        removed = 0
        for folder in (self.root / _TEMPORARY).iterdir():
            lock = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock is not None:
                removed += sum(1 for _ in folder.glob("*.part"))
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
        return removed


def _locked(folder: Path, how: int) -> int | None:
    """Lock a folder; return what holds the lock, or ``None`` when it is in use or gone."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return Linux's call; Python has none for it."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


_range = _sync_file_range()


def begin_writing(fd: int) -> None:
    """Let the disk begin with what was written to a file; a fault shows when the file is synced."""
    if _range is not None:
        _range(fd, 0, 0, _WRITE)


def sync_file(path: Path, fd: int | None = None) -> None:
    """Bring a file's bytes and size to the disk; ``fd`` is closed."""
    if fd is None:
        fd = os.open(path, os.O_RDONLY)
    try:
        _sync_data(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
