"""The optional parts of an installation, for the tests that need them."""

from __future__ import annotations

import importlib.util
import os

import pytest


def require_models() -> None:
    """Skip the calling module or test where the extra [models] is missing; fail where VOXGATE_REQUIRE_MODELS=1."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if not missing:
        return
    message = f"not installed: {', '.join(missing)} (make models)"
    if os.environ.get("VOXGATE_REQUIRE_MODELS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)
