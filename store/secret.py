"""The installation's secret: what keeps references from being looked up elsewhere."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def installation_secret(store: Path) -> bytes:
    """Return the installation's secret, made on first use; the same for every process on this store."""
    path = store / "secret.key"
    if not path.exists():
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = store / f".secret.{os.getpid()}.{secrets.token_hex(4)}"
        fresh.touch(mode=0o600)
        with fresh.open("wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())  # an empty secret after a power cut would be everybody's
        try:
            # A link, unlike a rename, never replaces the secret that another process made a moment earlier.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()
