"""A real Orthanc on free loopback ports, for tests: as a destination, as a source, killed and started again."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from pydicom import dcmread
from pydicom.dataset import Dataset

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PYTHON_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")


def free_port() -> int:
    """Return a TCP port below the ephemeral range, so that no outgoing connection takes it meanwhile."""
    for _ in range(100):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port below the ephemeral range")


class OrthancServer:
    """Orthanc with its files in ``folder``; ``start()`` after ``stop()`` or ``kill()`` finds them again.

    Parameters
    ----------
    executable
        Path of the Orthanc program, from the fixture ``peer("Orthanc")``.
    folder
        Where configuration, storage, index and log go; made when absent.
    configuration
        Settings over the defaults below.
    plugins
        Shared objects to load; by default DICOMweb alone.
    ae_title
        Also the name under which other nodes must call it.
    file
        A configuration file to take as it is, instead of the settings above.

    Attributes
    ----------
    environment
        What Orthanc finds in its environment beside that of the tests.
    """

    def __init__(
        self,
        executable: str | Path,
        folder: Path,
        *,
        configuration: Mapping[str, Any] | None = None,
        plugins: tuple[Path, ...] = (DICOMWEB_PLUGIN,),
        ae_title: str = "ORTHANC",
        file: Path | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.dimse_port = free_port()
        self.http_port = free_port()
        self.folder = folder
        self.log_path = folder / "orthanc.log"
        self._executable = str(executable)
        # Orthanc answers C-STORE in two writes; with Nagle's algorithm each costs 40 ms.
        self.environment = {"TCP_NODELAY": "1"}
        self._configuration_path = file or folder / "orthanc.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._session = requests.Session()
        self._session.trust_env = False
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "Name": ae_title,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [str(path) for path in plugins],
            "HttpPort": self.http_port,
            "DicomPort": self.dimse_port,
            "DicomAet": ae_title,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "StableAge": 1,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        settings.update(configuration or {})
        if file is None:
            self._configuration_path.write_text(json.dumps(settings, indent=2))

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.http_url}/dicom-web"

    @property
    def pid(self) -> int:
        """The process that runs."""
        if self._process is None:
            raise RuntimeError("Orthanc does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything Orthanc wrote to standard error since the first start."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._session.close()

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Start Orthanc and return when its REST API answers."""
        if self._process is not None:
            raise RuntimeError("Orthanc runs already")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._executable, str(self._configuration_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Orthanc did not start:\n{self.log[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End Orthanc as its service manager would; nothing to do when it does not run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def get(self, path: str, **query: str) -> Any:
        """Return the JSON answer of ``GET path`` of the REST API."""
        answer = self._session.get(self.http_url + path, params=query, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        """Return the JSON answer of ``POST path`` of the REST API."""
        answer = self._session.post(self.http_url + path, json=body, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def instances(self) -> list[dict[str, Any]]:
        """Return every stored instance: Orthanc's ``/instances?expand`` with ``Modality`` added."""
        modality = {row["ID"]: row["MainDicomTags"].get("Modality", "") for row in self.get("/series", expand="")}
        return [
            {**row, "Modality": modality.get(row["ParentSeries"], "")} for row in self.get("/instances", expand="")
        ]

    def count(self, modality: str | None = None) -> int:
        """Return how many instances are stored, of one modality or of all."""
        return sum(modality in (None, row["Modality"]) for row in self.instances())

    def upload(self, path: Path) -> None:
        """Store one Part 10 file, or every file of a folder, by the REST API."""
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                answer = self._session.post(
                    f"{self.http_url}/instances",
                    data=file.read_bytes(),
                    headers={"Content-Type": "application/dicom"},
                    timeout=60,
                )
                answer.raise_for_status()

    def download_all(self, folder: Path, modality: str | None = None) -> list[Path]:
        """Write every stored instance (of one modality) as a Part 10 file into ``folder``; return the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for row in self.instances():
            if modality in (None, row["Modality"]):
                answer = self._session.get(f"{self.http_url}/instances/{row['ID']}/file", timeout=60)
                answer.raise_for_status()
                path = folder / f"{row['Modality'] or 'instance'}-{row['ID']}.dcm"
                path.write_bytes(answer.content)
                paths.append(path)
        return paths

    def datasets(self, modality: str | None = None) -> list[Dataset]:
        """Return every stored instance (of one modality) as pydicom reads it."""
        found: list[Dataset] = []
        for row in self.instances():
            if modality in (None, row["Modality"]):
                answer = self._session.get(f"{self.http_url}/instances/{row['ID']}/file", timeout=60)
                answer.raise_for_status()
                found.append(dcmread(BytesIO(answer.content)))
        return found

    def clear(self) -> None:
        """Delete every stored instance."""
        for patient in self.get("/patients"):
            self._session.delete(f"{self.http_url}/patients/{patient}", timeout=60).raise_for_status()

    def _answers(self) -> bool:
        try:
            return self._session.get(f"{self.http_url}/system", timeout=2).ok
        except requests.RequestException:
            return False
