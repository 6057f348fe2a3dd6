"""From which side a projection was taken, in the terms of ViewPosition (PS3.3 C.8.7.1.1.1 and C.8.11.5)."""

from __future__ import annotations

VIEW_POSITIONS: frozenset[str] = frozenset(
    (
        "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO",
        "LATERAL", "LAT",
        "CC", "MLO", "ML", "LM", "LMO", "FB", "SIO", "XCC", "XCCL", "XCCM",
    )
)  # fmt: skip
"""Defined terms, and two that are common; what else stands there may be anything."""

_BY_CODE = {
    ("SCT", "399348003"): "AP", ("SRT", "R-10206"): "AP",
    ("SCT", "272479007"): "PA", ("SRT", "R-40888"): "PA",
    ("SCT", "399173006"): "LL", ("SRT", "R-10236"): "LL",
    ("SCT", "399067008"): "LATERAL", ("SRT", "R-102CD"): "LATERAL",
    ("SCT", "399198007"): "RL", ("SRT", "R-10232"): "RL",
    ("SCT", "399162004"): "CC", ("SRT", "R-10242"): "CC",
    ("SCT", "399368009"): "MLO", ("SRT", "R-10226"): "MLO",
    ("SCT", "399260004"): "ML", ("SRT", "R-10224"): "ML",
    ("SCT", "399352003"): "LM", ("SRT", "R-10228"): "LM",
}  # fmt: skip
"""Of CID 4010 and CID 4014, with the codes of before SNOMED CT."""


def view_of_code(scheme: str, value: str) -> str:
    """Return the term that a code of ViewCodeSequence stands for; empty for one that is not known here."""
    return _BY_CODE.get(("SRT" if scheme == "SNM3" else scheme, value), "")
