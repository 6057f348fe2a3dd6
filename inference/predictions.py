"""Questions that are answered later: kept on disk until then, and their answers until somebody has fetched them.

Each has a folder of its own. ``request.json`` is synced before the client hears of it; ``answer.json`` is renamed
into place when it is complete. What a crash left without an answer is asked again at the next start.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.errors import EngineUnavailable, OutOfSpace

log = logging.getLogger(__name__)

REQUEST, ANSWER, RESULT = "request.json", "answer.json", "result.bin"

_LONGEST_PAUSE_S = 60.0
_LOOK_S = 600.0
"""How often answers are looked for that are too old, while nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An HTTP answer: JSON, or bytes of another type."""

    status: int
    body: Mapping[str, object] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)
    content_type: str = ""
    """Of ``content``; empty: the answer is ``body``."""
    headers: Mapping[str, str] = field(default_factory=dict)


_UNREADABLE = Answered(
    status=500,
    body={
        "error": "Prediction failed",
        "details": ["The question cannot be read again: the disk damaged it. Ask again."],
    },
)


class Predictions:
    """Asks questions in the order of arrival, in threads of its own.

    Parameters
    ----------
    answer
        Answers the body of a request as ``POST /predict`` would; ``cancelled`` is asked now and then.
    most
        Questions without an answer that are kept; further ones are told to come again.
    keep_s
        How long an answer is kept.
    at_once
        Questions that are asked at the same time, and in memory.
    first_pause_s
        Before an answer for which there was no room is written again; the pause doubles, up to a minute.
    """

    def __init__(
        self,
        folder: Path,
        answer: Callable[[Any, Callable[[], bool]], Answered],
        *,
        most: int,
        keep_s: float,
        at_once: int = 1,
        clock: Callable[[], float] = time.time,
        first_pause_s: float = 1.0,
    ) -> None:
        self._folder = folder
        self._answer = answer
        self._most = most
        self._keep_s = keep_s
        self._clock = clock
        self._first_pause_s = first_pause_s
        self._changed = threading.Condition()
        self._running: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in folder.iterdir():
            if (path / ANSWER).exists() and _read_answer(path / ANSWER) is None:
                (path / ANSWER).unlink()  # what the disk has damaged is asked again
        self._waiting = [path.name for path in sorted(folder.iterdir(), key=_arrived) if not _is_answered(path)]
        for _ in range(at_once):
            threading.Thread(target=self._work, name="predictions", daemon=True).start()

    def accept(self, body: bytes) -> str:
        """Keep a question; return its id once it would survive a power cut.

        Raises
        ------
        EngineUnavailable
            Too many wait already.
        OutOfSpace
            It could not be written.
        """
        self._forget_old()
        key = uuid.uuid4().hex
        with self._changed:
            if len(self._waiting) >= self._most:
                raise EngineUnavailable("Too many questions wait already.")
            try:
                _write(self._folder / key, REQUEST, body)
            except OSError as error:
                shutil.rmtree(self._folder / key, ignore_errors=True)
                raise OutOfSpace(f"The question could not be kept (errno {error.errno}).") from error
            self._waiting.append(key)
            self._changed.notify()
        return key

    def state(self, key: str) -> str | None:
        """Return ``queued``, ``running``, ``done`` or ``failed``; ``None`` where there is no such question."""
        answered = self.answer(key)
        if answered is not None:
            return "done" if answered.status == 200 else "failed"
        with self._changed:
            if key in self._running:
                return "running"
            return "queued" if key in self._waiting else None

    def answer(self, key: str) -> Answered | None:
        """Return the answer, without its bytes; ``None`` while there is none."""
        return _read_answer(self._place(key) / ANSWER)

    def result(self, key: str) -> Path | None:
        """Return where the bytes of an answer lie; ``None`` where it is JSON, or not there yet."""
        path = self._place(key) / RESULT
        return path if self.answer(key) is not None and path.is_file() else None

    def remove(self, key: str) -> bool:
        """Withdraw a question, or forget its answer; return whether there was one."""
        found = self._place(key).is_dir()
        with self._changed:
            self._waiting = [other for other in self._waiting if other != key]
            shutil.rmtree(self._place(key), ignore_errors=True)
        return found

    def _place(self, key: str) -> Path:
        """Return a question's folder; ids are hexadecimal, so that none leads elsewhere."""
        return self._folder / (key if len(key) == 32 and set(key) <= set("0123456789abcdef") else "unknown")

    def _work(self) -> None:
        while True:
            key = self._take()
            try:
                self._work_on(key)
                is_done = True
            except OSError as error:  # the disk is gone: the question stays
                log.warning("question cannot be read", extra={"errno": error.errno})
                time.sleep(_LONGEST_PAUSE_S)
                is_done = False
            with self._changed:
                self._running.discard(key)
                if is_done:
                    self._waiting = [other for other in self._waiting if other != key]
                self._changed.notify()

    def _take(self) -> str:
        """Return the oldest question that nobody works on, once there is one."""
        with self._changed:
            while not (free := [key for key in self._waiting if key not in self._running]):
                if not self._changed.wait(min(self._keep_s, _LOOK_S)):
                    self._forget_old()
            self._running.add(free[0])
            return free[0]

    def _work_on(self, key: str) -> None:
        folder = self._place(key)
        try:
            body = json.loads((folder / REQUEST).read_bytes())
        except FileNotFoundError:
            return  # withdrawn
        except ValueError:
            answered = _UNREADABLE
        else:
            answered = self._answer(body, lambda: not (folder / REQUEST).exists())
        self._keep(answered, folder)

    def _keep(self, answered: Answered, folder: Path) -> None:
        """Write an answer; while there is no room for it, it is held and written when there is."""
        said = {"status": answered.status, "body": answered.body, "content_type": answered.content_type}
        pause_s = self._first_pause_s
        while (folder / REQUEST).exists():  # otherwise it was withdrawn
            try:
                if answered.content_type:
                    _write(folder, RESULT, answered.content)
                _write(folder, ANSWER, json.dumps(said).encode())
            except OSError as error:
                log.warning("answer cannot be kept yet", extra={"errno": error.errno, "pause_s": pause_s})
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                return

    def _forget_old(self) -> None:
        """Remove answers that nobody fetched in time, and what a crash left half written."""
        for path in list(self._folder.iterdir()):
            is_half = not (path / REQUEST).exists() and path.name not in self._waiting
            age_s = self._clock() - _arrived(path)
            if (_is_answered(path) or is_half) and age_s > self._keep_s:
                shutil.rmtree(path, ignore_errors=True)


def _read_answer(path: Path) -> Answered | None:
    """Return a kept answer, without its bytes; ``None`` where there is none that can be read."""
    try:
        return Answered(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _is_answered(path: Path) -> bool:
    return (path / ANSWER).exists() or not (path / REQUEST).exists()


def _arrived(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _write(folder: Path, name: str, data: bytes) -> None:
    """Write a file durably: synced, renamed into place, and the directory entries synced."""
    folder.mkdir(exist_ok=True, mode=0o700)
    temporary = folder / f".{name}.tmp"
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / name)
    for directory in (folder, folder.parent):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
