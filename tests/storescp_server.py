"""DCMTK's storescp that accepts only some SOP classes: a PACS that refuses presentation contexts."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orthanc_server import free_port


@contextmanager
def storescp(program: str, folder: Path, sop_class_uids: Sequence[str]) -> Iterator[int]:
    """DCMTK's storescp that accepts only these SOP classes; yields its port."""
    folder.mkdir()
    config, port = folder / "storescp.cfg", free_port()
    config.write_text(_association(sop_class_uids))
    command = [program, "-od", str(folder), "-xf", str(config), "Only", str(port)]
    with subprocess.Popen(command, env={"TCP_NODELAY": "1"}) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _association(sop_class_uids: Sequence[str]) -> str:
    contexts = "\n".join(f"PresentationContext{n} = {uid}\\Plain" for n, uid in enumerate(sop_class_uids, start=1))
    return f"""[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Contexts]
{contexts}
[[Profiles]]
[Only]
PresentationContexts = Contexts
"""


def _wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("storescp did not start")
