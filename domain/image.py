"""Images that have no patient coordinates: projections, photographs, captures and cine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from domain.voi import Voi


@dataclass(frozen=True, slots=True, kw_only=True)
class UltrasoundRegion:
    """One calibrated region of an ultrasound image (PS3.3 C.8.5.5), as the header says it, plausible or not."""

    x0: int
    y0: int
    x1: int
    y1: int
    """Columns and rows of the first and the last pixel inside."""
    spatial_format: int
    """RegionSpatialFormat: 1 is 2D."""
    data_type: int
    units_x: int
    """PhysicalUnitsXDirection: 3 is cm."""
    units_y: int
    delta_x: float
    """PhysicalDeltaX, in units a pixel."""
    delta_y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """Where the pixels of one instance without patient coordinates lie.

    Attributes
    ----------
    shape
        ``(frames, rows, columns)``; one frame where the instance has no NumberOfFrames.
    spacing_mm
        Between rows, then between columns; ``None`` where no attribute says it beyond doubt. Lengths are measured
        only where this is set.
    spacing_origin
        Keyword of the attribute that says it. ``ImagerPixelSpacing`` is at the detector: the patient is magnified.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float] | None = None
    spacing_origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """One instance's frames on their raster.

    Attributes
    ----------
    pixels
        Grey: shape ``raster.shape``, values after the Modality LUT, MONOCHROME1 not inverted. Colour: shape
        ``(*raster.shape, 3)``, uint8 RGB. Read-only.
    padding_value
        In grey: what stands where the source had padding (PS3.3 C.7.5.1.1.2), the value among the others that is
        shown darkest; ``None`` where no pixel was padding.
    photometric_interpretation
        Of the source; ``RGB`` for whatever was turned into it.
    voi
        How the source wants it shown; empty where the header does not say.
    laterality
        ``R``, ``L``, ``U`` or ``B``; empty where the header does not say.
    view_position
        ViewPosition, or what ViewCodeSequence says in its terms, e.g. ``PA`` or ``LL``; empty where neither does.
    frame_times_ms
        Of each frame from the first on; empty where the header does not say.
    """

    pixels: npt.NDArray[np.generic] = field(repr=False)
    raster: Raster
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    modality: str = ""
    photometric_interpretation: str = "MONOCHROME2"
    padding_value: float | None = None
    voi: Voi = field(default=Voi(), repr=False)
    patient_orientation: tuple[str, ...] = ()
    laterality: str = ""
    view_position: str = ""
    frame_times_ms: tuple[float, ...] = field(default=(), repr=False)
    regions: tuple[UltrasoundRegion, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.shape[:3] != self.raster.shape:
            raise ValueError(f"pixels {self.pixels.shape} are not on the raster {self.raster.shape}")
        self.pixels.setflags(write=False)

    @property
    def is_colour(self) -> bool:
        """Tell whether the pixels are RGB."""
        return self.pixels.ndim == 4
