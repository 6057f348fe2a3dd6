"""Which stack goes to which engine: routes as data, answered with YES, NO or UNKNOWN and a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from domain.engine import Answer, Verdict
from domain.prompt import Prompt
from domain.series import Resample, SeriesFacts
from volume.drawings.placing import Contours
from volume.drawings.sketch import SketchedObject

Unit = Literal["series", "study"]

YES = Verdict(Answer.YES, "takes it")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingRule:
    """Which received drawings prompt a route's engine. Unset conditions hold for every one."""

    calling_ae_titles: tuple[str, ...] = ()
    """Who may send them."""
    names: tuple[str, ...] = ()
    """Patterns, one of which the name of an object (ROI, segment, finding, tracking identifier) must match."""
    finding_codes: tuple[str, ...] = ()
    """``scheme:value`` of an object's finding, type or category, e.g. ``SCT:108369006``."""
    contours: Contours = "traced"
    """What closed shapes become: masks or boxes."""

    def chosen(
        self, objects: Sequence[SketchedObject], sender: str | None
    ) -> tuple[tuple[SketchedObject, ...], Verdict]:
        """Return the objects that are wanted, and why there is none."""
        verdict = _one_of("calling AE title of the drawing", sender, self.calling_ae_titles)
        if verdict.answer is not Answer.YES:
            return (), verdict
        wanted = tuple(item for item in objects if self._is_named(item) and self._is_coded(item))
        return wanted, YES if wanted else Verdict(Answer.NO, "no object drawn has a name or a code of the route's")

    def _is_named(self, item: SketchedObject) -> bool:
        return not self.names or any(_matches(name, self.names) for name in (item.label, item.tracking_identifier))

    def _is_coded(self, item: SketchedObject) -> bool:
        codes = {f"{code.scheme}:{code.value}".upper() for code in (item.type, item.category) if code}
        return not self.finding_codes or bool(codes & {code.upper() for code in self.finding_codes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One ``[[routes]]`` entry. Unset conditions hold for every stack.

    Conditions are data, not expressions: a configuration file cannot run code, and an answer can be explained. Text
    is compared without regard to case; patterns know ``*`` and ``?``. An empty string in ``body_part_examined``
    stands for a header that does not say.
    """

    name: str
    engine: str
    unit: Unit = "series"
    """``study``: all images of a study that the route takes are one case, frontal views first."""
    priors: int = 0
    """With ``study``: the images of so many earlier studies of the patient come behind them."""
    modality: tuple[str, ...] = ()
    body_part_examined: tuple[str, ...] = ()
    series_description: tuple[str, ...] = ()
    """Patterns, one of which must match."""
    exclude_series_description: tuple[str, ...] = ()
    """Patterns, none of which may match."""
    calling_ae_titles: tuple[str, ...] = ()
    min_instances: int = 1
    max_slice_thickness_mm: float | None = None
    destinations: tuple[str, ...] | None = None
    """Names of destinations; ``None`` is every configured one."""
    priority: int = 10
    """Lower first; a STAT request goes before every route's priority."""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Handed to the engine."""
    prompt: Prompt | None = None
    """What the engine is pointed at where nobody points at something."""
    prompts_from_dicom: DrawingRule | None = None
    """Received drawings become prompts; without a default ``prompt`` the route then waits for one."""
    resample: tuple[Resample, ...] = ()
    """What may be wrong with the slices' places so that the route still takes them, on a resampled volume."""

    report_refusals: bool = False
    """Say to its destinations why a stack that the route takes has no result."""

    burned_in: Literal["take", "refuse"] = "take"
    """``refuse``: leave out images whose header says that their pixels name the patient (BurnedInAnnotation)."""

    def match(self, facts: SeriesFacts) -> Verdict:
        """Tell whether a stack with these facts goes to this route's engine; a NO wins over an UNKNOWN."""
        verdicts = list(self._conditions(facts))
        for answer in (Answer.NO, Answer.UNKNOWN):
            for verdict in verdicts:
                if verdict.answer is answer:
                    return verdict
        return YES

    def _conditions(self, facts: SeriesFacts) -> Iterator[Verdict]:
        yield _one_of("Modality", facts.modality, self.modality)
        yield _one_of("BodyPartExamined", facts.body_part_examined, self.body_part_examined)
        yield _one_of("SeriesDescription", facts.series_description, self.series_description)
        yield _none_of("SeriesDescription", facts.series_description, self.exclude_series_description)
        yield _one_of("calling AE title", facts.sender, self.calling_ae_titles)
        if facts.instances < self.min_instances:
            yield Verdict(Answer.NO, f"has {facts.instances} of at least {self.min_instances} instances")
        yield self._thickness(facts)
        if self.burned_in == "refuse" and facts.burned_in_annotation:
            yield Verdict(Answer.NO, "BurnedInAnnotation is YES, and the route refuses such images")

    def _thickness(self, facts: SeriesFacts) -> Verdict:
        limit = self.max_slice_thickness_mm
        if limit is None:
            return YES
        if facts.slice_thickness_mm is None:
            return Verdict(Answer.UNKNOWN, "SliceThickness is absent")
        if facts.slice_thickness_mm > limit:
            return Verdict(Answer.NO, f"SliceThickness is above {limit:g} mm")
        return YES


def _matches(value: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value.upper(), pattern.upper()) for pattern in patterns)


def _one_of(what: str, value: str | None, wanted: tuple[str, ...]) -> Verdict:
    if not wanted or _matches(value or "", wanted):
        return YES
    if not value:
        return Verdict(Answer.UNKNOWN, f"{what} is absent")
    return Verdict(Answer.NO, f"{what} is not one of the route's ({_said(wanted)})")


def _none_of(what: str, value: str | None, unwanted: tuple[str, ...]) -> Verdict:
    if unwanted and value and _matches(value, unwanted):
        return Verdict(Answer.NO, f"{what} is excluded by the route")
    return YES


def _said(wanted: tuple[str, ...]) -> str:
    return ", ".join(entry or "absent" for entry in wanted)
