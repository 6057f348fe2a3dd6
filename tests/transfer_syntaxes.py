"""Synthetic series in other transfer syntaxes, and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from factories import save
from pydicom.dataset import Dataset
from pydicom.pixels import compress
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless


def stored(series: Sequence[Dataset], folder: Path) -> dict[str, Path]:
    return {str(ds.SOPInstanceUID): path for ds, path in zip(series, save(series, folder), strict=True)}


def as_implicit(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def as_deflated(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def as_big_endian(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()


def as_rle(ds: Dataset) -> None:
    compress(ds, RLELossless, generate_instance_uid=False)
