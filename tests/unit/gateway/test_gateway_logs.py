from __future__ import annotations

import json
import logging
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.errors import MalformedInstance
from gateway.logs import JsonFormatter, TextFormatter, set_up_logs, uid_ref
from gateway.names import PACKAGES
from store.secret import installation_secret

KEY = b"k" * 32
UID = "1.2.276.0.7230010.3.1.2.8323329.5576.1495927169.580351"


class Written:
    """What went to stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def text(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What the logs say; everything that ``set_up_logs`` changed is put back afterwards."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level
    yield Written(capsys)
    logging.captureWarnings(False)
    root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_writes_one_json_object_a_line_with_the_facts(stderr: Written) -> None:
    set_up_logs(key=KEY, process="scp")
    logging.getLogger("scp.handlers").info("c-store refused", extra={"status": 0xA700, "took_s": 0.12345})
    (line,) = stderr.lines()
    assert line["message"] == "c-store refused"
    assert (line["level"], line["process"], line["logger"]) == ("info", "scp", "scp.handlers")
    assert (line["status"], line["took_s"]) == (0xA700, 0.123)
    assert line["time"].endswith("+00:00")


def test_a_traceback_keeps_our_words_and_withholds_those_of_others(stderr: Written) -> None:
    set_up_logs(key=KEY)
    try:
        try:
            int("CANARY".lower())
        except ValueError as error:
            raise MalformedInstance("StudyDate cannot be read") from error
    except MalformedInstance:
        logging.getLogger("pipeline").exception("failed")
    (line,) = stderr.lines()
    assert "MalformedInstance: StudyDate cannot be read" in line["traceback"]
    assert "ValueError" in line["traceback"]
    assert "test_gateway_logs.py" in line["traceback"]
    assert "canary" not in stderr.text()


def test_foreign_loggers_are_heard_from_warning_on_and_without_their_values(stderr: Written) -> None:
    set_up_logs(key=KEY, level="debug")
    foreign = logging.getLogger("somebody.else")
    foreign.info("CANARY")
    foreign.warning("odd value %s", "CANARY")
    foreign.error("it was CANARY")
    first, second = stderr.lines()
    assert first["message"] == "odd value %s"
    assert second["message"].startswith("message withheld")
    assert "CANARY" not in stderr.text()


def test_warnings_are_logged_without_their_text(stderr: Written) -> None:
    set_up_logs(key=KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("name is CANARY", stacklevel=1)
    assert "CANARY" not in stderr.text()


def test_uids_are_replaced_and_registered_ones_are_kept(stderr: Written) -> None:
    set_up_logs(key=KEY)
    logging.getLogger("store").info(
        "kept", extra={"series": UID, "many": [UID], "sop_class": "1.2.840.10008.5.1.4.1.1.2"}
    )
    (line,) = stderr.lines()
    assert line["series"] == uid_ref(UID, key=KEY)
    assert line["many"] == [uid_ref(UID, key=KEY)]
    assert line["sop_class"] == "1.2.840.10008.5.1.4.1.1.2"
    assert UID not in stderr.text()


def test_versions_and_addresses_are_not_taken_for_uids() -> None:
    formatter = JsonFormatter(KEY)
    assert formatter.hide("127.0.0.1 runs 3.0.4") == "127.0.0.1 runs 3.0.4"


def test_errors_given_as_facts_show_their_class_only(stderr: Written) -> None:
    set_up_logs(key=KEY)
    logging.getLogger("store").info("x", extra={"theirs": ValueError("CANARY"), "ours": MalformedInstance("no rows")})
    (line,) = stderr.lines()
    assert (line["theirs"], line["ours"]) == ("ValueError", "no rows")


def test_uncaught_errors_are_logged_without_their_text(stderr: Written) -> None:
    set_up_logs(key=KEY)
    thread = threading.Thread(target=lambda: int("CANARY"))
    thread.start()
    thread.join()
    (line,) = stderr.lines()
    assert line["message"] == "uncaught error"
    assert line["traceback"].endswith("ValueError")


def test_text_for_people_is_one_line_with_the_facts() -> None:
    record = logging.makeLogRecord({"name": "scp", "levelname": "INFO", "msg": "ready", "port": 11112})
    assert TextFormatter(KEY, "scp").format(record).endswith("info    scp     ready  port=11112")


def test_references_are_stable_and_depend_on_the_installation() -> None:
    assert uid_ref(UID, key=KEY) == uid_ref(UID, key=KEY) != uid_ref(UID, key=b"other")


def test_the_installations_secret_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(installation_secret(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("formatter", [TextFormatter(KEY), JsonFormatter(KEY)])
def test_a_fact_from_a_peer_neither_begins_a_line_nor_steers_a_terminal(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"name": "scp", "msg": "rejected", "calling_ae_title": "A\n\x1b[2J\x9b"})
    written = formatter.format(record)
    assert len(written.splitlines()) == 1
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in written)
