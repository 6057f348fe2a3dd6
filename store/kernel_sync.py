"""Syncs of files that the kernel carries out while this thread goes on (Linux, io_submit(2)).

A thread of ours would do as well, but for Python's lock: it would wait for it twice, and be waited for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import threading
from collections.abc import Callable

_CALLS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4)}.get(platform.machine())
"""Numbers of io_setup, io_destroy, io_submit, io_getevents."""
_LINUX = platform.system() == "Linux" and struct.calcsize("P") == 8 and _CALLS is not None
_FDSYNC = 3
_IOCB = struct.Struct("<QIIHhIQQqQII")
_EVENT = struct.Struct("<QQqq")
_ONE = ctypes.c_long(1)


def _syscall() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


class _Context:
    """A queue of the kernel's for one sync at a time."""

    def __init__(self, call: Callable[..., int]) -> None:
        self._call = call
        self._number = ctypes.c_ulong(0)
        self._block = ctypes.create_string_buffer(_IOCB.size)
        self._blocks = ctypes.c_void_p(ctypes.addressof(self._block))
        self._event = ctypes.create_string_buffer(_EVENT.size)
        self._setup, self._destroy, self._submit, self._events = _CALLS or (0, 0, 0, 0)
        if call(self._setup, _ONE, ctypes.byref(self._number)) != 0:
            raise OSError(ctypes.get_errno(), "io_setup")

    def begin(self, fd: int) -> None:
        _IOCB.pack_into(self._block, 0, 0, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, 0, 0)
        if self._call(self._submit, self._number, _ONE, ctypes.byref(self._blocks)) != 1:
            raise OSError(ctypes.get_errno(), "io_submit")

    def result(self) -> int:
        """Wait for the end of what was begun; return 0, or the number of the error."""
        while self._call(self._events, self._number, _ONE, _ONE, self._event, None) != 1:
            if ctypes.get_errno() != errno.EINTR:
                raise OSError(ctypes.get_errno(), "io_getevents")
        _, _, result, _ = _EVENT.unpack_from(self._event)
        return max(0, -int(result))

    def close(self) -> None:
        self._call(self._destroy, self._number)


class BegunSync:
    """The sync of one file; ``wait`` must be called once."""

    def __init__(self, context: _Context, fd: int, syncs: KernelSyncs) -> None:
        self._context = context
        self._fd = fd
        self._syncs = syncs

    def wait(self) -> None:
        """Return when the bytes are on the disk, and close the file.

        Raises
        ------
        OSError
            They are not.
        """
        try:
            error = self._context.result()
        except OSError:
            self._context.close()
            raise
        finally:
            os.close(self._fd)
        self._syncs.give_back(self._context)
        if error:
            raise OSError(error, "fdatasync")


class KernelSyncs:
    """Begins syncs, as long as the kernel takes them. Thread-safe; not to be carried across ``fork``."""

    def __init__(self) -> None:
        self._call = _syscall() if _LINUX else None
        self._free: list[_Context] = []
        self._lock = threading.Lock()

    def begin(self, fd: int) -> BegunSync | None:
        """Begin to sync an open file, which ``wait`` closes; ``None``: the kernel will not, and it stays open."""
        if self._call is None:
            return None
        try:
            with self._lock:
                context = self._free.pop() if self._free else None
            context = context or _Context(self._call)
        except OSError:
            self._call = None
            return None
        try:
            context.begin(fd)
        except OSError:
            context.close()
            return None
        return BegunSync(context, fd, self)

    def give_back(self, context: _Context) -> None:
        """Keep a queue for the next sync."""
        with self._lock:
            self._free.append(context)

    def close(self) -> None:
        """Give the queues back to the kernel."""
        with self._lock:
            while self._free:
                self._free.pop().close()
