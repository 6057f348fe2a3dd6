"""Receivers work without decoders and numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from factories import ct_series, save

from volume.digest import inspect

SCRIPT = """
import sys
from pathlib import Path
from gateway.lean import DECODERS, keep_out_decoders
keep_out_decoders()
import gateway.wiring, scp.server, gateway.http
from volume.digest import inspect
header, digest = inspect(Path(sys.argv[1]))
assert not any(sys.modules.get(name) for name in DECODERS)
print(digest)
"""


def test_an_instance_is_read_without_decoders_and_numpy(tmp_path: Path) -> None:
    (path,) = save(ct_series(1), tmp_path)
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{SCRIPT}", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr.strip()) == (inspect(path)[1], "")
