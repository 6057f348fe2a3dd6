"""Series as received, the stacks they hold, and why a stack is not a volume."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.instance import Header


class RefusalCode(StrEnum):
    """Named causes for which a stack is not assembled; see ``docs/conformance.md``."""

    NOT_AN_IMAGE = "not-an-image"
    UNSUPPORTED_SOP_CLASS = "unsupported-sop-class"
    NO_FUNCTIONAL_GROUPS = "no-functional-groups"
    OWN_RESULT = "own-result"
    LOCALIZER = "localizer"
    DERIVED_IMAGE = "derived-image"
    SIEMENS_MOSAIC = "siemens-mosaic"
    NO_POSITION = "no-position"
    NO_ORIENTATION = "no-orientation"
    ORIENTATION_NOT_ORTHONORMAL = "orientation-not-orthonormal"
    NO_PIXEL_SPACING = "no-pixel-spacing"
    NO_FRAME_OF_REFERENCE = "no-frame-of-reference"
    SINGLE_SLICE = "single-slice"
    MIXED_ORIENTATION = "mixed-orientation"
    MIXED_STUDY = "mixed-study"
    MIXED_FRAME_OF_REFERENCE = "mixed-frame-of-reference"
    MIXED_PIXEL_SPACING = "mixed-pixel-spacing"
    MIXED_MATRIX = "mixed-matrix"
    MIXED_PIXEL_FORMAT = "mixed-pixel-format"
    MISSING_SLICES = "missing-slices"
    VARIABLE_SPACING = "variable-spacing"
    DUPLICATE_POSITION = "duplicate-position"
    GANTRY_TILT = "gantry-tilt"
    IN_PLANE_DRIFT = "in-plane-drift"
    AMBIGUOUS_STACK = "ambiguous-stack"
    UNSUPPORTED_PIXELS = "unsupported-pixels"
    MODALITY_LUT_CONFLICT = "modality-lut-conflict"
    PIXELS_UNREADABLE = "pixels-unreadable"
    TOO_LARGE = "too-large"


class Resample(StrEnum):
    """What a route may allow: a regular volume is then computed from slices that do not form one."""

    GANTRY_TILT = "gantry_tilt"
    """The shear of a tilted gantry is taken out."""
    VARIABLE_SPACING = "variable_spacing"
    """Slices whose distance varies smoothly or in steps are brought to one distance."""


RESAMPLABLE = {
    RefusalCode.GANTRY_TILT: Resample.GANTRY_TILT,
    RefusalCode.VARIABLE_SPACING: Resample.VARIABLE_SPACING,
}
"""Which refusals a route may lift."""


class StackKind(StrEnum):
    """What a stack is to be worked on as."""

    VOLUME = "volume"
    IMAGE = "image"
    """One image without patient coordinates: a projection, a photograph, a capture."""
    CINE = "cine"
    """One instance of many frames, one after the other, without patient coordinates."""

    @property
    def in_words(self) -> str:
        """What one such stack is, for a sentence."""
        return _IN_WORDS[self][0]

    @property
    def plural(self) -> str:
        """What many of them are, for a sentence."""
        return _IN_WORDS[self][1]


_IN_WORDS = {
    StackKind.VOLUME: ("a volume", "volumes"),
    StackKind.IMAGE: ("an image without coordinates in the patient", "single images"),
    StackKind.CINE: ("a cine (many frames without coordinates in the patient)", "cine"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a stack is not worked on: a code, a sentence a PACS administrator understands, the instances at fault."""

    code: RefusalCode
    reason: str
    instance_numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Images of one series that belong to one volume, in received order or sorted by position; or one instance.

    A stack of kind IMAGE or CINE has one header. In a volume an image is an instance, or one frame of an enhanced one
    (``Header.frame_number``).

    ``name`` says what distinguishes the stack inside its series, e.g. ``axial`` or ``kernel B70f``; it is empty
    when the series holds just one.
    """

    name: str
    headers: tuple[Header, ...] = field(repr=False)
    refusal: Refusal | None = None
    """Set when grouping or the header checks already know that this cannot be worked on."""
    kind: StackKind = StackKind.VOLUME


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What routes and engines may look at to decide. Nothing here identifies a patient; ``None`` is unknown."""

    modality: str | None
    sop_class_uid: str
    instances: int
    kind: StackKind = StackKind.VOLUME
    body_part_examined: str | None = None
    series_description: str | None = None
    protocol_name: str | None = None
    image_type: tuple[str, ...] = ()
    slice_thickness_mm: float | None = None
    spacing_mm: tuple[float, float, float] | None = None
    """Slice, row, column; ``None`` when the stack is not a volume."""
    convolution_kernel: str | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    scanning_sequence: str | None = None
    contrast: bool | None = None
    manufacturer: str | None = None
    burned_in_annotation: bool | None = None
    """Some header says that its pixels identify the patient (0028,0301); ``False`` where all say that they do not."""
    sender: str | None = None
    """Calling AE title of the last sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesArrival:
    """How far a series has arrived, as the index knows it."""

    series_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    instances: int
    expected: int | None
    """Number of instances the sender announced, where one did."""
    first_arrival_at: datetime
    last_arrival_at: datetime
    revision: int
    """Grows with every stored or quarantined instance of the series."""
    frozen_revision: int
    """Revision at the last frozen set; 0 before the first."""
