"""Processes that decode frames of JPEG for this one.

GDCM keeps Python's lock while it decodes, and ends its process where a frame is damaged in some ways.
"""

from __future__ import annotations

import fcntl
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, LifoQueue
from typing import IO, cast

import numpy as np

import volume.jpeg_child
from volume.jpeg_child import DONE, REQUEST, image_of, pixels_of
from volume.jpeg_form import Bytes, Form, JpegDecoder

log = logging.getLogger(__name__)

_WORTH_IT = 16 << 20
"""From how many decoded bytes on there are several: one starts while ten slices of a CT are decoded."""
_FOR_EACH = 64 << 20
"""Decoded bytes that allow for one process more: its own memory is a quarter of that."""
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""Memory of one frame is kept for the next (glibc): giving it back and getting it again is a tenth of the work."""
_TRIES = 2
"""What ended one process may have been somebody else; what ended two is the frame."""


@contextmanager
def jpeg_decoder(workers: int, size: int) -> Iterator[JpegDecoder]:
    """Yield what decodes frames for as many threads as ``workers``, in other processes, more of them for more frames.

    They start when they are needed, and end with the context, and when this process ends, however it does.

    Parameters
    ----------
    size
        How many bytes will be decoded in all.
    """
    most = 1 if size < _WORTH_IT else min(workers, max(2, size // _FOR_EACH))
    helpers = _Helpers(most)
    try:
        yield helpers.decode
    finally:
        helpers.close()


def decode(src: bytes, out: Bytes, form: Form) -> bool:
    """See ``JpegDecoder``; in a process for this frame alone."""
    with jpeg_decoder(1, form.size) as decoder:
        return decoder(src, out, form)


def _decoded_here(src: bytes, out: Bytes, form: Form) -> bool:
    image = image_of(import_module("gdcm"), src, form)
    pixels = pixels_of(image) if image.GetBufferLength() == form.size else None
    if pixels is None:
        return False
    out[:] = np.frombuffer(pixels, np.uint8)
    return True


class _Helpers:
    """Processes, started when they are needed first; frames wait for one that is free."""

    def __init__(self, most: int) -> None:
        self._free: LifoQueue[_Helper | None] = LifoQueue()
        for _ in range(most):
            self._free.put(None)

    def decode(self, src: bytes, out: Bytes, form: Form) -> bool:
        """See ``JpegDecoder``; thread-safe. A frame that ends two processes is damaged.

        Where none starts, since there is no memory or too many of them, frames are decoded here.
        """
        helper = self._free.get()
        try:
            for _ in range(_TRIES):
                try:
                    helper = helper or _Helper()
                except OSError:
                    log.warning("a process that decodes frames does not start", exc_info=True)
                    return _decoded_here(src, out, form)
                try:
                    return helper.decode(src, out, form)
                except (OSError, EOFError):
                    log.info("a process that decodes frames is gone")
                    helper.close()
                    helper = None
            return False
        finally:
            self._free.put(helper)

    def close(self) -> None:
        """End the processes."""
        with suppress(Empty):
            while True:
                helper = self._free.get_nowait()
                if helper is not None:
                    helper.close()


class _Helper:
    """One process, and the pipes to it and from it."""

    def __init__(self) -> None:
        package = find_spec("gdcm")
        if package is None or package.origin is None:
            raise OSError("gdcm is not installed")
        self._process = subprocess.Popen(
            # -I and -S: neither the environment nor site-packages decide what is imported there.
            [sys.executable, "-I", "-S", volume.jpeg_child.__file__, str(Path(package.origin).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_ENVIRONMENT,
        )
        self._to, self._from = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        with suppress(OSError):  # what the user may have of pipes may be used up
            fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, 1 << 20)

    def decode(self, src: bytes, out: Bytes, form: Form) -> bool:
        said = (form.rows, form.columns, form.allocated, form.stored, form.signed, form.samples, form.planar)
        names = form.photometric.encode("ascii"), str(form.syntax).encode("ascii")
        self._send(REQUEST.pack(*said, len(src), form.size, *names) + src)
        if self._answer() != DONE:
            return False
        view, done = out.data, 0
        while done < form.size:
            got = self._from.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise EOFError("it ended")
            done += got
        return True

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._to.write(view) :]

    def _answer(self) -> bytes:
        answer = self._from.read(1)
        if not answer:
            raise EOFError("it ended")
        return answer

    def close(self) -> None:
        """End the process and take leave of it."""
        for pipe in (self._to, self._from):
            pipe.close()
        self._process.kill()  # it holds nothing that could be lost
        self._process.wait()
