"""How Voxgate names itself in files and associations (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

from domain.engine import derived_uid

IMPLEMENTATION_CLASS_UID = derived_uid("implementation class")
"""Tells implementations apart, not versions; never change it."""

IMPLEMENTATION_VERSION_NAME = "VOXGATE_1"
"""SH, at most 16 characters."""
