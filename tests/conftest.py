"""Fixtures for every test: real data that may be absent, foreign programs that may be absent."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from orthanc_server import OrthancServer
from postgres_server import postgres_programs, postgres_server
from sqlalchemy import create_engine

from gateway.commands.weights import install_weights
from gateway.config import load_config
from gateway.wiring import weights_folder
from inference.manifest import read_declaration
from inference.registry import ENGINES

SHARED = Path(os.environ.get("VOXGATE_SHARED", Path(__file__).resolve().parents[2] / "shared"))

# How long an example takes depends on what else the machine does, and speed is measured by benchmarks alone
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real, de-identified DICOM; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def check_objects() -> Path:
    """The independent judge of result objects; skips where it is absent."""
    script = SHARED / "tools" / "check_objects.py"
    if not script.is_file():
        pytest.skip(f"no judge at {script}")
    return script


@pytest.fixture(scope="session")
def unpacked(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that unpacks ``<name>.tar.xz`` of the real data once a session and returns its folder."""
    done: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in done:
            folder = tmp_path_factory.mktemp("data")
            with tarfile.open(shared_data / f"{name}.tar.xz") as archive:
                archive.extractall(folder, filter="data")
            done[name] = folder
        return done[name]

    return unpack


_FROM_WHEELS = frozenset({"dciodvfy", "dcentvfy", "segimage2itkimage", "tid1500reader", "dcm2niix"})


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """Return a function that finds a foreign program, or skips; fails where VOXGATE_REQUIRE_PEERS=1.

    DCMTK's programs are taken from the system, never from the virtual environment: pynetdicom installs its own
    programs of the same names there, and the check would not be independent.
    """

    def find(name: str) -> str:
        system = os.pathsep.join(("/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"))
        own = str(Path(sys.executable).parent)
        search = own if name in _FROM_WHEELS else system
        found = shutil.which(name, path=search)
        if found is None:
            message = f"{name} is not installed (make peers)"
            if os.environ.get("VOXGATE_REQUIRE_PEERS") == "1":
                pytest.fail(message)
            pytest.skip(message)
        return found

    return find


@pytest.fixture(scope="session")
def models() -> Callable[..., None]:
    """Return a function that asks for model libraries, e.g. ``models("torch")``; it skips where one is not installed.

    It fails where VOXGATE_REQUIRE_MODELS=1. Import them after it, inside the test: the core does without them.
    """

    def need(*names: str) -> None:
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        if missing:
            without_models(f"not installed: {', '.join(missing)} (make models)")

    return need


@pytest.fixture(scope="session")
def deepbet_weights(models: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with deepbet's: the configured one, or a fresh one where models are required."""
    models("torch")
    package = read_declaration(ENGINES / "deepbet" / "manifest.toml").weights
    assert package is not None
    config = load_config()
    folder = weights_folder(config)
    if folder is not None and package.fault(folder / "deepbet") is None:
        return folder
    if os.environ.get("VOXGATE_REQUIRE_MODELS") != "1":
        pytest.skip("deepbet's weights are not installed (voxgate weights install deepbet)")
    fresh = tmp_path_factory.mktemp("weights")
    install_weights(load_config(None, {"VOXGATE_WEIGHTS__PATH": str(fresh)}), "deepbet", None)
    return fresh


def without_models(reason: str) -> None:
    """Skip, or fail where models are required."""
    if os.environ.get("VOXGATE_REQUIRE_MODELS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def language_models(models: Callable[..., None]) -> None:
    """What a language model needs is installed; skips or fails as ``models``."""
    models("torch", "transformers", "safetensors")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden vectors, which a licence keeps out of the project; skips where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"no golden vectors at {folder}")
    return folder


@pytest.fixture(scope="module")
def orthanc(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """A real Orthanc with DICOMweb on free ports, one for each test module; ``orthanc.clear()`` empties it."""
    with OrthancServer(peer("Orthanc"), tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server without a database's name; skips where none can be run."""
    programs = postgres_programs()
    if programs is None:
        message = "PostgreSQL is not installed (make peers)"
        if os.environ.get("VOXGATE_REQUIRE_PEERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with postgres_server(programs) as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """URL of a fresh, empty PostgreSQL database."""
    name = f"voxgate_{uuid.uuid4().hex}"
    engine = create_engine(f"{postgres}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{postgres}/{name}"
