"""Dice of MedSAM2 on labelled volumes: ``make accuracy WEIGHTS=MedSAM2_latest.pt [ACCURACY_DATA=folder]``.

A file is an ``npz`` as MedSAM2 publishes them: ``imgs``, uint8 and windowed, and ``gts``, a label map, both
``(slices, rows, columns)``; ``spacing`` is x, y, z. Each label is prompted with its bounding box on the slice where
it is largest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domain.engine import Case
from domain.prompt import Box, ObjectPrompt, Prompt
from domain.volume import Grid, Volume
from inference.registry import Registry

Mask = npt.NDArray[np.bool_]


def accuracy(weights: Path, files: list[Path], **settings: object) -> Iterator[tuple[str, int, float]]:
    """Yield file name, label and Dice of every labelled object."""
    engine = Registry({"medsam2": {"weights": weights, **settings}}).engine("medsam2")
    for path in files:
        with np.load(path, allow_pickle=False) as archive:
            volume, truth = volume_of(archive["imgs"], archive["spacing"]), archive["gts"]
        wanted = [int(label) for label in np.unique(truth) if label]
        prompt = Prompt(objects=tuple(ObjectPrompt(boxes=(box_of(truth == label),)) for label in wanted))
        labels = engine.run(Case(volume=volume, prompt=prompt, options={"window": "0,255"})).labels
        if labels is None:
            raise RuntimeError("the engine gave no masks")
        for number, label in enumerate(wanted, start=1):
            yield path.name, label, dice(labels == number, truth == label)


def volume_of(pictures: npt.NDArray[np.uint8], spacing_mm: Any) -> Volume:
    """Return the pictures as a volume."""
    x, y, z = (float(value) for value in spacing_mm)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = z, y, x, 1
    slices, rows, columns = pictures.shape
    return Volume(
        voxels=pictures.astype(np.int16),
        grid=Grid(shape=(slices, rows, columns), affine=affine, frame_of_reference_uid="2.25.1"),
        sop_instance_uids=tuple(f"2.25.{number + 1}" for number in range(slices)),
    )


def box_of(mask: Mask) -> Box:
    """Return the bounding box of a mask on the slice where it has most pixels."""
    k = int(mask.sum(axis=(1, 2)).argmax())
    rows, columns = (np.flatnonzero(mask[k].any(axis=axis)) for axis in (1, 0))
    return Box(corners=((k, float(rows[0]), float(columns[0])), (k, float(rows[-1]), float(columns[-1]))))


def dice(mask: Mask, truth: Mask) -> float:
    """Return twice the overlap over the sum; 1 where both are empty."""
    total = np.count_nonzero(mask) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(mask & truth) / total if total else 1.0


def main(weights: str, *places: str) -> None:
    """Print a line for each object and the mean."""
    files = [file for place in places for file in sorted(Path(place).glob("*.npz"))]
    found = []
    for name, label, value in accuracy(Path(weights), files):
        found.append(value)
        print(f"{name}  label {label}  Dice {value:.4f}", flush=True)
    if not found:
        sys.exit(f"no labelled npz in {', '.join(places)}")
    print(f"mean of {len(found)}: {np.mean(found):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
