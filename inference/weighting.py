"""Whether a magnetic resonance series is T1-weighted without contrast agent, by words and by TR, TE and TI."""

from __future__ import annotations

import re

from domain.engine import Answer, Verdict
from domain.series import SeriesFacts

LONGEST_T1_ECHO_MS = 40.0
LONGEST_SHORT_ECHO_MS = 25.0
"""Spin echo T1."""
LONGEST_GRADIENT_ECHO_MS = 10.0
T1_INVERSION_MS = (250.0, 1300.0)
"""MPRAGE, IR-SPGR and TFE; FLAIR at 1.5 and 3 T inverts 1600 ms and more before, STIR 120 to 230 ms."""
SPIN_ECHO_T1_REPETITION_MS = (250.0, 850.0)
LONGEST_SPIN_ECHO_T1_REPETITION_MS = 1500.0

_BEFORE, _AFTER = r"(?<![A-Z0-9])", r"(?![A-Z0-9])"
_PREFIX = r"(?:S|E|WIP|[23]D|AX|SAG|COR|TRA|IR)*"
"""Vendors and sites put letters before the weighting: sT1W (Philips), 3DT1, AXT1."""
_T1 = re.compile(rf"{_BEFORE}(?:{_PREFIX}T1(?![0-9])|(?:ME[-_ ]?)?MP[-_ ]?RAGE|BRAVO|E?F?SPGR)")
_OTHERS = tuple(
    (name, re.compile(rf"{_BEFORE}(?:{words})"))
    for name, words in (
        ("FLAIR", r"[A-Z0-9]*FLAIR|DARK[-_ ]?FLUID|TIRM"),
        ("STIR", rf"[A-Z]*STIR{_AFTER}"),
        ("T2", rf"{_PREFIX}T2(?![0-9])"),
        ("proton density", rf"{_PREFIX}PDW?{_AFTER}"),
        ("diffusion", rf"E?DWI|DTI|ADC|DIFF|TRACE[WS]?{_AFTER}"),
        ("susceptibility", r"SWI|SWAN|VEN[-_ ]?BOLD"),
        ("an angiography", rf"[A-Z0-9]*TOF{_AFTER}|[A-Z]?MRA{_AFTER}|ANGIO|PCA{_AFTER}"),
        ("perfusion or function", r"PWI|PERF|ASL|DCE|DSC|BOLD|FMRI"),
        ("a map of a parameter", rf"[A-Z0-9]*MAP{_AFTER}|T1RHO|RELAX"),
        ("MP2RAGE, whose background is noise", r"MP2RAGE"),
        ("a localizer", rf"(?:[23]?PL)?LOC{_AFTER}|LOCALI[SZ]ER|SCOUT|SURVEY"),
        (
            "another body part than the head",
            rf"[CTL]?[-_ ]?SPINE|KNEE|HIPS?{_AFTER}|ABDO|LIVER|PELVI|PROSTAT|BREAST|CARDIAC|HEART|SHOULDER",
        ),
    )
)
_AGENT = rf"(?:CONTRASTE?|GAD[A-Z]*|GD|KM|INJ|C){_AFTER}"
_WITHOUT_AGENT = re.compile(rf"{_BEFORE}(?:WITHOUT|NON|NO|W/?O|PRE|OHNE|SANS|SENZA|SIN)[-_ ]*(?:IV[-_ ]*)?{_AGENT}")
_AGENT_GIVEN = re.compile(
    rf"\+[-_ ]?{_AGENT}|{_BEFORE}(?:T1W?(?:C|CE|GD|KM){_AFTER}|C\+|(?:CE|GD|KM|INJ){_AFTER}|GAD"
    rf"|POST(?:{_AFTER}|GD|GAD|CON|KM|INJ)|CONTRAST|ENHANCED|DOTAREM|CLARISCAN|MULTIHANCE|PROHANCE|MAGNEVIST)"
)
_HEAD = ("HEAD", "BRAIN", "SKULL", "NEURO", "CRANIUM", "CEREBRUM", "WHOLEHEAD")


def native_t1(facts: SeriesFacts) -> Verdict:
    """Tell whether a series is a T1-weighted image of a head without contrast agent.

    What speaks against it is looked for first, then what speaks for it: the words of SeriesDescription or
    ProtocolName, or else the times. Where neither says anything the answer is UNKNOWN, which is not run.
    """
    words = " ".join(filter(None, (facts.series_description, facts.protocol_name))).upper()
    against = _body_part(facts) or _contrast(facts, words) or _other(words) or _contradicting_times(facts)
    if against is not None:
        return Verdict(Answer.NO, against)
    if _T1.search(words):
        return Verdict(Answer.YES, "the description says T1")
    if _times_of_t1(facts):
        return Verdict(Answer.YES, "RepetitionTime, EchoTime and InversionTime are those of T1")
    return Verdict(
        Answer.UNKNOWN, "neither the description nor RepetitionTime, EchoTime and InversionTime say that it is T1"
    )


def _body_part(facts: SeriesFacts) -> str | None:
    named = (facts.body_part_examined or "").upper().replace(" ", "")
    if not named or any(part in named for part in _HEAD):
        return None
    return "BodyPartExamined is not the head"


def _contrast(facts: SeriesFacts, words: str) -> str | None:
    if facts.contrast or _AGENT_GIVEN.search(_WITHOUT_AGENT.sub(" ", words)):
        return "it was taken with contrast agent"
    return None


def _other(words: str) -> str | None:
    found = next((name for name, pattern in _OTHERS if pattern.search(words)), None)
    return found and f"the description names {found}"


def _contradicting_times(facts: SeriesFacts) -> str | None:
    echo, repetition, inversion = facts.echo_time_ms, facts.repetition_time_ms, facts.inversion_time_ms or 0.0
    if echo is not None and echo > LONGEST_T1_ECHO_MS:
        return f"EchoTime is above {LONGEST_T1_ECHO_MS:g} ms, too long for T1"
    if inversion > T1_INVERSION_MS[1]:
        return f"InversionTime is above {T1_INVERSION_MS[1]:g} ms, too long for T1"
    long = repetition is not None and repetition > LONGEST_SPIN_ECHO_T1_REPETITION_MS
    if long and not inversion and _is(facts, "SE"):
        return f"RepetitionTime is above {LONGEST_SPIN_ECHO_T1_REPETITION_MS:g} ms, too long for T1"
    return None


def _times_of_t1(facts: SeriesFacts) -> bool:
    echo, repetition, inversion = facts.echo_time_ms, facts.repetition_time_ms, facts.inversion_time_ms
    if echo is None or repetition is None:
        return False
    if _is(facts, "GR"):
        # Without an inversion a short gradient echo may be T1, T2/T1 (balanced) or an angiography.
        return echo <= LONGEST_GRADIENT_ECHO_MS and inversion is not None and _within(inversion, T1_INVERSION_MS)
    return (
        _is(facts, "SE")
        and not inversion
        and echo <= LONGEST_SHORT_ECHO_MS
        and _within(repetition, SPIN_ECHO_T1_REPETITION_MS)
    )


def _is(facts: SeriesFacts, sequence: str) -> bool:
    """Tell whether ScanningSequence (PS3.3 C.8.3.1.1.1), which may have several values, names ``sequence``."""
    return sequence in re.split(r"[^A-Z]+", (facts.scanning_sequence or "").upper())


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
