"""Logs that cannot name a patient: JSON lines for machines, short lines for a terminal, both on stderr."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType

from domain.errors import GatewayError
from gateway.names import PACKAGES

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_UID = re.compile(r"(?<![\d.])[0-2](?:\.\d+){4,}(?![\d.])")
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
"""Facts such as AE titles come from peers, and must not begin a line or steer a terminal."""
_SPOKEN = ("gunicorn", "alembic")
"""Foreign loggers whose messages hold no attribute values."""


def uid_ref(uid: str, *, key: bytes) -> str:
    """Return a short stable stand-in for ``uid``, for log lines.

    Keyed with the installation's secret, so that lines about one series can be joined while the UID cannot be
    looked up in a PACS by a reader of the logs.
    """
    return hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()[:10]


def silence_leaky_libraries() -> None:
    """Turn off the third-party output that quotes attribute values.

    pynetdicom logs identifiers and datasets; pydicom's validation warnings quote the offending value, which for a PN
    or DA is the patient's name or birthday.
    """
    from pynetdicom import _config

    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    for name in ("pydicom", "pynetdicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for module in ("pydicom", "highdicom"):
        warnings.filterwarnings("ignore", module=module)


class SafeFormatter(logging.Formatter):
    """Writes records without anything that is not ours to tell.

    Our messages quote no values; those of pydicom and of parsers do. Tracebacks therefore leave out the text of
    errors that are not ours, messages of foreign loggers are withheld, and UIDs (DICOM's own registered ones
    excepted) are replaced by their keyed reference.
    """

    def __init__(self, key: bytes, process: str = "") -> None:
        super().__init__()
        self._key = key
        self._process = process

    def formatException(self, ei: object) -> str:
        error = ei[1] if isinstance(ei, tuple) else None
        lines: list[str] = []
        while isinstance(error, BaseException):
            said = f": {error}" if isinstance(error, GatewayError) else ""
            lines += [*_frames(error.__traceback__), type(error).__qualname__ + said + "\n"]
            error = error.__cause__ or error.__context__
        return self.hide("".join(lines).rstrip())

    def hide(self, text: str) -> str:
        """Return ``text`` with UIDs replaced, except those that DICOM registers (PS3.6 Annex A)."""
        return _UID.sub(lambda found: self._stand_in(found.group()), text)

    def _stand_in(self, uid: str) -> str:
        return uid if uid.startswith("1.2.840.10008.") else uid_ref(uid, key=self._key)

    def facts(self, record: logging.LogRecord) -> dict[str, object]:
        """Return what was given in ``extra``."""
        return {
            name: self._fact(value)
            for name, value in vars(record).items()
            if name not in _STANDARD and not name.startswith("_")
        }

    def _fact(self, value: object) -> object:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return round(value, 3)
        if isinstance(value, Mapping):
            return {str(key): self._fact(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._fact(item) for item in value]
        if isinstance(value, BaseException) and not isinstance(value, GatewayError):
            return type(value).__qualname__
        return self.hide(str(value)).translate(_CONTROLS)

    def said(self, record: logging.LogRecord) -> str:
        """Return the message of a record, as far as it may be repeated."""
        name = record.name.partition(".")[0]
        if name in PACKAGES or name in _SPOKEN:
            return self.hide(record.getMessage())
        if record.args:
            return self.hide(str(record.msg))
        return f"message withheld ({record.module}:{record.lineno})"


class JsonFormatter(SafeFormatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": self.said(record),
        }
        entry.update({name: fact for name, fact in self.facts(record).items() if name not in entry})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(SafeFormatter):
    """A short line for people."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        facts = " ".join(f"{name}={value}" for name, value in self.facts(record).items())
        line = f"{when} {record.levelname.lower():<8}{self._process or '-':<8}{self.said(record)}  {facts}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _frames(where: TracebackType | None) -> list[str]:
    """Return the frames of a traceback without source lines' values: file, line, function, source text."""
    return traceback.format_tb(where)


def set_up_logs(*, level: str = "info", style: str = "auto", key: bytes, process: str = "") -> None:
    """Send everything that this process logs to stderr.

    Parameters
    ----------
    level
        Lowest level of our own loggers; foreign ones speak from ``warning`` on.
    style
        ``json``, ``text``, or ``auto``: text on a terminal, JSON elsewhere.
    key
        See ``uid_ref``.
    process
        Role of this process, written into each line.
    """
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((TextFormatter if text else JsonFormatter)(key, process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """Log what nobody caught; Python's own hooks would print the error's text."""
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    caught = error if error is not None else kind()
    logging.getLogger("gateway").critical("uncaught error", exc_info=(kind, caught, where))
