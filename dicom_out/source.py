"""The source series as the writers need it: one header, put right on a copy, and where each slice lies."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import cast

from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit
from pydicom.valuerep import format_number_as_ds

from dicom_out.encoding import tag_of
from domain.instance import Tile
from domain.volume import Grid
from volume.charset import normalised, undeclared

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_LOSSY_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit})
"""Always with loss; the other syntaxes may be without."""
_SLICE_KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "ImagePositionPatient",
    "RecognizableVisualFeatures", "LossyImageCompression",
]  # fmt: skip
_TYPE_2 = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyID",
)  # fmt: skip
"""Type 2 of the Patient and General Study Modules (PS3.3 C.7.1.1, C.7.2.1): empty where the source lacks them."""
_TEXTS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "ReferringPhysicianName", "AccessionNumber", "StudyID",
    "StudyDescription",
)  # fmt: skip
"""Copied attributes whose bytes mean what Specific Character Set says (PS3.5 Section 6.1.2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One slice of the source."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    position: tuple[str, str, str] | None
    """ImagePositionPatient as the source wrote it, at most 16 characters a number; ``None`` without coordinates."""
    frame_number: int | None = None
    """From 1, where the slice is one frame of its instance (PS3.3 C.7.6.16)."""
    series_instance_uid: str = field(default="", repr=False)
    study_instance_uid: str = field(default="", repr=False)
    tile: Tile | None = None
    """Where the slice lies in its instance, where that is a mosaic."""
    is_recognizable: bool = False
    """Its header says that the patient can be recognised (0028,0302)."""
    is_lossy: bool = False
    """Its header or its transfer syntax says that it was compressed with loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What was analysed: a stack, or the images of a study, the first of which says whose they are."""

    header: Dataset = field(repr=False)
    """Header of the first slice, put right by ``source_header``."""
    images: tuple[SourceImage, ...] = field(repr=False)
    """In slice order."""

    @property
    def series_instance_uid(self) -> str:
        """Series of the first slice."""
        return str(self.header.SeriesInstanceUID)

    @property
    def instances(self) -> tuple[tuple[str, str], ...]:
        """SOP Class and Instance UID of each instance once, in slice order."""
        return tuple(dict.fromkeys((image.sop_class_uid, image.sop_instance_uid) for image in self.images))

    @property
    def study_instance_uid(self) -> str:
        """Study of the first slice: the one that the results belong to."""
        return str(self.header.StudyInstanceUID)

    def by_series(self, instances: Iterable[tuple[str, str]]) -> dict[str, dict[str, list[tuple[str, str]]]]:
        """Return SOP Class and Instance UIDs by study and series, each once, the results' own study first."""
        homes = {image.sop_instance_uid: image for image in self.images}
        found: dict[str, dict[str, list[tuple[str, str]]]] = {self.study_instance_uid: {}}
        for uids in dict.fromkeys(instances):
            home = homes[uids[1]]
            study = found.setdefault(home.study_instance_uid, {})
            study.setdefault(home.series_instance_uid, []).append(uids)
        return found


def read_source(paths: Sequence[Path], frames: Sequence[int | None] = ()) -> Source:
    """Read the headers of Part 10 files in slice order; pixel data is not read.

    Parameters
    ----------
    frames
        Frame of each file that is the slice; empty where every file is one slice. A file with frames is read once.
    """
    first = dcmread(paths[0], stop_before_pixels=True)
    if not frames and len(paths) == 1:
        frames = _all_frames(first)
        paths = [*paths] * max(len(frames), 1)
    if any(frames):
        images = tuple(_frame_images(paths, frames))
        for keyword in _GROUPS:  # nothing of the source's other frames belongs into a result
            first.pop(tag_of(keyword), None)
    else:
        rest = (dcmread(path, stop_before_pixels=True, specific_tags=list(_SLICE_KEYWORDS)) for path in paths[1:])
        images = tuple(_image(header) for header in (first, *rest))
    return Source(header=source_header(first), images=images)


def read_mosaic(path: Path, tiles: Sequence[Tile], grid: Grid) -> Source:
    """Read the header of a mosaic, whose tiles are the slices of ``grid``; their positions are the grid's."""
    source = read_source([path])
    corners = grid.to_lps([(k, 0, 0) for k in range(grid.shape[0])])
    images = tuple(
        replace(source.images[0], tile=tile, position=written_position(corner))
        for tile, corner in zip(tiles, corners, strict=True)
    )
    return replace(source, images=images)


def written_position(position_mm: Iterable[float]) -> tuple[str, str, str]:
    """Return a computed ImagePositionPatient as it is written."""
    x, y, z = (format_number_as_ds(round(float(value), 9) + 0.0) for value in position_mm)
    return x, y, z


def _all_frames(header: Dataset) -> tuple[int, ...]:
    """Return the frames of an instance that has several; they are its slices."""
    count = (string_values(header, "NumberOfFrames") or ["1"])[0]
    return tuple(range(1, int(count) + 1)) if count.isdecimal() and int(count) > 1 else ()


def _frame_images(paths: Sequence[Path], frames: Sequence[int | None]) -> Iterator[SourceImage]:
    headers: dict[Path, Dataset] = {}
    for path, number in zip(paths, frames, strict=True):
        if path not in headers:
            keywords = [*_SLICE_KEYWORDS, *_GROUPS]
            headers[path] = dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
        header = headers[path]
        if number is None:
            yield _image(header)
            continue
        groups = [*header.get(_GROUPS[1], ())[number - 1 : number], *header.get(_GROUPS[0], ())]
        placed = next((group.PlanePositionSequence[0] for group in groups if "PlanePositionSequence" in group), None)
        yield replace(_image(header, placed), frame_number=number)


def _image(header: Dataset, placed: Dataset | None = None) -> SourceImage:
    """Return the slice that a header describes; ``placed`` is where its position stands instead."""
    values = string_values(header if placed is None else placed, "ImagePositionPatient")
    position = None
    if len(values) == 3:
        x, y, z = (_decimal_string(value) for value in values)
        position = x, y, z
    return SourceImage(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        position=position,
        series_instance_uid=str(header.SeriesInstanceUID),
        study_instance_uid=str(header.StudyInstanceUID),
        is_lossy=string_values(header, "LossyImageCompression") == ["01"]
        or header.file_meta.get("TransferSyntaxUID") in _LOSSY_SYNTAXES,
        is_recognizable=string_values(header, "RecognizableVisualFeatures") == ["YES"],
    )


def _decimal_string(value: str) -> str:
    """Return a DS of at most 16 characters; some sources write more (PS3.5 Section 6.2)."""
    return value if len(value) <= 16 else format_number_as_ds(float(value))


def _held(header: Dataset, keyword: str) -> DataElement | RawDataElement | None:
    """Return what the header holds, not decoded where nobody has looked yet; pydicom's types do not say so."""
    return cast("DataElement | RawDataElement | None", header.get_item(Tag(tag_of(keyword))))


def raw_value(header: Dataset, keyword: str) -> bytes | None:
    """Return the bytes of a string attribute as the file holds them, ``None`` where it is absent."""
    item = _held(header, keyword)
    return (item.value or b"") if isinstance(item, RawDataElement) else None


def string_values(header: Dataset, keyword: str) -> list[str]:
    """Return the values of an attribute whose VR has ASCII characters only; empty where it is absent."""
    item = _held(header, keyword)
    if isinstance(item, DataElement):  # pydicom decodes Specific Character Set while it reads
        held = item.value if isinstance(item.value, MultiValue) else [item.value]
        values = ["" if value is None else str(value).strip(" \0") for value in held]
    else:
        raw = raw_value(header, keyword) or b""
        values = [value.strip(" \0") for value in raw.decode("ascii", "replace").split("\\")]
    return values if any(values) else []


def decoded(header: Dataset, keyword: str) -> DataElement:
    """Return an attribute decoded by the header's character set, and leave the header's bytes as they are."""
    tag = Tag(tag_of(keyword))
    item = _held(header, keyword)
    if isinstance(item, RawDataElement):
        known = item._replace(VR=dictionary_VR(tag))  # an Implicit VR source does not say
        return convert_raw_data_element(known, encoding=convert_encodings(_declared(header)))
    return item if isinstance(item, DataElement) else DataElement(tag, dictionary_VR(tag), None)


def _declared(header: Dataset) -> list[str]:
    return string_values(header, "SpecificCharacterSet")


def source_header(received: Dataset) -> Dataset:
    """Return a copy of a source header that every writer of derived objects can take.

    Real headers hold values that stop libraries, or that must not be copied into a result: an empty or misspelt
    character set, missing or impossible dates, a PixelSpacing of zero, a SpacingBetweenSlices that the positions
    contradict. The bytes of names and identifiers are left as they are. The copy is in Explicit VR, and in the
    character set that SpecificCharacterSet then declares.
    """
    header = copy.deepcopy(received)
    _declare_character_set(header)
    for keyword, separator in _FORMER:
        former = raw_value(header, keyword)
        if former is not None and separator in former:
            _set_raw(header, keyword, former.strip(b" \0").replace(separator, b""))
    for keyword, sound in _SOUND.items():
        if keyword in header and not all(sound(value) for value in string_values(header, keyword)):
            del header[tag_of(keyword)]
    for keyword in _TYPE_2:
        if keyword not in header:
            _set_raw(header, keyword, b"")
    header.pop(tag_of("SpacingBetweenSlices"), None)
    spacing = string_values(header, "PixelSpacing")
    if spacing and not all(_is_number(value) and float(value) > 0 for value in spacing):
        del header[tag_of("PixelSpacing")]
    return header


def _declare_character_set(header: Dataset) -> None:
    tag = tag_of("SpecificCharacterSet")
    terms = normalised(string_values(header, "SpecificCharacterSet"))
    if terms is None:
        terms = undeclared([raw_value(header, keyword) or b"" for keyword in _TEXTS])
    header.pop(tag, None)
    if terms is not None:
        _set_raw(header, "SpecificCharacterSet", "\\".join(terms).encode("ascii"))


def _set_raw(header: Dataset, keyword: str, value: bytes) -> None:
    tag = Tag(tag_of(keyword))
    value += b" " if len(value) % 2 else b""
    header[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def _is_date(value: str) -> bool:
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return len(value) == 8


def _is_number(value: str) -> bool:
    try:
        return abs(float(value)) < float("inf")
    except ValueError:
        return False


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


_FORMER = (("StudyDate", b"."), ("PatientBirthDate", b"."), ("StudyTime", b":"))
"""Dates and times as ACR-NEMA 300 wrote them, ``1994.01.30`` and ``11:25:01`` (PS3.5 Section 6.2)."""

_SOUND: dict[str, Callable[[str], bool]] = {
    "StudyDate": _is_date,
    "PatientBirthDate": _is_date,
    "StudyTime": _matches(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "PatientSex": _matches(r"[MFO]"),
    "PatientAge": _matches(r"\d{3}[DWMY]"),
    "PatientSize": _is_number,
    "PatientWeight": _is_number,
    "BodyPartExamined": _matches(r"[A-Z0-9_ ]{1,16}"),
    "Laterality": _matches(r"[LR]"),
    "TimezoneOffsetFromUTC": _matches(r"[+-]\d{4}"),
}
"""What a value must look like to be copied; where it does not, the attribute is taken as absent."""
