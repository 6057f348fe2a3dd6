"""Earlier studies of a patient, by modality, body part and distance in days; no date leaves this module."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from domain.context import Prior
from volume.attributes import Attributes
from volume.context import read_context, study_day
from volume.patient import patient_digest

_MOST = 8
_IMAGING = frozenset(
    {"CR", "CT", "DX", "IO", "MG", "MR", "NM", "PT", "PX", "RF", "RG", "US", "XA", "XC", "OP", "OCT"}
)
"""Modalities that are compared with; reports, segmentations, waveforms and captures of screens are not."""


def priors_of(path: Path, others: Iterable[Path]) -> tuple[Prior, ...] | None:
    """Return what was imaged before, latest first, each modality and part of a day once.

    What is of the same day is left out: which was first is not certain. ``None`` where the study itself has no date.

    Parameters
    ----------
    path
        An instance of the study.
    others
        One instance of each series of the same patient's other studies.
    """
    day = study_day(path)
    if day is None:
        return None
    found = set()
    for other in others:
        earlier = study_day(other)
        if earlier is None or earlier >= day:
            continue
        said = read_context(other)
        if said.modality in _IMAGING:
            found.add(Prior(modality=said.modality or "", body_part=said.body_part, days_before=(day - earlier).days))
    # A scout that does not say what it shows is no study of its own.
    named = {(prior.modality, prior.days_before) for prior in found if prior.body_part is not None}
    kept = [p for p in found if p.body_part is not None or (p.modality, p.days_before) not in named]
    return tuple(sorted(kept, key=lambda prior: (prior.days_before, str(prior)))[:_MOST])


def is_same_patient(first: Path, second: Path) -> bool:
    """Tell whether two instances are of one patient; where it is not certain they are not."""
    patient = _patient_of(first)
    return patient is not None and patient == _patient_of(second)


def _patient_of(path: Path) -> str | None:
    names = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
    read = Attributes(path, names)
    return patient_digest(*(read.first(name) for name in names))
