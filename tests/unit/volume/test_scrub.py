"""What names a patient is planted into free text, and must be gone; what is said of the illness stays."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import date
from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from volume.scrub import Identity, Scrubber

NOBODY = Scrubber(Identity())


def scrubbed(text: str, *names: str, ids: tuple[str, ...] = (), born: date | None = None) -> str:
    identity = Identity(names=names, identifiers=ids, birth_dates=() if born is None else (born,))
    return Scrubber(identity).scrubbed(text)[0]


def bare(text: str) -> str:
    """Return text without case and accents, by other means than the scrubber's."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if unicodedata.category(c) != "Mn")


# -- Names ----------------------------------------------------------------------------------------------------------

LATIN = st.text("abcdefghijklmnoprstuvwxyzäöüéèñçšžåø", min_size=4, max_size=10).filter(
    lambda part: bare(part) not in ("from", "kein", "nach", "oder", "with", "without")
)
SCRIPTS = st.one_of(
    LATIN,
    st.text("абвгдежзиклмнопрстуфхцчшыэюя", min_size=3, max_size=10),
    st.text("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώ", min_size=3, max_size=10),
    st.text("אבגדהוזחטילמנסעפצקרשת", min_size=3, max_size=8),
    st.text("ابتثجحخدذرزسشصضطظعغفقكلمنهوي", min_size=3, max_size=8),
    st.text("山田太郎佐藤鈴木王李張東", min_size=2, max_size=3),
    st.text("やまだたろうさとすずきガギパ", min_size=2, max_size=5),
    st.text("김이박최정철수영희지민", min_size=2, max_size=3),
    st.text("กขคงจฉชซญดตถทนบปผพ", min_size=3, max_size=8),
)
SEPARATORS = st.sampled_from([" ", ", ", "^", "-", "_", "  ", ". ", "=", "'s "])
CASES = st.sampled_from([str.upper, str.lower, str.title, str, lambda t: unicodedata.normalize("NFD", t), bare])


@given(parts=st.lists(SCRIPTS, min_size=1, max_size=3, unique=True), case=CASES, between=SEPARATORS, data=st.data())
def test_no_part_of_a_name_is_left_in_any_order_case_and_spelling(
    parts: list[str], case: Callable[[str], str], between: str, data: st.DataObject
) -> None:
    name = "^".join(part.title() for part in parts)
    order = data.draw(st.sampled_from(list(permutations(parts))))
    text = f"5 mm 結節, {between.join(case(part) for part in order)} 12 x 9 mm"
    found = bare(scrubbed(text, name))
    assert "5 mm" in found
    assert "12 x 9 mm" in found
    for part in parts:
        assert bare(part) not in found


@given(
    groups=st.tuples(
        LATIN, st.text("山田太郎佐藤鈴木", min_size=2, max_size=4), st.text("やまだたろう", min_size=2, max_size=4)
    )
)
def test_each_component_group_counts(groups: tuple[str, str, str]) -> None:
    for planted in groups:
        assert bare(planted) not in bare(scrubbed(f"1 {planted} 2", "=".join(groups)))


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("MÜLLER^JOSÉ", "Hr. Mueller, Jose: Husten", "Hr. ___: Husten"),
        ("MUELLER^ANNA", "Frau Müller klagt", "Frau ___ klagt"),
        ("O'Brien^Ann", "obrien; O\u2019Brien's cough", "___ cough"),
        ("Smith^John^Q", "J. Q. Smith has annual anvils", "___ has annual anvils"),
        ("Smith^John", "SmithJohn johnsmith SMITH_JOHN1", "___1"),
        ("van der Berg^Jan", "van der Berg, referred by Jan; tumor van de long",
        "___, referred by ___; tumor van de long"),
        ("Le^An", "an effusion in le lobe; Le An; Mr An", "an effusion in le lobe; ___; Mr ___"),
        ("No^Thi", "No effusion. No Thi", "No effusion. ___"),
        ("Lee^Sun=李^順", "李 順 has pain", "___ has pain"),
        ("Gao^Ming=高^明=", "高血圧, 明らか; 高明 and 高さん", "高血圧, 明らか; ___ and ___さん"),
        ("김^철수", "김철수는 기침, 김 씨, 김치", "___는 기침, ___ 씨, 김치"),
        ("Yamada^Taro=山田^太郎=ヤマダ^タロウ", "やまだ たろう さん ﾔﾏﾀﾞ", "___ さん ___"),
        ("Иванова^Мария", "Иванову Марию, боль", "___, боль"),
        ("أحمد^محمد", "المريض لأحمد ومحمد", "المريض ___"),
        ("Straße^Łukasz", "STRASSE LUKASZ", ""),
        ("Smith^John^^Dr^MD", "mild md changes", "mild ___ changes"),
    ],
)  # fmt: skip
def test_names_as_they_are_written(name: str, text: str, left: str) -> None:
    assert scrubbed(text, name) == left


# -- Numbers --------------------------------------------------------------------------------------------------------


@given(
    value=st.from_regex(r"[A-Z]{0,3}[0-9]{4,9}[A-Z]?", fullmatch=True),
    between=st.sampled_from(["", " ", "-", ".", "/"]),
)
def test_identifiers_are_found_whatever_separates_their_letters_and_figures(value: str, between: str) -> None:
    written = between.join(re.findall(r"[A-Z]+|[0-9]+", value)).lower()
    found = scrubbed(f"cough ({written}) fever", ids=(value,))
    assert found == "cough (___) fever"


def test_leading_zeros_make_no_other_identifier_and_short_ones_need_a_word_before_them() -> None:
    assert scrubbed("id 0012345 or 12345", ids=("00012345",)) == "id ___ or ___"
    assert scrubbed("12 nodules, Pat. Nr. 12 or case #12", ids=("12",)) == "12 nodules, Pat. ___ or ___"


SPELLINGS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d.%m.%y",
    "%m/%d/%y",
    "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%b %Y", "%B %Y", "%m/%Y", "%Y年%m月%d日",
    "%Y년 %m월 %d일",
    "%d. %m. %Y", "%Y-%m-%dT%H:%M:%S", "%Y%m%d%H%M%S", "%d%m%Y", "%d %B", "%B %d", "%d de %B de %Y",
)  # fmt: skip


@given(day=st.dates(date(1900, 1, 1), date(2099, 12, 31)), spelling=st.sampled_from(SPELLINGS))
def test_dates_in_common_spellings_are_gone(day: date, spelling: str) -> None:
    assume(not (spelling in ("%d %B", "%B %d") and day.month == 5))  # may is a verb
    found = scrubbed(f"compared with {day.strftime(spelling)} there is less fluid")
    assert found == "compared with ___ there is less fluid"


@pytest.mark.parametrize(
    "written",
    ["2. Januar 2024", "2 janvier 2024", "2 de enero de 2024", "2 gennaio 2024", "2 января 2024", "2 Ιανουαρίου 2024",
     "January 2nd, 2024", "2nd of January 2024", "Jan. 2, 2024", "2.1.24", "2 ocak 2024", "2 stycznia 2024",
     "令和6年1月2日",
     "R6.1.2", "1月2日", "２０２４年１月２日", "2024-1-2", "02JAN2024", "Jan-2024"],
)  # fmt: skip
def test_dates_of_many_countries_are_gone(written: str) -> None:
    assert scrubbed(f"since: {written}; pain") == "since: ___; pain"


@given(
    day=st.dates(date(1910, 1, 1), date(2024, 12, 31)),
    spelling=st.sampled_from((*SPELLINGS, "%d%m%y", "%y%m%d", "%m%d%y", "%Y")),
)
def test_the_birth_date_is_gone_also_run_together_and_its_year(day: date, spelling: str) -> None:
    assume(not (spelling in ("%d %B", "%B %d") and day.month == 5))
    assert scrubbed(f"patient, {day.strftime(spelling)}, cough", born=day) == "patient, ___, cough"


@pytest.mark.parametrize(
    "written",
    ["+49 170 1234567", "+1 (555) 123-4567", "(555) 123-4567", "555-123-4567", "030/1234567", "0171 2345678",
     "0049 30 123456", "tel. 12 34 56 78", "090-1234-5678", "123-45-6789", "john@example.org",
     "https://example.org/p/1",
     "1.2.840.113619.2.55.3", "MRN: 4711", "ID# 4711", "AB1234567", "00123456"],
)  # fmt: skip
def test_numbers_of_persons_are_gone(written: str) -> None:
    assert scrubbed(f"call {written} please") == "call ___ please"


@pytest.mark.parametrize(
    "text",
    ["54 y/o with cough for 3 weeks, 5 mm nodule in L1-2", "BP 120/80, grade 3/4, T12/L1, 1 out of 3, stage IIIa",
     "512 x 512, 0.625 mm, 1.5 T, 3.0 T, 120 kV, 250 mAs, 10 x 12 x 15 mm", "C34.1, I10, J18.9, 71250, CT 64",
     "may be seen in 2 of 5; 3 mag; set 2", "no pneumonia in 2019, status post resection 2019",
     "PSA 4.5 ng/ml, GFR > 60",
     "SUVmax 12.3", "Gleason 3+4=7", "Brustschmerz, 2-3 Tage", "胸痛、高血圧 5年前から", "EF 35-40 %, HR 72",
     "T2N1M0, BI-RADS 4",
     "day 10 after 5 cycles", "L4/5, C5-6", "pH 7.35, pCO2 40.5"],
)  # fmt: skip
def test_medicine_stays(text: str) -> None:
    assert NOBODY.scrubbed(text) == (text, 0)


def test_places_are_taken_out_as_a_whole() -> None:
    scrubber = Scrubber(Identity(places=("St. Mary Hospital", "CT")))
    assert scrubber.scrubbed("seen at st. mary  HOSPITAL, CT chest, Mary") == ("seen at ___, CT chest, Mary", 1)


def test_what_was_nothing_else_leaves_nothing() -> None:
    assert Scrubber(Identity(names=("Canary^Phi",))).scrubbed("PHI, Canary (2024-01-02)") == ("", 2)


def test_invisible_characters_hide_nobody() -> None:
    assert scrubbed("Ca\u200bnary\u00ad", "Canary") in ("", "Ca nary")
