"""Our package names are ours: a guard against foreign distributions of the same names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    "domain", "volume", "pipeline", "store", "scp", "dicomweb", "inference", "dicom_out", "gateway",
)  # fmt: skip
HERE = Path(__file__).resolve().parents[1]


def foreign_packages() -> dict[str, str]:
    """Return our package names that resolve elsewhere, with where they do.

    PyPI has modules called ``scp`` and ``inference``. In an editable install site-packages comes first, so either
    would be imported in place of ours.
    """
    found = {name: find_spec(name) for name in PACKAGES}
    return {
        name: (spec.origin or "namespace package") if spec else "not installed"
        for name, spec in found.items()
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent != HERE / name
    }
