from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.phantom import write_phantom

ROOT = Path(__file__).resolve().parents[3]


def voxgate(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_shows_its_version_without_loading_anything_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['voxgate', 'version']\n"
        "from gateway.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'highdicom', 'dbos', 'pynetdicom', 'pydicom', 'sqlalchemy', 'flask', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.startswith("voxgate ")
    assert time.perf_counter() - began < 5


def test_a_good_configuration_is_said_to_be_good(tmp_path: Path) -> None:
    done = voxgate("check-config", cwd=tmp_path)
    assert done.returncode == 0
    assert "routes: lungs (lungs)" in done.stdout


def test_a_route_whose_engine_cannot_be_used_is_noted_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "voxgate.toml").write_text(
        '[[routes]]\nname = "chest"\nengine = "lungs"\n[engines.lungs]\nenabled = false\n'
    )
    done = voxgate("check-config", cwd=tmp_path)
    assert done.returncode == 0
    said = "note: nothing runs on route 'chest': its engine cannot be used: engines.lungs.enabled is false"
    assert said in done.stdout


def test_a_faulty_configuration_exits_with_2_and_lists_every_fault(tmp_path: Path) -> None:
    (tmp_path / "voxgate.toml").write_text('[scp]\nport = "x"\n[http]\nhots = "y"\n')
    done = voxgate("check-config", cwd=tmp_path)
    assert done.returncode == 2
    assert "scp.port:" in done.stderr
    assert "http.hots: unknown setting; did you mean host?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_made_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = voxgate("check-config", cwd=tmp_path, VOXGATE_STORE__PATH="file/store")
    assert done.returncode == 2
    assert f"store.path: file/store cannot be written: {tmp_path / 'file'} is not a folder" in done.stderr
    assert "choose another folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere", "--out", "out"], "there is no such file or folder"),
        (["send", "nowhere", "--to", "127.0.0.1:104"], "there is no such file or folder"),
        (["send", ".", "--to", "pacs"], "--to: must be HOST:PORT or a URL"),
        (["jobs", "list"], "there is no store at voxgate-data"),
        (["jobs", "list", "--state", "odd"], "--state: must be one of queued, running, "),
        (["run", ".", "--out", "out", "--engine", "nodul"], 'no engine called "nodul"; known: '),
        (
            ["run", ".", "--out", "out", "--engine", "lungs", "--point", "1,2", "--slice", "3"],
            'the engine "lungs" cannot be pointed at anything',
        ),
        (["serve", "--role", "tpu"], "--role: must be one of scp, http, worker, infer or gpu"),
        (["serve", "--role", "gpu"], "no engine has a CUDA device"),
        (["routes", "test", "nowhere"], "there is no such file or folder"),
        (["demo", "nowhere"], "there is no such file or folder"),
        (["run", ".", "--out", "/proc/voxgate"], "--out: /proc/voxgate cannot be written: "),
        (["run", ".", "--out", "out", "--preview", "/proc/a.png"], "--preview: /proc/a.png cannot be written: "),
        (["demo", "."], "no DICOM instance is in there"),
        (["demo", "--out", "/proc/voxgate"], "--out: /proc/voxgate cannot be written: "),
        (["inspect", "."], "no DICOM instance among 0 file(s)"),
        (["inspect", ".", "--png", "/proc/a.png"], "--png: /proc/a.png cannot be written: "),
        (["inspect", ".", "--png", "no/a.png"], "--png: there is no folder "),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = voxgate(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_does_not_answer_is_named_by_its_setting(tmp_path: Path) -> None:
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/voxgate"
    done = voxgate("jobs", "list", cwd=tmp_path, VOXGATE_DATABASE__URL=url)
    assert done.returncode == 1
    assert "database.url: the database cannot be reached" in done.stderr
    assert "secret" not in done.stderr


def test_a_demo_keeps_its_hands_off_what_is_not_a_demos(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "voxgate.toml").write_text("[scp]\nport = 0\n")
    done = voxgate("demo", "--out", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert "--out: . holds what is not of a demo; name a new or an empty folder" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "voxgate.toml"]


def test_a_zip_archive_is_sent_like_a_folder(tmp_path: Path) -> None:
    write_phantom(tmp_path / "series", slices=2, rows=16)
    shutil.make_archive(str(tmp_path / "series"), "zip", tmp_path / "series")
    done = voxgate("send", "series.zip", "--to", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1
    assert "0 of 2 instances stored" in done.stderr


def test_files_that_are_not_dicom_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    done = voxgate("send", "notes.txt", "--to", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 2
    assert "no DICOM instance among 1 file(s)" in done.stderr


def test_lists_engines_for_scripts(tmp_path: Path) -> None:
    done = voxgate("engines", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert '"name": "lungs"' in done.stdout
