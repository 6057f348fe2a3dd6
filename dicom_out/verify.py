"""Proof that encoded results say what the engine said, by reading the files as a stranger would.

Nothing here uses the code that wrote the files: frames, positions and references are read from the objects, slices
from the source files, and both are compared with the findings in patient millimetres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from pydicom.valuerep import format_number_as_ds

from dicom_out.kind import Check, Kind
from dicom_out.package import Piece
from dicom_out.verify_analysed import check_analysed
from dicom_out.verify_frames import voxel_counts
from dicom_out.verify_groups import Image
from dicom_out.verify_seg import CheckedSeg
from domain.errors import VerificationFailed
from domain.image import Raster
from domain.instance import Tile
from domain.job import ResultObject
from domain.ports import Result
from domain.volume import FloatArray, Grid
from volume.frames import frames_of
from volume.header import header_of

_ONE_FOR_ALL = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_SLICE_KEYWORDS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    *_ONE_FOR_ALL,
]
_OF_ALL_TILES = frozenset(_SLICE_KEYWORDS) - {"ImagePositionPatient", "Rows", "Columns"}
_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_PLACING = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_STEP_TOLERANCE = 2e-3
"""Relative; assembly takes slices whose direction cosines differ by half of it. Another spacing is far off."""
_EDGE = 1e-3
"""Pixels; coordinates are written as 32-bit floats."""
DEFERRED = 1 << 20
"""Bytes from which a value is read, or mapped, only when it is looked at: the pixels of a segmentation."""
_IDENTITY = ("PatientID", "IssuerOfPatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "StudyID")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceSlices:
    """What the source files themselves say, in slice order."""

    sop_instance_uids: tuple[str, ...] = field(repr=False)
    sop_class_uids: tuple[str, ...] = field(repr=False)
    frame_numbers: tuple[int | None, ...]
    """``None`` for a slice that is a whole instance."""
    series_instance_uid: str = field(repr=False)
    """Of the first slice."""
    homes: Mapping[str, tuple[str, str]] = field(repr=False)
    """Study and Series Instance UID by instance."""
    frame_of_reference_uid: str = field(repr=False)
    positions_mm: npt.NDArray[np.float64] = field(repr=False)
    """Shape ``(slices, 3)``."""
    tiles: tuple[Tile, ...] = ()
    """Of each slice, where the source is a mosaic."""

    @property
    def count(self) -> int:
        """How many slices there are."""
        return len(self.sop_instance_uids)

    def image(self, k: int) -> Image:
        """Return the instance of a slice, and its frame there."""
        return self.sop_instance_uids[k], self.frame_numbers[k]

    def instances(self, count: int) -> Set[str]:
        """Return the instances of the first ``count`` slices."""
        return set(self.sop_instance_uids[:count])

    def accounts_for(self, k: int, images: tuple[Image, ...], *, is_resampled: bool) -> bool:
        """Tell whether ``images`` are the one image of slice ``k``, with its pixels where they are.

        In a mosaic they are not: those of a tile stand elsewhere.
        """
        return images == (self.image(k),) and is_resampled == bool(self.tiles)

    def drawn_on(self, image: Image, points: FloatArray) -> list[tuple[int, FloatArray]]:
        """Return the slices on which points may be drawn, with the points as the slice counts them.

        Parameters
        ----------
        points
            ``(columns, rows)`` from the corner of the image. In a mosaic they lie in one tile, or on a border of two.
        """
        found = [k for k in range(self.count) if self.image(k) == image]
        if not self.tiles:
            return [(k, points) for k in found]
        places = ((k, points - (self.tiles[k].column, self.tiles[k].row)) for k in found)
        return [
            (k, own)
            for k, own in places
            if (own >= -_EDGE).all() and (own <= (self.tiles[k].columns + _EDGE, self.tiles[k].rows + _EDGE)).all()
        ]


def verify(result: Result, objects: Sequence[ResultObject], pieces: Sequence[Piece]) -> None:
    """Compare ``objects`` with ``result``; ``pieces`` are what there must be.

    Raises
    ------
    VerificationFailed
        They differ; the message says in what.
    """
    with _unreadable_is_failed():
        first, slices = read_slices(result)
        found: dict[str, list[Dataset]] = {piece.variant: [] for piece in pieces}
        kinds = {piece.variant: piece.kind for piece in pieces}
        for item in objects:
            if item.variant not in found:
                raise VerificationFailed(f"{item.kind}: nobody gets such an object.")
            found[item.variant].append(_read(item, kinds[item.variant], first))
        checked: dict[str, CheckedSeg | None] = {"": None}
        voxels = {} if result.findings.shape is None else voxel_counts(result.findings)
        for piece in pieces:
            if not found[piece.variant]:
                raise VerificationFailed(f"{piece.kind.name}: it is missing.")
            check = Check(
                result=result,
                slices=slices,
                objects=found[piece.variant],
                options=piece.options,
                seg=checked[piece.needs],
                voxels=voxels,
            )
            checked[piece.variant] = piece.kind.verify(check)
        check_analysed(result)


@contextmanager
def _unreadable_is_failed() -> Iterator[None]:
    """An object without an attribute that every such object has is a failed one."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise VerificationFailed(f"A result object cannot be read back ({type(error).__name__}).") from error


def read_slices(result: Result) -> tuple[Dataset, SourceSlices]:
    """Return the header of the first source file, and what all of them say of their slices."""
    if isinstance(result.grid, Raster):
        return _read_pictures(result, result.grid)
    paths, grid = result.source_paths, result.patient_grid
    numbers = result.source_frames or (None,) * len(paths)
    tiles: tuple[Tile, ...] = ()
    if result.tiles:
        tiles, headers = _tiles(result)
    else:
        headers = _frames(paths, numbers) if any(numbers) else [_header(path) for path in paths]
    for keyword in _ONE_FOR_ALL:
        if len({_bytes(header, keyword) for header in headers}) > 1:
            raise VerificationFailed(f"{keyword} differs between the source's slices; a result has one.")
    if not all(_has_grid_of(header, grid) for header in headers):
        raise VerificationFailed("The source's files and the grid differ in size, orientation or PixelSpacing.")
    first = dcmread(paths[0], stop_before_pixels=True)
    return first, SourceSlices(
        sop_instance_uids=tuple(str(header.SOPInstanceUID) for header in headers),
        sop_class_uids=tuple(str(header.SOPClassUID) for header in headers),
        frame_numbers=tuple(numbers),
        series_instance_uid=str(first.SeriesInstanceUID),
        homes=_homes(headers),
        frame_of_reference_uid=str(first.FrameOfReferenceUID),
        positions_mm=np.array([[float(x) for x in header.ImagePositionPatient] for header in headers]),
        tiles=tiles,
    )


def _tiles(result: Result) -> tuple[tuple[Tile, ...], list[Dataset]]:
    """Return the tiles of a mosaic as its file says them, in slice order, with a header for each."""
    whole = dcmread(result.source_paths[0], stop_before_pixels=True)
    images = frames_of(header_of(whole, str(whole.file_meta.TransferSyntaxUID)))
    known = {
        image.tile.number: (image.tile, image.image_position_mm)
        for image in images
        if image.tile is not None and image.image_position_mm is not None
    }
    if len(set(result.source_paths)) != 1 or sorted(known) != sorted(tile.number for tile in result.tiles):
        raise VerificationFailed("The source's file and the findings differ in the tiles of the mosaic.")
    placed = [known[tile.number] for tile in result.tiles]
    headers = []
    for tile, position in placed:
        header = Dataset()
        header.update({element.tag: element for element in whole if element.keyword in _OF_ALL_TILES})
        header.Rows, header.Columns = tile.rows, tile.columns
        header.ImagePositionPatient = [format_number_as_ds(x) for x in position]
        headers.append(header)
    return tuple(tile for tile, _ in placed), headers


def _read_pictures(result: Result, raster: Raster) -> tuple[Dataset, SourceSlices]:
    """Return what images without patient coordinates say; the raster is that of the first one's frames."""
    paths = list(dict.fromkeys(result.source_paths))
    headers = [
        dcmread(path, stop_before_pixels=True, specific_tags=[*_SLICE_KEYWORDS, "NumberOfFrames"]) for path in paths
    ]
    first, count = headers[0], raster.shape[0]
    if len({_bytes(header, "PatientID") for header in headers}) > 1:
        raise VerificationFailed("PatientID differs between the source's images; a result has one.")
    if (int(first.get("NumberOfFrames") or 1), int(first.Rows), int(first.Columns)) != raster.shape:
        raise VerificationFailed("The source's files and the findings differ in frames, rows or columns.")
    frames: list[int | None] = [None] if count == 1 else list(range(1, count + 1))
    rest = headers[1:]
    return dcmread(paths[0], stop_before_pixels=True), SourceSlices(
        sop_instance_uids=tuple(str(header.SOPInstanceUID) for header in [first] * count + rest),
        sop_class_uids=tuple(str(header.SOPClassUID) for header in [first] * count + rest),
        frame_numbers=(*frames, *(None for _ in rest)),
        series_instance_uid=str(first.SeriesInstanceUID),
        homes=_homes(headers),
        frame_of_reference_uid="",
        positions_mm=np.zeros((0, 3)),
    )


def _homes(headers: Sequence[Dataset]) -> dict[str, tuple[str, str]]:
    return {
        str(header.SOPInstanceUID): (str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
        for header in headers
    }


def _has_grid_of(header: Dataset, grid: Grid) -> bool:
    """Tell whether the steps from row to row and from column to column are the grid's (PS3.3 C.7.6.2.1.1)."""
    between_rows, between_columns = (float(x) for x in header.PixelSpacing)
    cosines = np.array([float(x) for x in header.ImageOrientationPatient])
    steps = np.stack([cosines[3:] * between_rows, cosines[:3] * between_columns])
    off = np.abs(steps - grid.affine[:3, [1, 2]].T).max(axis=1) / (between_rows, between_columns)
    return (int(header.Rows), int(header.Columns)) == grid.shape[1:] and bool(off.max() <= _STEP_TOLERANCE)


def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True, specific_tags=list(_SLICE_KEYWORDS))


def _frames(paths: Sequence[Path], numbers: Sequence[int | None]) -> list[Dataset]:
    """Return a header for each frame, as a file of its own would have it; each file is read once."""
    files: dict[Path, Dataset] = {}
    headers = []
    for path, number in zip(paths, numbers, strict=True):
        if path not in files:
            files[path] = dcmread(path, stop_before_pixels=True, specific_tags=[*_SLICE_KEYWORDS, *_GROUPS])
        whole = files[path]
        header = Dataset()
        header.update({element.tag: element for element in whole if element.keyword not in _GROUPS})
        if number is not None:
            for groups in (*whole.get(_GROUPS[0], ()), whole[_GROUPS[1]].value[number - 1]):
                for macro in _PLACING:
                    for item in groups.get(macro, ()):
                        header.update(item)
        headers.append(header)
    return headers


def _read(item: ResultObject, kind: Kind, source: Dataset) -> Dataset:
    """Read an object and check that it is what the job says it is, about the same patient and study."""
    ds = dcmread(item.path, defer_size=DEFERRED)
    if not (ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == item.sop_class_uid == kind.sop_class_uid):
        raise VerificationFailed(f"{item.kind}: SOPClassUID is not the job's.")
    if not (ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == item.sop_instance_uid):
        raise VerificationFailed(f"{item.kind}: SOPInstanceUID is not the job's.")
    if ds.SeriesInstanceUID != item.series_instance_uid or ds.SeriesInstanceUID == source.SeriesInstanceUID:
        raise VerificationFailed(f"{item.kind}: SeriesInstanceUID is not the job's.")
    if ds.file_meta.TransferSyntaxUID not in (ExplicitVRLittleEndian, RLELossless):
        raise VerificationFailed(f"{item.kind}: TransferSyntaxUID is neither Explicit VR Little Endian nor RLE.")
    for keyword in _IDENTITY:
        if not _same(ds, source, keyword):
            raise VerificationFailed(f"{item.kind}: {keyword} is not the source's.")
    return ds


def _same(ours: Dataset, source: Dataset, keyword: str) -> bool:
    """Tell whether an identifier has the same bytes, or in another character set the same text."""
    left, right = (_bytes(ds, keyword) for ds in (ours, source))
    return left == right or str(ours.get(keyword) or "") == str(source.get(keyword) or "")


def _bytes(ds: Dataset, keyword: str) -> bytes:
    value = ds.get_item(keyword).value if keyword in ds else None
    return value.rstrip(b" \0") if isinstance(value, bytes) else str(value or "").encode()
