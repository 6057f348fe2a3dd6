"""Destination profiles: which objects a destination gets, and how they are encoded.

Why each built-in profile is as it is, with the sources: docs/profiles.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Choice = Literal["SEG", "SR", "TEXT-SR", "PMAP", "SC", "PDF", "GSPS", "KOS"]
"""What a destination may ask for; how it is encoded is an option."""
Role = Choice | Literal["REJECTION"]
"""What an object is for; a rejection note comes with ``Options.superseded``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How objects are encoded."""

    segmentation: Literal["binary", "labelmap", "fractional"] = "binary"
    compression: Literal["none", "rle"] = "none"
    """Of label maps and fractions; the single bits of a BINARY SEG are never compressed."""
    report: Literal["comprehensive-3d", "comprehensive"] = "comprehensive-3d"
    text: Literal["basic", "enhanced", "comprehensive"] = "basic"
    empty_frames: bool = False
    """Keep the frames of a SEG that have no pixel, for viewers that place frames by counting them."""
    grid: Literal["source", "regular"] = "source"
    """Where the masks and probabilities of a resampled result lie; the regular grid is a volume for every reader."""
    max_frames: int = 0
    """Split a SEG that has more frames into several instances, by segments; 0: never."""
    preliminary: Literal["", "preliminary", "final"] = ""
    """Preliminary Flag of reports (PS3.3 C.17.2.2); empty: it is not said."""
    regionless: Literal["group", "statement"] = "group"
    """Where a TID 1500 report has numbers without a place in the images: in groups, or outside of them."""
    identified: bool = True
    """Name the patient on the pages of a PDF; its DICOM header does so in any case."""
    superseded: Literal["keep", "reject"] = "keep"
    """What becomes of an earlier generation's SEG: kept, or rejected by a note (IHE IOCM)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a destination gets."""

    name: str
    objects: tuple[Choice, ...] = ("SEG", "SR")
    pictures: tuple[Choice, ...] | None = None
    """In place of ``objects`` for images without patient coordinates and cine; ``None``: the same."""
    options: Options = field(default_factory=Options)
    why: str = ""

    def objects_on(self, *, is_picture: bool) -> tuple[Role, ...]:
        """Return what it gets of a volume, or of images without patient coordinates."""
        return self.pictures if is_picture and self.pictures is not None else self.objects


DEFAULT = Profile(
    name="default",
    why="What IHE AIR asks for: SEG (BINARY) and TID 1500 in Comprehensive 3D SR.",
)

BUILT_IN: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        DEFAULT,
        Profile(
            name="ohif",
            pictures=("SR", "SC"),
            options=Options(regionless="statement"),
            why="OHIF 3 shows a BINARY SEG and the lines of a TID 1500 report; it cannot read FRACTIONAL, and adds a "
            "segment called Background to LABELMAP. A SEG without patient coordinates makes it fail: on radiographs, "
            "photographs and cine it gets key images.",
        ),
        Profile(
            name="weasis",
            objects=("SEG", "SR", "GSPS", "KOS"),
            options=Options(max_frames=400),
            why="Weasis switches a SEG of more than 400 frames off: larger ones are split by segments. It shows "
            "presentation states and key objects.",
        ),
        Profile(
            name="slicer",
            objects=("SEG", "SR", "PMAP"),
            pictures=("SR", "SC"),
            options=Options(report="comprehensive", grid="regular"),
            why="3D Slicer reads through dcmqi: SEG, TID 1500 in any SR class, and parametric maps of probabilities. "
            "Dcmqi makes no volume of tilted or unevenly spaced slices: there it gets the regular grid. It reads no "
            "SEG without patient coordinates: there it gets key images.",
        ),
        Profile(
            name="pacs-basic",
            objects=("TEXT-SR", "PDF", "SC"),
            options=Options(text="basic"),
            why="Many PACS show neither SEG nor TID 1500: pictures, a text report and a PDF.",
        ),
    )
}
