"""What an engine is told about a stack beside its pixels, earlier studies of the same patient included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from domain.context import Source, StudyContext
from domain.instance import StoredInstance
from domain.ports import PatientHistory
from domain.series import Stack
from volume.context import read_context
from volume.priors import priors_of

_MOST_PRIORS = 8
_MOST_READ = 64
"""Series whose headers are read; a patient with more has been here for a long time, and the latest count."""
_IMAGING = frozenset(
    {"CR", "CT", "DX", "IO", "MG", "MR", "NM", "PT", "PX", "RF", "RG", "US", "XA", "XC", "OP", "OCT"}
)
"""Modalities that are compared with; reports, segmentations, waveforms and captures of screens are not."""


class ContextBuilder:
    """Reads the context of a stack from its first image, and what came before from the store.

    Parameters
    ----------
    history
        Where earlier studies are found; without it they are unknown.
    """

    def __init__(self, history: PatientHistory | None = None) -> None:
        self._history = history

    def of(self, stack: Stack, paths: Mapping[str, Path]) -> StudyContext:
        """Return the context of a stack; what a header does not say, or cannot be read, is unknown."""
        first = stack.headers[0]
        path = paths[first.sop_instance_uid]
        context = read_context(path, first)
        others = None if self._history is None else self._history.other_studies(first.study_instance_uid)
        priors = None if others is None else priors_of(path, _latest(others))
        if priors is None:
            return context
        source = Source(attribute="StudyDate", derived=f"distances to {len(priors)} earlier stored")
        return replace(context, priors=priors, sources={**context.sources, "priors": (source,)})


def _latest(others: tuple[StoredInstance, ...]) -> list[Path]:
    made_elsewhere = (item for item in others if not item.header.is_own_result)
    newest = sorted(made_elsewhere, key=lambda item: item.received_at, reverse=True)
    return [item.path for item in newest[:_MOST_READ]]
