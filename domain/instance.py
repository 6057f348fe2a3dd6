"""One SOP Instance: what its header says, where it lies, and what became of a request to keep it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path

from domain.errors import GatewayError


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What one frame of an enhanced image says for itself (functional groups, PS3.3 C.7.6.16).

    Names, units and ``None`` as in ``Header``. What all frames share is in the header of the instance.
    """

    image_type: tuple[str, ...] | None = None
    image_position_mm: tuple[float, float, float] | None = None
    image_orientation: tuple[float, float, float, float, float, float] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rescale_type: str | None = None
    stack_id: str | None = None
    temporal_position: int | None = None
    acquisition_number: int | None = None
    complex_component: str | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    trigger_time_ms: float | None = None
    diffusion_b_value: float | None = None
    diffusion_direction: tuple[float, float, float] | None = None
    convolution_kernel: str | None = None
    kvp: float | None = None
    window_centres: tuple[float, ...] | None = None
    window_widths: tuple[float, ...] | None = None
    window_explanations: tuple[str, ...] | None = field(default=None, repr=False)
    voi_lut_function: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic:
    """What a Siemens mosaic says of the slices that are its tiles, in private attributes; see ``volume.mosaic``."""

    fault: str = ""
    """Why the private header cannot be read, as the end of a sentence; everything else is then missing."""
    images: int | None = None
    """NumberOfImagesInMosaic."""
    normal: tuple[float, float, float] | None = None
    """SliceNormalVector: the direction from tile to tile."""
    spacing_mm: float | None = None
    """SpacingBetweenSlices."""
    is_renumbered: bool = False
    """The protocol numbers the images in another order than it plans them."""
    planned_mm: tuple[tuple[float, float, float], ...] = ()
    """Centre of each slice that the protocol plans; empty where there is no protocol."""
    planned_extent_mm: tuple[float, float] | None = None
    """Field of view of a planned slice: in phase direction, in readout direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Where one slice lies in a mosaic, in pixels."""

    number: int
    """From 1, in the order of the mosaic."""
    row: int
    """Row of its first pixel, from 0."""
    column: int
    rows: int
    columns: int
    image_rows: int
    """Of the whole mosaic."""
    image_columns: int
    count: int
    """Tiles that hold a slice; they fill the mosaic row by row, and what is left over is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The attributes that grouping, assembly, routes and engines look at.

    Nothing here identifies a patient except the UIDs and free-text descriptions, which therefore stay out of
    ``repr``. ``None`` means absent, empty or unreadable, never zero. Lengths in mm, angles in degrees, times in ms.
    ``volume.frames.frames_of`` makes of an enhanced image one header a frame, with ``frame_number`` set, and of a
    mosaic one a tile, with ``tile`` set as well.
    """

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    series_instance_uid: str = field(repr=False)
    study_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    modality: str | None = None
    frame_of_reference_uid: str | None = field(default=None, repr=False)
    instance_number: int | None = None
    acquisition_number: int | None = None
    image_type: tuple[str, ...] = ()
    # Image Pixel Module (PS3.3 C.7.6.3)
    has_pixel_data: bool = False
    pixel_data_offset: int | None = field(default=None, repr=False, compare=False)
    """Where the value of PixelData begins in the file, as intake walked it: a hint for who reads the pixels."""
    number_of_frames: int | None = None
    frames: tuple[FrameHeader, ...] = field(default=(), repr=False)
    """Of an enhanced image whose functional groups cover every frame; otherwise empty."""
    frame_number: int | None = None
    """Set, from 1, where this is one frame of its instance (PS3.3 C.7.6.6), or one tile of a mosaic."""
    mosaic: Mosaic | None = field(default=None, repr=False)
    """Of what ImageType calls MOSAIC."""
    tile: Tile | None = None
    """Set where this is one tile of a mosaic; ``rows``, ``columns`` and the position are then the tile's."""
    pixel_presentation: str | None = None
    """(0008,9205): COLOR, MIXED and TRUE_COLOR hold values that are colours."""
    rows: int | None = None
    columns: int | None = None
    samples_per_pixel: int | None = None
    photometric_interpretation: str | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    pixel_representation: int | None = None
    pixel_padding_value: int | None = None
    pixel_padding_range_limit: int | None = None
    lossy: bool = False
    """(0028,2110) is 01."""
    # Geometry (PS3.3 C.7.6.2)
    image_position_mm: tuple[float, float, float] | None = None
    image_orientation: tuple[float, float, float, float, float, float] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    """(0028,0030): between rows, then between columns."""
    imager_pixel_spacing_mm: tuple[float, float] | None = None
    nominal_scanned_pixel_spacing_mm: tuple[float, float] | None = None
    pixel_spacing_calibration_type: str | None = None
    slice_thickness_mm: float | None = None
    gantry_detector_tilt_deg: float | None = None
    patient_position: str | None = None
    # Modality LUT (PS3.3 C.11.1)
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rescale_type: str | None = None
    has_modality_lut_sequence: bool = False
    # VOI LUT (PS3.3 C.11.2); see ``volume.voi``
    window_centres: tuple[float, ...] = ()
    window_widths: tuple[float, ...] = ()
    window_explanations: tuple[str, ...] = field(default=(), repr=False)
    voi_lut_function: str | None = None
    has_voi_lut_sequence: bool = False
    # What may split a series into stacks
    stack_id: str | None = field(default=None, repr=False)
    complex_component: str | None = None
    echo_time_ms: float | None = None
    echo_number: int | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    temporal_position: int | None = None
    trigger_time_ms: float | None = None
    diffusion_b_value: float | None = None
    """s/mm²; from (0018,9087), or where that is absent from what Siemens, GE and Philips write privately."""
    diffusion_direction: tuple[float, float, float] | None = None
    frame_reference_time_ms: float | None = None
    acquisition_time: str | None = field(default=None, repr=False)
    convolution_kernel: str | None = None
    # PET Series and Isotope Modules (PS3.3 C.8.9.1, C.8.9.2); dates and times are kept as distances only
    units: str | None = None
    decay_correction: str | None = None
    corrected_image: tuple[str, ...] = ()
    suv_type: str | None = None
    patient_weight_kg: float | None = None
    injected_dose_bq: float | None = None
    half_life_s: float | None = None
    injection_to_series_s: float | None = None
    """Negative where the series seems to begin before the injection."""
    series_to_acquisition_s: float | None = None
    philips_suv_factor: float | None = None
    """(7053,xx00): SUV per rescaled count."""
    philips_activity_factor: float | None = None
    """(7053,xx09): Bq/ml per rescaled count."""
    # What routes and engines look at
    body_part_examined: str | None = None
    view_position: str | None = None
    """(0018,5101), e.g. PA or LL."""
    series_description: str | None = field(default=None, repr=False)
    protocol_name: str | None = field(default=None, repr=False)
    scanning_sequence: str | None = None
    contrast_bolus_agent: str | None = field(default=None, repr=False)
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    kvp: float | None = None
    images_in_series: int | None = None
    """(0020,1209) Number of Series Related Instances, where the sender gives it."""
    requested_procedure_priority: str | None = None
    """(0040,1003): STAT, HIGH, ROUTINE, MEDIUM, LOW."""
    is_own_result: bool = False
    """Made by a Voxgate: never analysed (see ``volume.header``)."""
    patient: str | None = field(default=None, repr=False)
    """Digest of who the patient is, while an instance is taken in (``volume.patient``). It is not kept: the store
    makes its own key of it."""


class Disposition(Enum):
    """What became of one instance that a peer handed over."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """The same dataset was already stored; the first copy is kept. Success to the peer."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """How an instance came: what the transport knows and the dataset does not."""

    transport: str
    """``dimse``, ``stow`` or ``file``."""
    sender: str
    """Calling AE title, or empty."""
    address: str
    """Peer's network address, or empty."""
    received_at: datetime
    """Timezone-aware UTC."""
    expected_sop_class_uid: str | None = None
    """As the C-STORE command says; ``None`` where the transport says nothing."""
    expected_sop_instance_uid: str | None = None
    expected_study_instance_uid: str | None = None
    """As the STOW-RS URL says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one staged instance."""

    disposition: Disposition
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = field(default=None, repr=False)
    study_instance_uid: str | None = field(default=None, repr=False)
    error: GatewayError | None = None
    """Why it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """One instance in the store."""

    header: Header
    path: Path
    """Part 10 file exactly as received."""
    received_at: datetime
    digest: str = field(default="", repr=False)
    """Canonical digest of the dataset as it was received (``volume.digest``); empty outside a store."""
