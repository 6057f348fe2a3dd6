"""The ``ResultWriter`` of the gateway: what the destinations' profiles ask for, and the proof that it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dicom_out.derived import instance_uid, series_uid
from dicom_out.files import write_durably
from dicom_out.kind import Encoded, Order, Segmented, Work, WriterSettings
from dicom_out.kinds import KINDS
from dicom_out.package import Piece, package
from dicom_out.plain import in_plain_text
from dicom_out.profile import DEFAULT, Profile
from dicom_out.source import read_mosaic, read_source
from dicom_out.verify import verify
from domain.image import Raster
from domain.job import ResultObject
from domain.ports import Result


class Writer:
    """Writes the union of what the destinations of a result get, e.g. ``seg.dcm`` and ``sr.dcm``.

    A result in which nothing was found has no SEG: a segmentation without a frame is not allowed, one of empty
    frames looks in viewers like a finding that cannot be seen, and the report says "absent" for every segment.
    """

    def __init__(
        self,
        settings: WriterSettings | None = None,
        *,
        profiles: Mapping[str, Profile] | None = None,
        default: Profile = DEFAULT,
    ) -> None:
        self._settings = settings or WriterSettings()
        self._profiles = dict(profiles or {})
        self._default = default

    def write(self, result: Result, folder: Path) -> tuple[ResultObject, ...]:
        """Write every object into ``folder``; the same result gives the same bytes.

        Raises
        ------
        StorageError
            A file could not be written.
        """
        result = in_plain_text(result)
        if not isinstance(result.grid, Raster) and len(result.source_paths) != result.grid.shape[0]:
            raise ValueError("one source instance is needed for each slice")
        work = self._work(result)
        written: list[ResultObject] = []
        segmented: dict[str, dict[int, Segmented]] = {}
        for piece in self._package(work):
            order = Order(
                kind=piece.kind,
                variant=piece.variant,
                work=work,
                options=piece.options,
                segmented=segmented.get(piece.needs, {}),
            )
            for encoded in piece.kind.encode(order):
                item = _keep(result, piece, encoded, folder)
                written.append(item)
                segmented.setdefault(piece.variant, {}).update(_segments(item, encoded))
        return tuple(written)

    def verify(self, result: Result, objects: Sequence[ResultObject]) -> None:
        """Decode the objects again and compare them with ``result`` in patient millimetres.

        Raises
        ------
        VerificationFailed
            They differ; nothing may be sent.
        """
        result = in_plain_text(result)
        verify(result, objects, self._package(self._work(result)))

    def _work(self, result: Result) -> Work:
        if result.tiles:
            source = read_mosaic(result.source_paths[0], result.tiles, result.patient_grid)
        else:
            source = read_source(result.source_paths, result.source_frames)
        return Work(result, source, self._settings)

    def _package(self, work: Work) -> tuple[Piece, ...]:
        """Without a destination nobody refuses anything: only what the default profile asks for is written."""
        names = work.result.destinations
        wanted = {name: self._profiles.get(name, self._default) for name in names} or {"": self._default}
        return package(KINDS, work, wanted, with_fallbacks=bool(names))


def _keep(result: Result, piece: Piece, encoded: Encoded, folder: Path) -> ResultObject:
    number = "" if encoded.number == 1 else f"-{encoded.number}"
    path = folder / f"{_file_name(piece.variant)}{number}.dcm"
    write_durably(path, encoded.pieces)
    return ResultObject(
        job_id=result.job_id,
        kind=piece.kind.name,
        sop_class_uid=piece.kind.sop_class_uid,
        sop_instance_uid=instance_uid(result.job_id, piece.variant, encoded.number),
        series_instance_uid=series_uid(result.job_id, piece.variant),
        path=path,
        variant=piece.variant,
        needs=piece.needs,
        fallback=piece.fallback,
        destinations=piece.destinations if result.destinations else None,
    )


def _file_name(variant: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in variant.lower())


def _segments(item: ResultObject, encoded: Encoded) -> dict[int, Segmented]:
    return {
        number: Segmented(
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_instance_uid=item.series_instance_uid,
            number=there,
            of=number,
            frames={k: frame for (segment, k), frame in encoded.frames.items() if segment in (0, number)},
        )
        for number, there in encoded.segments.items()
    }
