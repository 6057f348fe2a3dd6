"""The seam for kinds of result objects: what each is, whether a result has it, how it is written and checked.

A kind is one file with an ``encode`` and a ``verify``, and one entry in ``dicom_out.kinds``. Everything that the
kinds of one result share (its source, its character set, which frames there are) is in ``Work``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from dicom_out.derived import empty_object, own_texts
from dicom_out.frames import Frame, frames_of, slices_of
from dicom_out.identity import character_set
from dicom_out.keyimages import KeyImage, key_images
from dicom_out.lines import Line, lines_of
from dicom_out.masks import Masks
from dicom_out.placement import Placement, on_regular, on_source
from dicom_out.profile import Options, Role
from dicom_out.segoptions import SegOptions
from dicom_out.segplan import SegPart, plan_seg
from dicom_out.source import Source
from domain.ports import Result

if TYPE_CHECKING:
    from dicom_out.verify import SourceSlices
    from dicom_out.verify_seg import CheckedSeg


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSettings:
    """What a writer must be told."""

    software_version: str = "0"
    """Version of the gateway, for Software Versions."""
    zone: tzinfo | None = None
    """Where dates without a zone are local; ``None`` is the machine's zone."""


class Work:
    """What the objects of one result share; computed once, when it is first asked for."""

    def __init__(self, result: Result, source: Source, settings: WriterSettings) -> None:
        self.result = result
        self.source = source
        self.settings = settings
        self._parts: dict[tuple[SegOptions, str], tuple[SegPart, ...]] = {}

    @cached_property
    def declared(self) -> tuple[str, ...]:
        """Character set of the objects."""
        return character_set(self.source.header, own_texts(self.result))

    @cached_property
    def masks(self) -> Masks | None:
        """Where the segments are on the source's images; ``None`` where the engine gives no masks."""
        return self._on_source.masks

    @cached_property
    def _on_source(self) -> Placement:
        return on_source(self.result, self.source)

    @cached_property
    def _on_regular(self) -> Placement:
        return on_regular(self.result, self.source)

    def placement(self, grid: str) -> Placement:
        """Return where the findings lie, by ``Options.grid``."""
        return self._on_regular if grid == "regular" else self._on_source

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """The frames that are not empty, by segment and then in slice order."""
        return () if self.masks is None else frames_of(self.masks)

    def seg_parts(self, options: SegOptions, grid: str) -> tuple[SegPart, ...]:
        """Return the instances of the segmentation that is written under these options."""
        if (options, grid) not in self._parts:
            placed = self.placement(grid)
            self._parts[options, grid] = plan_seg(placed.findings, placed.masks, options)
        return self._parts[options, grid]

    @cached_property
    def key_images(self) -> list[KeyImage]:
        """Pictures of what was located."""
        return key_images(self.result)

    @cached_property
    def fullest(self) -> Mapping[int, int]:
        """Slice where a segment covers most pixels, by segment number; only segments that have any."""
        masks = self.masks
        if masks is None:
            return {}
        return {
            number: max(slices, key=lambda k: masks.pixels[k][number])
            for number, slices in slices_of(self.frames).items()
        }

    @property
    def present(self) -> Set[int]:
        """Numbers of the segments that have voxels."""
        return self.fullest.keys()

    @cached_property
    def lines(self) -> Mapping[int, tuple[Line, ...]]:
        """What is drawn of each segment on source images, by segment number."""
        return lines_of(self.result, self.source, self.masks, self.fullest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """Where a segment lies in the segmentation that a destination gets."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    number: int
    """Segment Number there."""
    of: int
    """Segment number of the findings."""
    frames: Mapping[int, int] = field(default_factory=dict)
    """Frame of that instance that holds the segment on each slice where it has pixels; both as they count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """What an encoder is asked for."""

    kind: Kind
    variant: str
    """Names the object among those of its job; UIDs are derived from it."""
    work: Work
    options: Options
    segmented: Mapping[int, Segmented] = field(default_factory=dict)
    """By segment number of the findings, in the SEG that goes with it; only for a kind that ``needs`` one."""

    @property
    def result(self) -> Result:
        """What is encoded."""
        return self.work.result

    @property
    def source(self) -> Source:
        """The stack that was analysed."""
        return self.work.source

    @property
    def declared(self) -> tuple[str, ...]:
        """Character set of the object."""
        return self.work.declared

    def begin(self, number: int = 1) -> Dataset:
        """Return series, equipment and time of the object's ``number``-th instance; its writer completes it."""
        settings = self.work.settings
        ds = empty_object(
            self.result,
            self.source,
            kind=self.variant,
            modality=self.kind.modality,
            series_offset=self.kind.series_offset,
            number=number,
            software_version=settings.software_version,
            zone=settings.zone,
        )
        ds.SOPClassUID = self.kind.sop_class_uid
        return ds


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One instance as a Part 10 file."""

    pieces: Iterable[bytes | memoryview] = field(repr=False)
    """One after the other; they may be made while they are written."""
    number: int = 1
    """Which instance of its variant, from 1, as given to ``Order.begin``."""
    segments: Mapping[int, int] = field(default_factory=dict)
    """Of a SEG: the Segment Number in this instance of each segment of the findings that it holds."""
    frames: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Of a SEG: the frame, from 1, of each segment (0: all) on each slice, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Check:
    """What a verifier is given."""

    result: Result
    slices: SourceSlices
    objects: Sequence[Dataset] = field(repr=False)
    """The instances of one variant, read back from their files, in order; identity and SOP class are checked."""
    options: Options
    seg: CheckedSeg | None = None
    """What was found in the SEG that goes with them."""
    voxels: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Of each segment on each slice, in the findings, where there are any."""

    def has_voxels(self, number: int) -> bool:
        """Tell whether a segment, from 1, has a voxel."""
        return any(segment == number for segment, _ in self.voxels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of result object.

    Attributes
    ----------
    name
        ``SEG``, ``SEG-LABELMAP``, ``SR`` …: at most 16 characters; its only variant has this name too.
    role
        What it is for; a profile asks for roles.
    modality
        Of its series.
    series_offset
        Added to the series number, so that the objects of a result are listed in one order.
    applies
        Whether a result has such an object.
    encode
        Writes it: one instance, or several in one series.
    verify
        Compares it with the findings; raises ``VerificationFailed``. A SEG's returns what others may refer to.
    settings
        Names of the ``Options`` that change its bytes: other values make another variant.
    needs
        Role of what it refers to: ``SEG``.
    fallback
        Kind that goes to a destination that does not take this one's SOP class.
    """

    name: str
    role: Role
    sop_class_uid: str
    modality: str
    series_offset: int
    applies: Callable[[Work, Options], bool]
    encode: Callable[[Order], Iterable[Encoded]]
    verify: Callable[[Check], CheckedSeg | None]
    settings: tuple[str, ...] = ()
    needs: Role | None = None
    fallback: str = ""
