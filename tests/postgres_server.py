"""A PostgreSQL server on a free loopback port, for tests: stopped and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orthanc_server import free_port

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def postgres_programs() -> Path | None:
    """Return the folder of the newest installed server's programs."""
    return _FOLDERS[0] if _FOLDERS else None


class PostgresServer:
    """A server in a temporary folder, started; ``start()`` after ``stop()`` finds its data again.

    PostgreSQL refuses to run as root: then the account that its package made runs it.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._as_server = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._folder = Path(tempfile.mkdtemp(prefix="voxgate-postgres-"))
        if self._as_server:
            shutil.chown(self._folder, "postgres")
        port = free_port()
        self.url = f"postgresql+psycopg://voxgate@127.0.0.1:{port}"
        """Without a database's name."""
        self._options = f"-p {port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("initdb", "-D", str(self._data), "-U", "voxgate", "-A", "trust", "-N")
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start and return when connections are taken."""
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-o", self._options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """Stop at once, as a crash would."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Remove the data."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_server, str(self._programs / program), *arguments]
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL)


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """Run a server; yields ``postgresql+psycopg://…`` without a database's name."""
    server = PostgresServer(programs)
    try:
        yield server.url
    finally:
        server.stop()
        server.remove()
