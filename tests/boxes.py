"""Requests to ``POST /models/medsam2/predict``, and an engine that fills the box that it is shown."""

from __future__ import annotations

import base64
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from domain.engine import Case, EngineManifest
from domain.findings import Findings, SegmentDescription
from inference.manifest import read_declaration
from inference.registry import ENGINES

MEDSAM2 = read_declaration(ENGINES / "medsam2" / "manifest.toml")


@dataclass
class BoxFiller:
    """Answers with the box itself on its slice, rounded to whole pixels."""

    manifest: EngineManifest = MEDSAM2.manifest
    error: Exception | None = None
    wait: threading.Event | None = None
    cases: list[Case] = field(default_factory=list)

    def load(self) -> None:
        """There is nothing to load."""

    def run(self, case: Case) -> Findings:
        self.cases.append(case)
        if self.wait is not None:
            self.wait.wait(10)
        if case.progress is not None:
            case.progress(0.5)
        if self.error is not None:
            raise self.error
        assert case.prompt is not None
        volume = case.the_volume()
        labels = np.zeros(volume.grid.shape, np.uint8)
        objects = case.prompt.on(volume.grid).objects
        segments = []
        for number, item in enumerate(objects, start=1):
            (k, row0, column0), (_, row1, column1) = item.boxes[0].corners if item.boxes else ((0, 0, 0), (0, 0, 0))
            labels[int(k), round(row0) : round(row1), round(column0) : round(column1)] = number
            default = MEDSAM2.manifest.segments[0]
            segments.append(
                SegmentDescription(
                    key=f"object_{number}_{case.prompt.digest[:8]}",
                    label=item.label or f"Object {number}",
                    category=item.category or default.category,
                    type=item.type or default.type,
                )
            )
        return Findings(labels=labels, segments=tuple(segments))


def nifti_file(path: Path, voxels: np.ndarray, *, spacing: tuple[float, ...] = (0.7, 0.8, 2.5)) -> Path:
    """Write voxels ``(z, y, x)`` with an origin that tells LPS from RAS."""
    image: Any = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin((-10.0, 20.0, 30.0))
    SimpleITK.WriteImage(image, str(path))
    return path


def card(*files: bytes, **changes: Any) -> dict[str, Any]:
    """Return a body as the model card has it: a box of 8 by 6 pixels on slice 5 of every image."""
    count = len(files)
    data = {
        "nii_image": [base64.b64encode(item).decode() for item in files],
        "bbox": [[4, 3, 12, 9]] * count,
        "key_slice_idx": [5] * count,
        "dicom_window": [[-160, 240]] * count,
        "slice_offset": [3] * count,
    }
    return {"input_data": {**data, **changes}}
