"""What an engine is told about a stack beside its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from domain.context import StudyContext
from domain.series import Stack
from volume.context import read_context


class ContextBuilder:
    """Reads the context of a stack from its first image."""

    def of(self, stack: Stack, paths: Mapping[str, Path]) -> StudyContext:
        """Return the context of a stack; it never fails, what cannot be read is unknown."""
        first = stack.headers[0]
        return read_context(paths[first.sop_instance_uid], first)
