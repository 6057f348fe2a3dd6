from __future__ import annotations

from dataclasses import replace

import pytest

from domain.engine import Answer
from domain.series import SeriesFacts
from inference.weighting import native_t1

MR = SeriesFacts(modality="MR", sop_class_uid="1.2.840.10008.5.1.4.1.1.4", instances=160)


def described(words: str) -> SeriesFacts:
    return replace(MR, series_description=words)


@pytest.mark.parametrize(
    "words",
    [
        "3D Cor T1 FAST IR-prepped GRE", "t1_mprage_sag_p2_iso", "SAG T1 3D MPR", "sT1W_3D_TFE", "MPRAGE", "MP-RAGE",
        "Ax 3D BRAVO", "FSPGR 3D", "3DT1", "AXT1 SE", "T1_SPACE", "ME-MPRAGE", "T1 without contrast", "T1 PRE GD",
        "T1 w/o C", "T1 hippocampus", "T1 posterior fossa", "t1 nativ", "SAG T1 NON-CONTRAST",
    ],
)  # fmt: skip
def test_descriptions_that_say_t1_are_taken(words: str) -> None:
    assert native_t1(described(words)).answer is Answer.YES


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("sT2W/FLAIR", "FLAIR"),
        ("Sag T2 FLAIR 3D", "FLAIR"),
        ("AX T1 FLAIR", "FLAIR"),
        ("T2W/FE-EPI", "T2"),
        ("t2_tse_tra", "T2"),
        ("T1/T2 dual", "T2"),
        ("COR STIR", "STIR"),
        ("ep2d_diff_tra", "diffusion"),
        ("DWI b1000 ADC", "diffusion"),
        ("SWI 3D", "susceptibility"),
        ("3D TOF MRA", "angiography"),
        ("AX PD TSE", "proton density"),
        ("T1 map", "map"),
        ("t1_mp2rage_sag UNI", "MP2RAGE"),
        ("3 plane loc T1", "localizer"),
        ("T1 C-spine", "body part"),
        ("T1 3D +C", "contrast"),
        ("T1C", "contrast"),
        ("t1_mprage_KM", "contrast"),
        ("SAG T1 POST GAD", "contrast"),
        ("T1 post", "contrast"),
        ("MPRAGE with contrast", "contrast"),
    ],
)
def test_descriptions_that_say_something_else_are_not_taken_and_the_reason_is_told(words: str, reason: str) -> None:
    verdict = native_t1(described(words))
    assert verdict.answer is Answer.NO
    assert reason in verdict.reason


def test_the_protocol_counts_as_the_description_does() -> None:
    assert native_t1(replace(MR, protocol_name="T1 MPRAGE")).answer is Answer.YES
    assert native_t1(replace(described("T1"), protocol_name="T1 mit +KM")).answer is Answer.NO


def timed(sequence: str, repetition: float | None, echo: float | None, inversion: float | None = None) -> SeriesFacts:
    return replace(
        MR,
        scanning_sequence=sequence,
        repetition_time_ms=repetition,
        echo_time_ms=echo,
        inversion_time_ms=inversion,
    )


@pytest.mark.parametrize(
    "series",
    [
        timed("GR", 10.4, 5.0, 300),  # IR-SPGR, as GE writes it
        timed("GR\\IR", 2300, 2.98, 900),  # MPRAGE, as Siemens writes it
        timed("['GR', 'IR']", 2300, 2.98, 900),
        timed("SE", 500, 12),
    ],
)
def test_times_say_t1_where_words_do_not(series: SeriesFacts) -> None:
    assert native_t1(series).answer is Answer.YES


@pytest.mark.parametrize(
    "series",
    [
        MR,
        timed("GR", 6, 2.5),  # balanced, or spoiled: cannot be told
        timed("GR", 25, 4),  # or an angiography
        timed("GR", None, 3, 900),
        timed("SE", 1200, 12),
        timed("EP", 500, 12),
        described("SAG 3D"),
        described("T10"),
    ],
)
def test_where_nothing_says_t1_it_is_unknown(series: SeriesFacts) -> None:
    assert native_t1(series).answer is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (timed("SE", 9000, 100, 2500), "EchoTime"),
        (timed("IR", 9000, 12, 2500), "InversionTime"),
        (timed("SE", 4000, 15), "RepetitionTime"),
    ],
)
def test_times_overrule_a_description_that_says_t1(series: SeriesFacts, reason: str) -> None:
    verdict = native_t1(replace(series, series_description="T1"))
    assert verdict.answer is Answer.NO
    assert reason in verdict.reason


def test_a_contrast_agent_in_the_header_excludes() -> None:
    assert native_t1(replace(described("T1"), contrast=True)).answer is Answer.NO


@pytest.mark.parametrize(("part", "answer"), [("HEAD", Answer.YES), ("", Answer.YES), ("KNEE", Answer.NO)])
def test_another_body_part_excludes(part: str, answer: Answer) -> None:
    assert native_t1(replace(described("T1"), body_part_examined=part)).answer is answer


def test_a_reason_quotes_no_value_of_the_header() -> None:
    verdict = native_t1(described("T1 CANARY FLAIR"))
    assert "CANARY" not in verdict.reason
