from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from factories import ct_series, save

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "run", *arguments, "--out", "out"],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three slices, one of them twice, one with an empty UID, one cut short, a DICOMDIR and a text."""
    series = ct_series(4)
    nameless = series.pop()
    nameless.SeriesInstanceUID = ""
    here = tmp_path / "study"
    paths = save(series, here)
    (here / "again.dcm").write_bytes(paths[0].read_bytes())
    (here / "cut.dcm").write_bytes(paths[1].read_bytes()[:400])
    nameless.save_as(here / "nameless.dcm", enforce_file_format=True)
    (here / "notes.txt").write_text("hello")
    class_uid = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
    (here / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + class_uid)
    return here


def test_every_file_that_was_left_out_is_named_with_the_reason(folder: Path, tmp_path: Path) -> None:
    done = run("study", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    (empty,) = [line for line in lines if "study/nameless.dcm: " in line]
    assert "SeriesInstanceUID" in empty
    assert any("study/cut.dcm: " in line for line in lines)
    assert any("study/notes.txt: skipped, not DICOM" in line for line in lines)
    assert any("study/DICOMDIR: skipped, a DICOMDIR" in line for line in lines)
    assert "instance refused" not in done.stderr
    assert lines[-1] == "8 files: 3 taken, 1 duplicate, 2 refused, 2 skipped"


def test_scripts_read_the_same_about_each_file(folder: Path, tmp_path: Path) -> None:
    done = run("study", "--json", cwd=tmp_path)
    assert done.returncode == 1
    said = json.loads(done.stdout)
    files = said["files"]
    assert [series["state"] for series in said["series"]] == ["not-run"]
    assert (files["given"], files["taken"]) == (8, 3)
    assert {item["path"] for item in files["refused"]} == {"study/cut.dcm", "study/nameless.dcm"}
    assert all(item["reason"] for item in files["refused"])
    assert files["duplicates"] == ["study/again.dcm"] or files["duplicates"] == ["study/00000.dcm"]
    assert {item["path"]: item["reason"] for item in files["skipped"]} == {
        "study/notes.txt": "not DICOM",
        "study/DICOMDIR": "a DICOMDIR, which describes a medium",
    }
    assert files["given"] == files["taken"] + sum(len(files[name]) for name in ("duplicates", "refused", "skipped"))


def test_a_series_that_nothing_takes_is_an_answer(tmp_path: Path) -> None:
    save(ct_series(3), tmp_path / "study")
    done = run("study", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not-run" in done.stdout
    assert done.stderr.splitlines()[-1] == "3 files: 3 taken"


def test_where_every_instance_was_refused_each_is_still_named(tmp_path: Path) -> None:
    (dataset,) = ct_series(1)
    dataset.SeriesInstanceUID = ""
    dataset.save_as(tmp_path / "alone.dcm", enforce_file_format=True)
    done = run("alone.dcm", cwd=tmp_path)
    assert done.returncode == 1
    assert "alone.dcm: refused: " in done.stderr
    assert done.stderr.splitlines()[-1] == "1 file: 0 taken, 1 refused"


def test_a_file_of_an_archive_is_named_below_the_archive(tmp_path: Path) -> None:
    save(ct_series(2), tmp_path / "study")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(tmp_path / "study" / "00000.dcm", "ct/00000.dcm")
        archive.writestr("ct/readme.txt", "hello")
    done = run("study.zip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "study.zip/ct/readme.txt: skipped, not DICOM" in done.stderr


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    save(ct_series(1), tmp_path / "study")
    (tmp_path / "study" / "a\x1b[2J\nb.txt").write_text("hello")
    done = run("study", cwd=tmp_path)
    assert "\\x1b[2J\\nb.txt: skipped, not DICOM" in done.stderr
