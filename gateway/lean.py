"""Receivers keep what they get without decoding it: decoders and numpy stay out of their memory.

What prepares the store needs none either, and the gateway waits for it: it is ready a third sooner without them.
"""

from __future__ import annotations

import sys

DECODERS = ("gdcm", "pylibjpeg", "openjpeg", "rle", "libjpeg", "jpeg_ls", "PIL", "numpy")
"""What pydicom imports for pixels when it is imported itself; without them it does all but decode."""


def keep_out_decoders() -> None:
    """Make the decoders not importable in this process; call it before anything imports pydicom.

    They are a third of a receiver's resident memory, and C code that no bytes from the network need to reach here.
    """
    for name in DECODERS:
        # None is how Python marks a module that is not to be found (the import system, Section 5.3.1).
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
