"""An engine's findings on disk, between the process that computed them and the one that encodes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from domain.findings import Detection, Evaluation, Findings, Measurement, SegmentDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    started_at: datetime
    has_labels: bool
    segments: tuple[SegmentDescription, ...]
    measurements: tuple[Measurement, ...]
    evaluations: tuple[Evaluation, ...]
    narrative: str
    # What earlier releases did not write: a job may be encoded by a newer one than ran its engine.
    impression: str = ""
    detections: tuple[Detection, ...] = ()
    masks: int = 0
    probabilities: int = 0


_RECORD = TypeAdapter(_Record)
FINDINGS = "findings.json"
"""Complete findings have this file."""
_LABELS = "labels.npy"
_MASK = "mask-{}.npy"
_PROBABILITY = "probability-{}.npy"


def save_findings(findings: Findings, started_at: datetime, folder: Path) -> None:
    """Write findings into ``folder``, durably; the JSON file is renamed into place last and marks completeness."""
    folder.mkdir(parents=True, exist_ok=True)
    if findings.labels is not None:
        _save(findings.labels, folder / _LABELS)
    for name, arrays in ((_MASK, findings.masks), (_PROBABILITY, findings.probabilities)):
        for number, array in enumerate(arrays):
            _save(array, folder / name.format(number))
    record = _Record(
        started_at=started_at,
        has_labels=findings.labels is not None,
        segments=findings.segments,
        measurements=findings.measurements,
        evaluations=findings.evaluations,
        narrative=findings.narrative,
        impression=findings.impression,
        detections=findings.detections,
        masks=len(findings.masks),
        probabilities=len(findings.probabilities),
    )
    temporary = folder / f".{FINDINGS}.tmp"
    with temporary.open("wb") as file:
        file.write(_RECORD.dump_json(record))
        _sync(file.fileno())
    temporary.replace(folder / FINDINGS)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_findings(folder: Path) -> tuple[Findings, datetime]:
    """Return what ``save_findings`` wrote: the findings and the start of the analysis.

    Raises
    ------
    FileNotFoundError
        Nothing complete is there.
    """
    record = _RECORD.validate_json((folder / FINDINGS).read_bytes())
    labels = _load(folder / _LABELS) if record.has_labels else None
    findings = Findings(
        labels=labels,
        segments=record.segments,
        measurements=record.measurements,
        evaluations=record.evaluations,
        narrative=record.narrative,
        impression=record.impression,
        detections=record.detections,
        masks=tuple(_load(folder / _MASK.format(number)) for number in range(record.masks)),
        probabilities=tuple(_load(folder / _PROBABILITY.format(number)) for number in range(record.probabilities)),
    )
    return findings, record.started_at


def _save(array: npt.NDArray[np.generic], path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        _sync(file.fileno())


def _load(path: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)
