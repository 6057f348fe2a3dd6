"""Headers and paths of files as intake would have them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from domain.errors import MalformedInstance
from domain.instance import Header
from volume.digest import inspect


def read(folder: Path) -> tuple[dict[str, list[Header]], dict[str, Path]]:
    """Return headers by series, and paths by instance; what intake would refuse (DICOMDIRs) is left out."""
    series: dict[str, list[Header]] = defaultdict(list)
    paths: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header, _ = inspect(path)
        except MalformedInstance:
            continue
        series[header.series_instance_uid].append(header)
        paths[header.sop_instance_uid] = path
    return dict(series), paths
