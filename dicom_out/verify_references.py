"""What the checks of key images, documents and presentation states have in common: references to the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_out.places import places_of
from domain.errors import VerificationFailed
from domain.ports import Result

Name = tuple[str, int | None]
"""SOP Instance UID, and the frame where the slice is one of several."""
_KEYWORDS = ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNames:
    """What the source files say that they are."""

    names: tuple[Name, ...] = field(repr=False)
    """Of each slice, frame or image of the result."""
    classes: dict[str, str] = field(repr=False)
    """SOP Class by instance."""
    homes: dict[str, tuple[str, str]] = field(repr=False)
    """Study and series by instance."""
    study: str = field(repr=False)
    """Of the first image: the one that the results belong to."""

    @classmethod
    def of(cls, result: Result) -> SourceNames:
        """Read the files of a result's source."""
        headers: dict[Path, Dataset] = {
            path: dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
            for path in dict.fromkeys(result.source_paths)
        }
        first = headers[result.source_paths[0]]
        return cls(
            names=tuple((str(headers[place.path].SOPInstanceUID), place.frame) for place in places_of(result)),
            classes={str(header.SOPInstanceUID): str(header.SOPClassUID) for header in headers.values()},
            homes={
                str(header.SOPInstanceUID): (str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
                for header in headers.values()
            },
            study=str(first.StudyInstanceUID),
        )

    def index(self, item: Dataset, kind: str) -> int:
        """Return which slice a reference names, of several the first, and check its SOP class."""
        return self.indices(item, kind)[0]

    def indices(self, item: Dataset, kind: str) -> tuple[int, ...]:
        """Return which slices a reference names: several are tiles of one mosaic.

        A reference to a whole instance of one frame means that frame.
        """
        uid, frame = named(item)
        if self.classes.get(uid) != item.ReferencedSOPClassUID:
            raise VerificationFailed(f"{kind}: it refers to an instance that is not the source's.")
        of_instance = tuple(k for k, name in enumerate(self.names) if name[0] == uid)
        found = tuple(k for k in of_instance if self.names[k][1] == frame)
        if not found and frame is None and len(of_instance) == 1:
            found = of_instance
        if not found:
            raise VerificationFailed(f"{kind}: it refers to an image that was not analysed.")
        return found

    def check_series(self, ds: Dataset, kind: str) -> None:
        """Common Instance Reference Module names the source's instances in their series, as the classes they are."""
        listed = [(str(ds.StudyInstanceUID), item) for item in ds.get("ReferencedSeriesSequence") or ()]
        for study in ds.get("StudiesContainingOtherReferencedInstancesSequence") or ():
            listed += [(str(study.StudyInstanceUID), item) for item in study.ReferencedSeriesSequence]
        for uid, series in listed:
            self.check_home(uid, series, series.ReferencedInstanceSequence, kind)
        if not listed:
            raise VerificationFailed(f"{kind}: ReferencedSeriesSequence is missing.")

    def check_evidence(self, ds: Dataset, kind: str) -> set[str]:
        """Evidence of a document names the source's instances in their studies and series; return them."""
        found: set[str] = set()
        for study in ds.CurrentRequestedProcedureEvidenceSequence:
            for series in study.ReferencedSeriesSequence:
                self.check_home(str(study.StudyInstanceUID), series, series.ReferencedSOPSequence, kind)
                found |= {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedSOPSequence}
        return found

    def check_home(self, study: str, series: Dataset, items: list[Dataset], kind: str) -> None:
        """Instances are the source's, of their classes, and where they are said to be."""
        for item in items:
            uid = str(item.ReferencedSOPInstanceUID)
            if self.classes.get(uid) != item.ReferencedSOPClassUID:
                raise VerificationFailed(f"{kind}: it refers to an instance that is not the source's.")
            if self.homes[uid] != (study, str(series.SeriesInstanceUID)):
                raise VerificationFailed(f"{kind}: it names an image in another series than its own.")


def named(item: Dataset) -> Name:
    """Return what a reference names."""
    frames = item.get("ReferencedFrameNumber")
    return str(item.ReferencedSOPInstanceUID), None if frames is None else int(frames)
