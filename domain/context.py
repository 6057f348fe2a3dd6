"""What a model may know beside the pixels, and where each value comes from. Nothing here identifies a patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from domain.codes import Code

SCHEMA_VERSION = 1
"""Grows when a field of ``StudyContext`` changes its meaning or goes; new fields leave it as it is."""

_UNSAID = frozenset({"schema_version", "sources", "notes", "priors"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a value was read."""

    attribute: str
    """Keyword, after those of the sequences that it lies in: ``AnatomicRegionSequence.CodeMeaning``."""
    instance_number: int | None = None
    """InstanceNumber (PS3.3 C.7.6.1) of the instance that was read."""
    derived: str = ""
    """How the value was made where it is not the attribute's own; e.g. ``computed``, ``2 identifiers removed``."""

    def __str__(self) -> str:
        instance = "" if self.instance_number is None else f" of InstanceNumber {self.instance_number}"
        return f"{self.attribute}{instance}" + (f" ({self.derived})" if self.derived else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """One earlier study of the same patient: how long ago, never when."""

    modality: str
    body_part: Code | None
    days_before: int

    def __str__(self) -> str:
        part = f" {self.body_part.meaning.lower()}" if self.body_part else ""
        return f"{self.modality}{part}, {_ago(self.days_before)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyContext:
    """What the headers of one stack say that a model may use; ``None`` is unknown.

    Free text has lost what names the patient (``volume.scrub``) and is kept out of ``repr``.
    """

    schema_version: int = SCHEMA_VERSION
    # The patient
    patient_age_y: float | None = None
    patient_sex: str | None = None
    """M, F or O."""
    patient_height_m: float | None = None
    patient_weight_kg: float | None = None
    body_mass_index_kg_m2: float | None = None
    # The question
    indication: str | None = field(default=None, repr=False)
    indication_codes: tuple[Code, ...] = ()
    priors: tuple[Prior, ...] | None = None
    """Earlier studies, latest first; ``None`` where nobody looked."""
    # What was imaged, and how
    modality: str | None = None
    body_part: Code | None = None
    """In SNOMED CT."""
    body_part_examined: str | None = None
    """As the sender wrote it."""
    laterality: str | None = None
    """R, L, U (unpaired) or B (both)."""
    view_position: str | None = None
    view: Code | None = None
    patient_position: str | None = None
    contrast_agent: str | None = field(default=None, repr=False)
    contrast_phase: str | None = None
    convolution_kernel: str | None = None
    tube_voltage_kv: float | None = None
    slice_thickness_mm: float | None = None
    magnetic_field_strength_t: float | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    """Between rows, then between columns."""
    pixel_spacing_origin: str | None = None
    """What the distances hold for: ``patient``, ``detector`` (in front of it they are smaller), ``calibrated``,
    ``corrected`` for magnification, ``nominal`` for a scanned film, or ``unknown``."""
    burned_in_annotation: str | None = None
    """YES where the pixels hold text that identifies the patient, NO where they do not, as the header says."""
    recognizable_visual_features: str | None = None
    """YES where the patient can be recognised in the image, e.g. by the face."""
    series_description: str | None = field(default=None, repr=False)
    study_description: str | None = field(default=None, repr=False)

    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict, repr=False)
    """By name of the field."""
    notes: tuple[str, ...] = ()
    """What an administrator should know: odd character sets, values that cannot be true. No value is quoted."""

    @property
    def patient_age_decade(self) -> str | None:
        """Return e.g. ``30-40`` for anybody from 30 to below 40."""
        if self.patient_age_y is None:
            return None
        decade = int(self.patient_age_y) // 10 * 10
        return f"{decade}-{decade + 10}"

    @property
    def comparison(self) -> str | None:
        """Return the earlier studies in words, ``None.`` as reports say it where there are none."""
        if self.priors is None:
            return None
        return "; ".join(map(str, self.priors)) + "." if self.priors else "None."

    def lines(self) -> dict[str, str]:
        """Return what is known for each line that MedVersa was trained with, in its order."""
        said = {
            "Age": f"{self.patient_age_decade}." if self.patient_age_y is not None else "",
            "Gender": f"{self.patient_sex}." if self.patient_sex in ("M", "F") else "",
            "Indication": f" {_sentence(self.indication)}" if self.indication else "",
            "Comparison": f" {self.comparison}" if self.comparison else "",
        }
        return {name: text for name, text in said.items() if text}

    def as_medversa(self) -> str:
        """Return ``Age:30-40.\\nGender:F.\\nIndication: …\\nComparison: …``; what is not known has no line.

        Where nothing is known it is ``Comparison:None.``, which stood for an empty context in the training.
        """
        return "\n".join(f"{name}:{text}" for name, text in self.lines().items()) or "Comparison:None."

    def as_dict(self) -> dict[str, object]:
        """Return everything that is known, for JSON."""
        names = [item.name for item in fields(self) if item.name not in _UNSAID]
        names.insert(names.index("patient_age_y") + 1, "patient_age_decade")
        values = {name: _plain(getattr(self, name)) for name in names}
        return {
            "schema_version": self.schema_version,
            "values": {name: value for name, value in values.items() if value not in (None, [])},
            "priors": None if self.priors is None else [_prior_as_dict(prior) for prior in self.priors],
            "sources": {
                name: [
                    {"attribute": s.attribute, "instance_number": s.instance_number, "derived": s.derived}
                    for s in sources
                ]
                for name, sources in self.sources.items()
            },
            "notes": list(self.notes),
        }


def _prior_as_dict(prior: Prior) -> dict[str, object]:
    return {"modality": prior.modality, "body_part": _plain(prior.body_part), "days_before": prior.days_before}


def _plain(value: object) -> object:
    if isinstance(value, Code):
        return {"value": value.value, "scheme": value.scheme, "meaning": value.meaning}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _sentence(text: str) -> str:
    """Return text on one line that ends like a sentence."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?", "。")) else f"{text}."


def _ago(days: int) -> str:
    """Return a distance in the largest unit of which there are two: 45 days are 6 weeks, 400 days are 13 months."""
    for unit, length in (("year", 365.25), ("month", 365.25 / 12), ("week", 7.0)):
        count = round(days / length)
        if days >= 2 * length:
            return f"{count} {unit}s earlier"
    if days == 0:
        return "the same day"
    return f"{days} day{'' if days == 1 else 's'} earlier"
