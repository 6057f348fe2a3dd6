"""The context of a stack, from the header of one of its instances; ``volume.allowed`` says what is read of it."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

from domain.codes import Code
from domain.context import Source, StudyContext
from domain.instance import Header
from volume.allowed import ALLOWED, DISTANCES, IDENTIFIERS, NAMES, PLACES, READ
from volume.attributes import Attributes
from volume.body_parts import from_code, from_term, from_words
from volume.scrub import Identity, Scrubber

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST_Y = 125
_SEXES = frozenset({"M", "F", "O"})
_LATERALITIES = frozenset({"R", "L", "U", "B"})
_POSITIONS = frozenset(
    {
        "HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "AFP",
        "AFS", "PFDR", "PFDL", "PFP", "PFS",
    }
)  # fmt: skip
_UNSAID = frozenset({"none", "null", "n/a", "na", "unknown", "undefined", "unspecified"})
_SCHEMES = frozenset(
    {"SCT", "SRT", "SNM3", "DCM", "LN", "I10", "I10C", "I10P", "I9", "I9C", "RADLEX", "RXNORM", "C4"}
)
"""Published ones (PS3.16 8): a code of a hospital's own may be anything."""
_CODE = re.compile(r"[A-Za-z0-9.\-]{1,16}")
_VIEWS = {
    "272479007": "PA", "399348003": "AP", "399173006": "LL", "399198007": "RL", "399162004": "CC", "399368009": "MLO",
}  # fmt: skip
_CROSS_SECTIONAL = frozenset({"CT", "MR", "PT", "NM"})
_PHASES = (
    ("NON_CONTRAST", r"non.?contrast|unenhanced|nativ\w*|without contrast|w/?o contrast|ohne km|sans injection"),
    ("ARTERIAL", r"arterial|arteriell|art[ée]rielle|art\.? phase"),
    ("PORTAL_VENOUS", r"porto?.?(?:al)?.?(?:venous|ven[öo]s|veineuse?)|portal|pv phase"),
    ("VENOUS", r"venous|ven[öo]s|veineux"),
    ("DELAYED", r"delay(?:ed)?|late phase|sp[äa]tphase|tardi(?:f|ve)|excretory|equilibrium"),
)  # fmt: skip


def read_context(path: Path, header: Header | None = None) -> StudyContext:
    """Return what the header of a stored instance says that a model may use; never fails.

    Parameters
    ----------
    path
        Part 10 file of one instance of the stack.
    header
        Of this instance, or of the frame of it that belongs to the stack: says what stands in the functional groups
        of that frame.
    """
    read = Attributes(path, READ)
    reader = _Reader(read)
    reader.patient()
    reader.question()
    reader.anatomy()
    reader.acquisition()
    reader.spacing()
    reader.pixels()
    if header is not None:
        reader.frame(header)
    notes = tuple(sorted({f"{name}: {note}" for name, note in (*read.notes.items(), *reader.notes)}))
    return StudyContext(**reader.values, sources=reader.sources, notes=notes)


def study_day(path: Path) -> date | None:
    """Return the date of an instance's study, for the distance to another one's."""
    return _study_day(Attributes(path, DISTANCES))


def _study_day(read: Attributes) -> date | None:
    days = (read.day(keyword) for keyword in DISTANCES[1:])
    return next((day for day in days if day is not None), None)


def _identity(read: Attributes) -> Identity:
    born = read.day("PatientBirthDate")
    return Identity(
        names=tuple(name for path in NAMES for name in read.texts(path)),
        identifiers=tuple(text for path in IDENTIFIERS for text in read.texts(path)),
        birth_dates=() if born is None else (born,),
        places=tuple(text for path in PLACES for text in read.whole(path)),
    )


class _Reader:
    """Fills the fields of a ``StudyContext`` with their sources."""

    def __init__(self, read: Attributes) -> None:
        self._read = read
        self._scrubber = Scrubber(_identity(read))
        number = read.number("InstanceNumber")
        self._number = None if number is None else int(number)
        self.values: dict[str, Any] = {}
        self.sources: dict[str, tuple[Source, ...]] = {}
        self.notes: list[tuple[str, str]] = []

    # -- Groups of fields -------------------------------------------------------------------------------------------

    def patient(self) -> None:
        """Age, sex, height, weight."""
        self._age()
        sex = self._read.first("PatientSex").upper()
        if sex in _SEXES:
            self._put("patient_sex", sex, "PatientSex")
        self._measured("patient_height_m", "PatientSize", 0.2, 2.6, "no height in metres")
        self._measured("patient_weight_kg", "PatientWeight", 0.2, 500, "no weight in kilograms")
        height, weight = self.values.get("patient_height_m"), self.values.get("patient_weight_kg")
        if height and weight:
            how = "computed as weight by squared height"
            index = round(weight / height**2, 1)
            self._put("body_mass_index_kg_m2", index, "PatientWeight, PatientSize", how)

    def question(self) -> None:
        """Why the study was made."""
        parts: dict[str, str] = {}
        sources: list[Source] = []
        for path in ALLOWED["indication"]:
            for text in self._read.whole(path):
                self._add_part(text, path, parts, sources)
        codes: list[Code] = []
        for path in ALLOWED["indication_codes"]:
            for value, scheme, meaning in self._read.codes(path):
                self._add_part(meaning, f"{path}.CodeMeaning", parts, sources)
                code = self._code(value, scheme, meaning)
                if code is not None and code not in codes:
                    codes.append(code)
                    self.sources["indication_codes"] = (*self.sources.get("indication_codes", ()), self._source(path))
        if parts:
            self.values["indication"] = "; ".join(parts.values())
            self.sources["indication"] = tuple(dict.fromkeys(sources))
        if codes:
            self.values["indication_codes"] = tuple(codes)
        for name in ("series_description", "study_description"):
            self._text(name, ALLOWED[name][0])

    def anatomy(self) -> None:
        """Which part of the body, which side."""
        self._text("body_part_examined", "BodyPartExamined")
        for find in (self._part_of_term, self._part_of_code, self._part_of_words):
            if "body_part" not in self.values:
                find()
        for path in ALLOWED["laterality"]:
            side = self._read.first(path).upper()
            if side in _LATERALITIES and "laterality" not in self.values:
                self._put("laterality", side, path)

    def acquisition(self) -> None:
        """How it was imaged."""
        self._term("modality", "Modality", r"[A-Z]{2,16}")
        self._view()
        if (position := self._read.first("PatientPosition").upper()) in _POSITIONS:
            self._put("patient_position", position, "PatientPosition")
        self._contrast()
        for path in ALLOWED["convolution_kernel"]:
            if "convolution_kernel" not in self.values:
                self._text("convolution_kernel", path)
        for name in ("manufacturer", "manufacturer_model_name"):
            self._text(name, ALLOWED[name][0])
        for path in ALLOWED["tube_voltage_kv"]:
            self._measured("tube_voltage_kv", path, 1, 1000, "no voltage in kV")
        for path in ALLOWED["slice_thickness_mm"]:
            self._measured("slice_thickness_mm", path, 1e-3, 1000, "no thickness in mm")
        self._measured("magnetic_field_strength_t", "MagneticFieldStrength", 0.01, 30, "no field strength in tesla")

    def pixels(self) -> None:
        """Whether the pixels themselves identify the patient (PS3.3 C.7.6.1)."""
        for name in ("burned_in_annotation", "recognizable_visual_features"):
            self._term(name, ALLOWED[name][0], "YES|NO")

    def spacing(self) -> None:
        """What a pixel is wide, and in which plane (PS3.3 10.7.1)."""
        plain = self._pair("PixelSpacing") or self._pair(ALLOWED["pixel_spacing_mm"][1])
        detector, nominal = self._pair("ImagerPixelSpacing"), self._pair("NominalScannedPixelSpacing")
        calibration = self._read.first("PixelSpacingCalibrationType").upper()
        origin, derived = "unknown", ""
        if plain is not None and self.values.get("modality") in _CROSS_SECTIONAL:
            origin = "patient"
        elif plain is not None and calibration in ("GEOMETRY", "FIDUCIAL"):
            origin, derived = (
                ("corrected" if calibration == "GEOMETRY" else "calibrated"),
                "PixelSpacingCalibrationType",
            )
        elif plain is not None and detector is not None:
            same = all(abs(a - b) <= 1e-4 * b for a, b in zip(plain, detector, strict=True))
            origin = "detector" if same else "corrected"
            derived = f"ImagerPixelSpacing {'is the same' if same else 'differs'}"
        elif plain is None and detector is not None:
            plain, origin = detector, "detector"
        elif plain is None and nominal is not None:
            plain, origin = nominal, "nominal"
        if plain is None:
            return
        attribute = {"nominal": "NominalScannedPixelSpacing"}.get(origin, "PixelSpacing")
        if plain == detector and not derived:
            attribute = "ImagerPixelSpacing"
        self._put("pixel_spacing_mm", plain, attribute)
        self._put("pixel_spacing_origin", origin, attribute, derived)

    def frame(self, header: Header) -> None:
        """What stands in the functional groups of one frame alone."""
        is_frame = header.frame_number is not None and header.tile is None
        how = f"functional groups of frame {header.frame_number}" if is_frame else ""
        for name, keyword, value in (
            ("modality", "Modality", header.modality),
            ("convolution_kernel", "ConvolutionKernel", header.convolution_kernel),
            ("tube_voltage_kv", "KVP", header.kvp),
            ("slice_thickness_mm", "SliceThickness", header.slice_thickness_mm),
            ("pixel_spacing_mm", "PixelSpacing", _positive(header.pixel_spacing_mm)),
        ):
            if name not in self.values and value:
                text = self._scrubber.scrubbed(value)[0] if isinstance(value, str) else value
                if text:
                    self._put(name, text, keyword, how)
        if "pixel_spacing_mm" in self.values and "pixel_spacing_origin" not in self.values:
            is_patient = self.values.get("modality") in _CROSS_SECTIONAL
            self._put("pixel_spacing_origin", "patient" if is_patient else "unknown", "PixelSpacing", how)

    # -- One field --------------------------------------------------------------------------------------------------

    def _age(self) -> None:
        read = self._read
        said = re.fullmatch(r"(\d{1,3})([DWMY])", read.first("PatientAge").upper())
        computed = self._age_between(read.day("PatientBirthDate"), _study_day(read))
        # 000Y stands for "unknown" in many de-identified files; the newborn are counted in days.
        stated = round(int(said[1]) * _YEARS[said[2]], 3) if said and said[0] != "000Y" else None
        if stated is not None and stated > _OLDEST_Y:
            self.notes.append(("PatientAge", "is impossible"))
            stated = None
        if stated is not None:
            self._put("patient_age_y", stated, "PatientAge", "" if said and said[2] == "Y" else "in years")
            if computed is not None and abs(computed - stated) > 1.5:
                self.notes.append(("PatientAge", "does not agree with PatientBirthDate and the date of the study"))
        elif computed is not None:
            self._put("patient_age_y", computed, "PatientBirthDate, StudyDate", "distance in years")

    def _age_between(self, born: date | None, day: date | None) -> float | None:
        if born is None or day is None:
            return None
        if born == day:
            # De-identified files give both the same placeholder; newborns have a PatientAge in days.
            self.notes.append(("PatientBirthDate", "is the date of the study; no age is computed from it"))
            return None
        years = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
        if not 0 <= years <= _OLDEST_Y:
            self.notes.append(("PatientBirthDate", "gives an impossible age at the study"))
            return None
        return float(years) if years else round((day - born).days / 365.25, 3)

    def _part_of_term(self) -> None:
        # The value itself, not the scrubbed one: what comes out is an entry of the table.
        code, is_defined = from_term(self._read.first("BodyPartExamined"))
        if code is not None:
            self._put("body_part", code, "BodyPartExamined", "" if is_defined else "read as the defined term")

    def _part_of_code(self) -> None:
        for path in ALLOWED["body_part"]:
            for value, scheme, meaning in self._read.codes(path):
                code = from_code(value, scheme) or (self._code(value, scheme, meaning) if scheme == "SCT" else None)
                if code is not None and "body_part" not in self.values:
                    self._put("body_part", code, path)

    def _part_of_words(self) -> None:
        for path in ("SeriesDescription", "StudyDescription"):
            code = from_words(" ".join(self._read.whole(path)))
            if code is not None and "body_part" not in self.values:
                self._put("body_part", code, path, "by its words")

    def _view(self) -> None:
        self._term("view_position", "ViewPosition", r"[A-Z0-9_ ]{1,16}")
        for value, scheme, meaning in self._read.codes("ViewCodeSequence"):
            code = self._code(value, scheme, meaning)
            if code is None or "view" in self.values:
                continue
            self._put("view", code, "ViewCodeSequence")
            if "view_position" not in self.values and code.value in _VIEWS:
                self._put("view_position", _VIEWS[code.value], "ViewCodeSequence", "by its code")

    def _contrast(self) -> None:
        self._text("contrast_agent", "ContrastBolusAgent")
        for _, _, meaning in self._read.codes("ContrastBolusAgentSequence"):
            text, _ = self._scrubber.scrubbed(meaning)
            if text and "contrast_agent" not in self.values:
                self._put("contrast_agent", text, "ContrastBolusAgentSequence.CodeMeaning")
        self._term("contrast_phase", ALLOWED["contrast_phase"][0], r"[A-Z0-9_ ]{1,16}")
        description = " ".join(self._read.whole("SeriesDescription")).replace("_", " ")
        if "contrast_phase" not in self.values:
            phase = next((p for p, words in _PHASES if re.search(rf"(?i)\b(?:{words})\b", description)), None)
            if phase is not None:
                self._put("contrast_phase", phase, "SeriesDescription", "by its words")

    # -- Steps ------------------------------------------------------------------------------------------------------

    def _source(self, path: str, derived: str = "") -> Source:
        return Source(attribute=path, instance_number=self._number, derived=derived)

    def _put(self, name: str, value: object, path: str, derived: str = "") -> None:
        self.values[name] = value
        self.sources[name] = (self._source(path, derived),)

    def _text(self, name: str, path: str) -> None:
        text, removed = self._scrubber.scrubbed(", ".join(self._read.whole(path)))
        if text and text.casefold() not in _UNSAID:
            self._put(name, text, path, _said_removed(removed))

    def _term(self, name: str, path: str, pattern: str) -> None:
        text, removed = self._scrubber.scrubbed(self._read.first(path).upper())
        if not removed and re.fullmatch(pattern, text):
            self._put(name, text, path)

    def _measured(self, name: str, path: str, least: float, most: float, otherwise: str) -> None:
        value = self._read.number(path)
        if name in self.values or not value:
            return  # zero stands for "not entered"
        if least <= value <= most:
            self._put(name, value, path)
        else:
            self.notes.append((path, f"is {otherwise}"))

    def _pair(self, path: str) -> tuple[float, float] | None:
        numbers = self._read.numbers(path)
        return _positive((numbers[0], numbers[1])) if len(numbers) == 2 else None

    def _code(self, value: str, scheme: str, meaning: str) -> Code | None:
        if scheme not in _SCHEMES or not _CODE.fullmatch(value):
            return None
        text, _ = self._scrubber.scrubbed(meaning)
        return Code(value, scheme, text) if text else None

    def _add_part(self, text: str, path: str, parts: dict[str, str], sources: list[Source]) -> None:
        cleaned, removed = self._scrubber.scrubbed(text)
        if cleaned and cleaned.casefold() not in _UNSAID:
            parts.setdefault(cleaned.casefold(), cleaned)
            sources.append(self._source(path, _said_removed(removed)))


def _positive(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    return pair if pair is not None and min(pair) > 0 else None


def _said_removed(count: int) -> str:
    return f"{count} identifying part{'' if count == 1 else 's'} removed" if count else ""
