"""Foreign programs that tests talk to: started on free ports of the loopback interface, stopped by their pid."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import requests
from pydicom import dcmread
from pydicom.dataset import Dataset

DICOMWEB_PLUGIN = "libOrthancDicomWeb.so"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class OrthancServer:
    """A running Orthanc with the DICOMweb plug-in; everything it holds is removed with its folder."""

    dimse_port: int
    http_url: str
    folder: Path
    process: subprocess.Popen[bytes]
    ae_title: str = "ORTHANC"

    @property
    def dicomweb_url(self) -> str:
        """Root of STOW-RS, QIDO-RS and WADO-RS."""
        return f"{self.http_url}/dicom-web"

    def count(self, modality: str | None = None) -> int:
        """Return how many instances it holds, of all or of one Modality."""
        return len(self.instance_ids(modality))

    def instance_ids(self, modality: str | None = None) -> list[str]:
        """Return Orthanc's own identifiers of the instances it holds, of all or of one Modality."""
        if modality is None:
            return list(self._get("/instances").json())
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        answer = requests.post(f"{self.http_url}/tools/find", json=query, timeout=30)
        answer.raise_for_status()
        return list(answer.json())

    def instances(self, modality: str | None = None) -> list[Dataset]:
        """Return the instances it holds, of all or of one Modality, as pydicom reads them."""
        return [dcmread(BytesIO(self.part10(identifier))) for identifier in self.instance_ids(modality)]

    def part10(self, identifier: str) -> bytes:
        """Return one instance as a Part 10 file; ``identifier`` is Orthanc's own."""
        return self._get(f"/instances/{identifier}/file").content

    def download(self, folder: Path, modality: str | None = None) -> list[Path]:
        """Write the instances it holds, of all or of one Modality, as files."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for identifier in self.instance_ids(modality):
            path = folder / f"{identifier}.dcm"
            path.write_bytes(self.part10(identifier))
            paths.append(path)
        return paths

    def add_modality(self, name: str, *, ae_title: str, port: int, host: str = "127.0.0.1") -> None:
        """Make ``name`` a DIMSE destination of this Orthanc."""
        answer = requests.put(f"{self.http_url}/modalities/{name}", json=[ae_title, host, port], timeout=10)
        answer.raise_for_status()

    def store_to(self, name: str, identifiers: list[str]) -> None:
        """Send resources (instance, series or study identifiers) to a destination by C-STORE; wait until sent."""
        answer = requests.post(f"{self.http_url}/modalities/{name}/store", json=identifiers, timeout=120)
        answer.raise_for_status()

    def clear(self) -> None:
        """Delete everything it holds."""
        for patient in self._get("/patients").json():
            requests.delete(f"{self.http_url}/patients/{patient}", timeout=30).raise_for_status()

    def _get(self, path: str) -> requests.Response:
        answer = requests.get(f"{self.http_url}{path}", timeout=30)
        answer.raise_for_status()
        return answer


@contextmanager
def running_orthanc(
    program: str,
    folder: Path,
    *,
    settings: Mapping[str, object] | None = None,
    plugins: tuple[str, ...] = (DICOMWEB_PLUGIN,),
) -> Iterator[OrthancServer]:
    """Run Orthanc until the block ends.

    Parameters
    ----------
    program
        Path of the executable.
    folder
        Its storage, index, configuration and log.
    settings
        Merged over the configuration, e.g. ``LuaScripts``.
    plugins
        Names of the distribution's plug-ins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dimse_port, http_port = free_port(), free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(_configuration(folder, dimse_port, http_port, plugins) | dict(settings or {}))
    )
    # Nagle's algorithm in DCMTK's network layer costs 45 ms for each instance received
    environment = os.environ | {"TCP_NODELAY": "1"}
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(configuration)], stdout=log, stderr=log, env=environment)
    server = OrthancServer(
        dimse_port=dimse_port, http_url=f"http://127.0.0.1:{http_port}", folder=folder, process=process
    )
    try:
        _await_answer(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _configuration(folder: Path, dimse_port: int, http_port: int, plugins: tuple[str, ...]) -> dict[str, object]:
    return {
        "Name": "peer",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "StorageCompression": False,
        "DicomAet": "ORTHANC",
        "DicomPort": dimse_port,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "UnknownSopClassAccepted": True,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpServerEnabled": True,
        "StableAge": 1,
        "SaveJobs": False,
        "Plugins": [f"/usr/share/orthanc/plugins/{name}" for name in plugins],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
    }


def _await_answer(server: OrthancServer, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            requests.get(f"{server.http_url}/system", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"Orthanc did not start:\n{(server.folder / 'orthanc.log').read_text()[-2000:]}")
