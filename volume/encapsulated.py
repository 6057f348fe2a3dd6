"""The compressed frames of an instance, as they stand in its file (PS3.5 A.4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import as_pixel_options, get_decoder
from pydicom.uid import UID

from domain.instance import Header
from volume.pixel_span import PixelSpan, frame_spans, sole_frame


class Codestreams:
    """The frames of one instance, found in one pass over the heads of their fragments; several threads may read.

    Of several frames only those that are read are in memory. Where the pass finds nothing certain pydicom parses the
    file, which then is in memory.

    Parameters
    ----------
    parse
        Reads the whole dataset, where it has to be.

    Raises
    ------
    NotImplementedError
        No decoder knows the transfer syntax.
    Exception
        Whatever a damaged file leads pydicom to.
    """

    def __init__(self, header: Header, path: Path, parse: Callable[[Path], pydicom.Dataset]) -> None:
        get_decoder(UID(header.transfer_syntax_uid))  # raises where there is none: then PixelData may be anything
        self._path = path
        self._count = header.number_of_frames or 1
        self._spans: Sequence[tuple[PixelSpan, ...]] = ()
        self._frames: Sequence[bytes] = ()
        fd = os.open(path, os.O_RDONLY)
        try:
            if self._count > 1:
                self._spans = frame_spans(fd, self._count) or ()
            elif (frame := sole_frame(fd, header.pixel_data_offset)) is not None:
                self._frames = (frame,)
        finally:
            os.close(fd)
        if not self._spans and not self._frames:
            self._frames = self._parsed(parse(path))

    def _parsed(self, ds: pydicom.Dataset) -> list[bytes]:
        offsets = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
        extended = (offsets[0], offsets[1]) if all(offsets) else None
        return list(generate_frames(ds.PixelData, number_of_frames=self._count, extended_offsets=extended))

    def read(self, index: int) -> bytes:
        """Return a frame, from 0.

        Raises
        ------
        IndexError
            There are fewer.
        OSError
            The file cannot be read.
        """
        if not self._spans:
            return self._frames[index]
        fd = os.open(self._path, os.O_RDONLY)
        try:
            return b"".join(os.pread(fd, span.length, span.offset) for span in self._spans[index])
        finally:
            os.close(fd)

    @cached_property
    def options(self) -> dict[str, Any]:
        """What pydicom's decoders want to know of one frame."""
        ds = pydicom.dcmread(self._path, stop_before_pixels=True)
        options = dict(as_pixel_options(ds))
        options.pop("extended_offsets", None)
        return options | {"number_of_frames": 1}
