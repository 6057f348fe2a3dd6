"""The ``ResultWriter`` of the gateway: SEG and SR into a folder, and the proof that they are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from dicom_out.derived import empty_object, instance_uid, own_texts, series_uid
from dicom_out.files import write_durably
from dicom_out.frames import slices_of
from dicom_out.groups import Line
from dicom_out.identity import character_set
from dicom_out.longaxis import long_axis
from dicom_out.seg import encode_seg
from dicom_out.segoptions import SegOptions
from dicom_out.segpixels import Piece
from dicom_out.segplan import SegPart, plan_seg
from dicom_out.source import Source, read_source
from dicom_out.sr import encode_sr
from dicom_out.verify import verify
from domain.job import ResultObject
from domain.ports import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """What a writer must be told."""

    software_version: str = "0"
    """Version of the gateway, for Software Versions."""
    zone: tzinfo | None = None
    """Where dates without a zone are local; ``None`` is the machine's zone."""


class Writer:
    """Writes ``seg.dcm`` (where a segment has a voxel) and ``sr.dcm`` (always).

    A result in which nothing was found has no SEG: a segmentation without a frame is not allowed, one of empty
    frames looks in viewers like a finding that cannot be seen, and the report says "absent" for every segment.
    """

    def __init__(self, settings: WriterSettings | None = None) -> None:
        self._settings = settings or WriterSettings()

    def write(self, result: Result, folder: Path) -> tuple[ResultObject, ...]:
        """Write SEG and SR into ``folder``; the same result gives the same bytes.

        Raises
        ------
        StorageError
            A file could not be written.
        """
        if len(result.source_paths) != result.grid.shape[0]:
            raise ValueError("one source instance is needed for each slice")
        source = read_source(result.source_paths, result.source_frames)
        declared = character_set(source.header, own_texts(result))
        lines: dict[int, Line] = {}
        written = []
        for part in plan_seg(result.findings, SegOptions()):
            lines = _lines(part, result, source)
            seg = self._empty(result, source, "SEG")
            pieces = encode_seg(seg, result, source, part=part, declared=declared)
            written.append(_keep(result, "SEG", SegmentationStorage, pieces, folder))
        report = encode_sr(self._empty(result, source, "SR"), result, source, lines=lines, declared=declared)
        written.append(_keep(result, "SR", Comprehensive3DSRStorage, report, folder))
        return tuple(written)

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        """Decode the objects again and compare them with ``result`` in patient millimetres.

        Raises
        ------
        VerificationFailed
            They differ; nothing may be sent.
        """
        verify(result, objects)

    def _empty(self, result: Result, source: Source, kind: str) -> Dataset:
        settings = self._settings
        return empty_object(result, source, kind=kind, software_version=settings.software_version, zone=settings.zone)


def _keep(result: Result, kind: str, sop_class_uid: str, pieces: Iterable[Piece], folder: Path) -> ResultObject:
    path = folder / f"{kind.lower()}.dcm"
    write_durably(path, pieces)
    return ResultObject(
        job_id=result.job_id,
        kind=kind,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=instance_uid(result.job_id, kind),
        series_instance_uid=series_uid(result.job_id, kind),
        path=path,
    )


def _lines(part: SegPart, result: Result, source: Source) -> dict[int, Line]:
    """Return the long axis of each segment with voxels, on the slice where it covers most pixels."""
    masks = part.masks
    if masks is None:
        return {}
    _, row_mm, column_mm = result.patient_grid.spacing_mm
    lines = {}
    for number, slices in slices_of(part.frames).items():
        areas = [np.count_nonzero(masks.mask(number, k)) for k in slices]
        k = slices[int(np.argmax(areas))]
        axis = long_axis(masks.mask(number, k), (row_mm, column_mm))
        lines[number] = Line(axis=axis, image=source.images[k])
    return lines
