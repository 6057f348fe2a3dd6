"""Reads slices whose values need no closer look: uncompressed, 16 bits, without padding, rescaled by a whole number.

Most CT is that. What a header says is judged once for all slices that say the same, since the pixels of a slice push
everything else out of the processor's cache: each call between two slices costs several times what it does elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domain.instance import Header
from volume.pixel_span import read_recorded
from volume.stored import stored_dtype, stored_range

_FORMAT = attrgetter(
    "transfer_syntax_uid",
    "bits_allocated",
    "bits_stored",
    "high_bit",
    "pixel_representation",
    "pixel_padding_value",
    "frame_number",
    "has_modality_lut_sequence",
    "rescale_slope",
    "rescale_intercept",
)
"""All that ``_Plain.of`` looks at."""


def read_plain(headers: Sequence[Header], files: Sequence[Path], voxels: npt.NDArray[np.int16]) -> list[int]:
    """Read and rescale the slices that are plain into their place in ``voxels``; return the others' indices.

    What these hold in ``voxels`` means nothing. Why one is not plain, or cannot be read, is not asked here.
    """
    formats: dict[Any, _Plain | None] = {}
    others = []
    for k, header in enumerate(headers):
        said = _FORMAT(header)
        if said not in formats:
            formats[said] = _Plain.of(header)
        plain, offset = formats[said], header.pixel_data_offset
        if plain is None or offset is None or not plain.is_read(files[k], offset, voxels[k]):
            others.append(k)
    return others


@dataclass(frozen=True, slots=True)
class _Plain:
    """What one format of pixels must hold to be rescaled by an addition."""

    dtype: np.dtype[Any]
    is_implicit: bool
    least: int | None
    """Stored values below it use bits that are not stored, or do not fit; ``None`` where there are none."""
    most: int | None
    intercept: np.int16

    @classmethod
    def of(cls, header: Header) -> Self | None:
        """Return what the slices of a header's format must hold; ``None`` where they need more than an addition."""
        slope, intercept = header.rescale_slope, header.rescale_intercept or 0.0
        if (
            header.transfer_syntax_uid not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
            or header.bits_allocated != 16
            or header.high_bit != (header.bits_stored or 0) - 1
            or header.pixel_padding_value is not None
            or header.frame_number is not None
            or header.has_modality_lut_sequence
            or slope not in (None, 1.0)
            or not intercept.is_integer()
        ):
            return None
        added = int(intercept)
        lowest, highest = stored_range(header)
        least, most = max(lowest, -(1 << 15) - added), min(highest, (1 << 15) - 1 - added)
        if least > most:
            return None
        limits = np.iinfo(stored_dtype(header))
        return cls(
            stored_dtype(header),
            header.transfer_syntax_uid == ImplicitVRLittleEndian,
            least if least > limits.min else None,
            most if most < limits.max else None,
            np.int64(added).astype(np.int16),
        )

    def is_read(self, path: Path, offset: int, out: npt.NDArray[np.int16]) -> bool:
        """Read and rescale a slice; return whether it was plain."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        try:
            if not read_recorded(fd, offset, out.data.cast("B"), implicit=self.is_implicit):
                return False
        except OSError:
            return False
        finally:
            os.close(fd)
        words = out.view(self.dtype)
        if self.least is not None and np.minimum.reduce(words, axis=None) < self.least:
            return False
        if self.most is not None and np.maximum.reduce(words, axis=None) > self.most:
            return False
        if self.intercept:
            # Modulo 2**16 that gives the right bits whenever the result fits.
            np.add(out, self.intercept, out=out)
        return True
