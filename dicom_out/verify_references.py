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
    study: str = field(repr=False)
    series: str = field(repr=False)

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
            study=str(first.StudyInstanceUID),
            series=str(first.SeriesInstanceUID),
        )

    def index(self, item: Dataset, kind: str) -> int:
        """Return which slice a reference names, and check its SOP class.

        A reference to a whole instance means its first slice.
        """
        uid, frame = named(item)
        if self.classes.get(uid) != item.ReferencedSOPClassUID:
            raise VerificationFailed(f"{kind}: it refers to an instance that is not the source's.")
        for k, name in enumerate(self.names):
            if name == (uid, frame) or (frame is None and name[0] == uid and self._frames(uid) == 1):
                return k
        raise VerificationFailed(f"{kind}: it refers to an image that was not analysed.")

    def _frames(self, uid: str) -> int:
        return sum(name[0] == uid for name in self.names)

    def check_series(self, ds: Dataset, kind: str) -> None:
        """Common Instance Reference Module names instances of the source's series, as the classes that they are."""
        if [str(item.SeriesInstanceUID) for item in ds.ReferencedSeriesSequence] != [self.series]:
            raise VerificationFailed(f"{kind}: ReferencedSeriesSequence is not the source's series.")
        self._check_instances(ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence, kind)

    def check_evidence(self, ds: Dataset, kind: str) -> set[str]:
        """Evidence of a document is the source's study and series; return its instances."""
        said = [
            (str(one.StudyInstanceUID), str(other.SeriesInstanceUID))
            for one in ds.CurrentRequestedProcedureEvidenceSequence
            for other in one.ReferencedSeriesSequence
        ]
        if said != [(self.study, self.series)]:
            raise VerificationFailed(f"{kind}: its evidence is not the source's series.")
        items = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        self._check_instances(items, kind)
        return {str(item.ReferencedSOPInstanceUID) for item in items}

    def _check_instances(self, items: list[Dataset], kind: str) -> None:
        for item in items:
            if self.classes.get(str(item.ReferencedSOPInstanceUID)) != item.ReferencedSOPClassUID:
                raise VerificationFailed(f"{kind}: it refers to an instance that is not the source's.")


def named(item: Dataset) -> Name:
    """Return what a reference names."""
    frames = item.get("ReferencedFrameNumber")
    return str(item.ReferencedSOPInstanceUID), None if frames is None else int(frames)
