"""Who the patient is, as a digest: enough to find other studies of the same one, without a name or number."""

from __future__ import annotations

import hashlib

_NOBODY = frozenset(
    {
        "",
        "0",
        "1",
        "NA",
        "NONE",
        "NULL",
        "UNKNOWN",
        "ANON",
        "ANONYMOUS",
        "ANONYMIZED",
        "ANONYMISED",
        "TEST",
        "PATIENT",
    }
)
"""What stands in PatientID where it identifies nobody: such studies are not of one patient."""


def patient_digest(patient_id: str | None, issuer: str | None, birth_date: str | None) -> str | None:
    """Return 64 hex digits that are equal for one patient; ``None`` where PatientID does not tell patients apart.

    Issuer and birth date count with what they say, also where that is nothing: a study that lacks one of them is not
    taken for the same patient's.
    """
    known = (patient_id or "").strip().upper()
    if "".join(filter(str.isalnum, known)) in _NOBODY:
        return None
    parts = (known, (issuer or "").strip().upper(), (birth_date or "").strip())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
