from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import io, sys
from gateway.lean import DECODERS, keep_out_decoders
keep_out_decoders()
import pydicom
assert not any(sys.modules.get(name) for name in DECODERS)
from factories import ct_slice
from stow_bodies import part10
dataset = ct_slice()
assert pydicom.dcmread(io.BytesIO(part10(dataset))) == dataset
print("read")
"""


def test_pydicom_reads_and_writes_without_the_decoders() -> None:
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{SCRIPT}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr.strip()) == ("read", "")
