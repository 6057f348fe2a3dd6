"""Takes out of free text what names a patient: names, identifiers, dates, telephone numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from itertools import pairwise

from volume.person_numbers import KEYWORD, PATTERNS

REMOVED = "___"
"""What stands in place of something removed; so it is in the reports that chest X-ray models were trained with."""

_SMALL_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a al am an and are as at au but by ct da das de del dem den der des di die do dos du e ein el en et for
        from had has he her his i il im in is it kein la las le les lo los mit mr my nach nil no non nor not o of
        oder on or ou pt she si sin so the to und us van vom von vor was we with without y you zu zum zur""",
    )
)
"""Too common to be taken out where they stand alone; beside another part of the name they are."""
_TITLES = frozenset(
    re.findall(r"\w+", "mr mrs ms miss mister herr hr frau fr mme mlle monsieur madame sr sra senor senora dr")
)
_BEFORE = ("患者", "病人", "환자")
_AFTER = ("様", "さん", "氏", "先生", "君", "殿", "씨", "님", "女士", "小姐", "同志")
_VOICED = frozenset("\uff9e\uff9f\u309b\u309c")
_LETTERS = {"ß": "ss", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h"}
_UMLAUTS = {"a": "ae", "o": "oe", "u": "ue"}
_APOSTROPHES = re.compile("['\u2019\u02bc\u2018`\u00b4]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the header says about who this is. It never leaves the function that scrubs."""

    names: tuple[str, ...] = field(default=(), repr=False)
    """Person names (PS3.5 6.2), all component groups, of the patient and of staff."""
    identifiers: tuple[str, ...] = field(default=(), repr=False)
    birth_dates: tuple[date, ...] = field(default=(), repr=False)
    places: tuple[str, ...] = field(default=(), repr=False)
    """Institutions and addresses, taken out as a whole."""


class Scrubber:
    """Takes out what belongs to one identity, and what looks like a date or a number of a person anyway."""

    def __init__(self, identity: Identity) -> None:
        self._names = _Names(identity.names)
        self._patterns = (
            *(_literal(place) for place in identity.places if len(_folded(place)) >= 4),
            *map(_identifier, sorted({i.strip() for i in identity.identifiers if i.strip()}, key=len, reverse=True)),
            *(pattern for day in identity.birth_dates for pattern in _birth_date(day)),
            *PATTERNS,
        )

    def scrubbed(self, text: str) -> tuple[str, int]:
        """Return the text with ``___`` in place of what was removed, and how many places those are.

        The result is on one line, in composed form. Nothing is left of a text that was nothing else.
        """
        text = unicodedata.normalize("NFC", " ".join(_CONTROL.sub(" ", text).split()))
        taken = [*self._names.found(text), *_found(self._patterns, text)]
        pieces, at, count = [], 0, 0
        for start, end in _joined(sorted(taken), text):
            pieces += [text[at:start], REMOVED]
            at, count = end, count + 1
        cleaned = "".join([*pieces, text[at:]])
        return (cleaned if re.search(r"[^\W_]", cleaned) else ""), count


# -- Letters that count as the same ---------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad]+")


def _fold(char: str) -> str:
    """Return a character without case, width, accent and kind of kana."""
    if "\uac00" <= char <= "\ud7a3":
        return char  # a Hangul syllable would fall apart
    plain = unicodedata.normalize("NFKD", char).casefold()
    plain = "".join(_LETTERS.get(c, c) for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return "".join(chr(ord(c) - 0x60) if "\u30a1" <= c <= "\u30f6" else c for c in plain)


def _folded(text: str) -> str:
    return "".join(map(_fold, unicodedata.normalize("NFC", text)))


def _spellings(part: str) -> set[str]:
    """Return a part of a name without accents, and with its umlauts as two letters and two letters as umlauts."""
    composed = unicodedata.normalize("NFC", part).casefold()
    written_out = "".join(
        _UMLAUTS.get(_folded(c), "") if "\u0308" in unicodedata.normalize("NFD", c) and _folded(c) in _UMLAUTS
        else {"ø": "oe", "å": "aa"}.get(c, c)
        for c in composed
    )  # fmt: skip
    return {_folded(part), _folded(written_out), re.sub("(?<=[aou])e(?=.{2})", "", _folded(part))}


@dataclass(frozen=True, slots=True)
class _Folded:
    """A text and its folded form, with the place in the text of each folded character."""

    text: str
    plain: str
    places: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> _Folded:
        pairs = [(c, index) for index, char in enumerate(text) for c in _fold(char)]
        return cls(text, "".join(c for c, _ in pairs), tuple(index for _, index in pairs))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the text, with the marks that follow it."""
        last = self.places[end - 1] + 1
        while last < len(self.text) and (unicodedata.combining(self.text[last]) or self.text[last] in _VOICED):
            last += 1
        return self.places[start], last


# -- Names ----------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+")
_WORDS = re.compile(rf"{_WORD.pattern}(?:{_APOSTROPHES.pattern}{_WORD.pattern})*")
_BETWEEN = re.compile(r"[\s.,^;=_'\u2019-]{0,3}")
_DENSE = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7a3\u0e00-\u0e7f\u1000-\u109f\u1780-\u17ff\u0900-\u0dff\u0e80-\u0fff]"
)
"""Scripts written without spaces, or with endings that stick to a name: a part is looked for inside words."""
_CLINGING = re.compile("[\u0590-\u05ff\u0600-\u06ff]")
"""Hebrew and Arabic: particles are written together with the word that follows."""


class _Names:
    """Parts of names, looked for in any order, case and spelling."""

    def __init__(self, names: Sequence[str]) -> None:
        parts: set[str] = set()
        for name in names:
            for piece in re.split(r"[=^\s,;.()\[\]/\\-]+", name):
                joined = _APOSTROPHES.sub("", piece)
                for part in (joined, *_APOSTROPHES.split(piece), *re.split(r"[\d_]+", joined)):
                    parts |= _spellings(part)
        parts = {part for part in parts if _WORD.search(part)}
        self._dense = {part for part in parts if _DENSE.search(part)}
        self._words = parts - self._dense

    def found(self, text: str) -> list[tuple[int, int]]:
        """Return the places of the text that hold a part of a name."""
        if not self._words and not self._dense:
            return []
        folded = _Folded.of(text)
        return [folded.span(*place) for place in (*self._found_words(folded.plain), *self._found_dense(folded.plain))]

    # Alphabets: whole words

    def _found_words(self, plain: str) -> Iterator[tuple[int, int]]:
        words = list(_WORDS.finditer(plain))
        taken = [self._is_part(word.group()) for word in words]
        weak = [self._is_weak_part(word.group()) for word in words]
        pairs = list(enumerate(pairwise(words)))
        again = True
        while again:  # to the right, to the left, until nothing changes: three rounds at most
            before = sum(taken)
            for i, (first, second) in (*pairs, *reversed(pairs)):
                if _BETWEEN.fullmatch(plain, first.end(), second.start()) is None:
                    continue
                both = self._are_two_parts(first.group(), second.group())
                taken[i] |= weak[i] and (taken[i + 1] or both)
                taken[i + 1] |= weak[i + 1] and (taken[i] or both or first.group() in _TITLES)
            again = sum(taken) > before
        return (word.span() for word, is_taken in zip(words, taken, strict=True) if is_taken)

    def _is_part(self, word: str) -> bool:
        bare = _APOSTROPHES.sub("", word)
        if bare in self._strong or self._is_run_together(bare):
            return True
        if any(piece in self._strong for piece in _APOSTROPHES.split(word)):
            return True
        return any(_is_inflected(bare, part) for part in self._strong)

    def _is_weak_part(self, word: str) -> bool:
        bare = _APOSTROPHES.sub("", word)
        return bare in self._words or (len(bare) == 1 and any(part.startswith(bare) for part in self._words))

    def _are_two_parts(self, first: str, second: str) -> bool:
        return first != second and {first, second} <= self._words and len(first) > 1 and len(second) > 1

    @cached_property
    def _strong(self) -> frozenset[str]:
        """Parts that name somebody by themselves."""
        return frozenset(part for part in self._words if len(part) >= 2 and part not in _SMALL_WORDS)

    def _is_run_together(self, word: str) -> bool:
        """Tell whether a word is two or more parts written as one."""
        reached = {0: 0}
        for start in range(len(word)):
            if start not in reached:
                continue
            for part in self._words:
                if word.startswith(part, start):
                    reached[start + len(part)] = max(reached.get(start + len(part), 0), reached[start] + 1)
        return reached.get(len(word), 0) >= 2 and any(part in word for part in self._strong)

    # Scripts without spaces: anywhere

    def _found_dense(self, plain: str) -> Iterator[tuple[int, int]]:
        sure = [
            match.span() for part in self._dense if len(part) >= 2 for match in re.finditer(re.escape(part), plain)
        ]
        yield from sure
        single = [part for part in self._dense if len(part) == 1]
        for match in (match for part in single for match in re.finditer(part, plain)):
            if self._stands_for_somebody(plain, match.start(), sure, single):
                yield match.span()

    def _stands_for_somebody(
        self, plain: str, at: int, sure: Sequence[tuple[int, int]], single: Sequence[str]
    ) -> bool:
        """Tell whether one character is the name: a syllable like 高 or 이 is part of many other words."""
        left, right = plain[:at], plain[at + 1 :]
        before, after = left.rstrip(" ^=・"), right.lstrip(" ^=・")
        if any(end == len(before) or start == len(plain) - len(after) for start, end in sure):
            return True
        if before.endswith(_BEFORE) or after.startswith(_AFTER):
            return True
        if before[-1:] in single or after[:1] in single:
            return True
        return not left[-1:].isalpha() and not right[:1].isalpha()


def _is_inflected(word: str, part: str) -> bool:
    """Tell whether a word is a longer part of a name with an ending of up to three letters, or with a particle."""
    if _CLINGING.search(part):
        return len(part) >= 3 and word.endswith(part) and len(word) - len(part) <= 3
    if len(part) < 5:
        return len(part) >= 3 and word == f"{part}s"
    stem = part if part.isascii() else part.rstrip("аеиоуыэюяьйαεηιουω")
    return len(stem) >= 3 and word.startswith(stem) and len(word) - len(stem) <= 3


# -- Identifiers and places -----------------------------------------------------------------------------------------


def _identifier(value: str) -> re.Pattern[str]:
    """Return a pattern of an identifier with any separators; a short number only where something calls it one."""
    runs = re.findall(r"[^\W\d_]+|\d+", value)
    if not runs:
        return re.compile(re.escape(value), re.IGNORECASE)
    first = runs[0].lstrip("0") or runs[0]
    padding = "0*" if runs[0].isdigit() else ""
    body = r"[\s._/\\-]{0,2}".join([f"{padding}{re.escape(first)}", *map(re.escape, runs[1:])])
    bounded = rf"(?<![^\W_]){body}(?![^\W_])"
    if sum(map(len, runs)) >= 4:
        return re.compile(bounded, re.IGNORECASE)
    return re.compile(rf"(?<![^\W_]){KEYWORD}[\s.:#_-]{{0,4}}{bounded}", re.IGNORECASE)


def _literal(value: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in unicodedata.normalize("NFC", value).split()]
    return re.compile(r"[\s,]+".join(words), re.IGNORECASE)


def _birth_date(day: date) -> Iterator[re.Pattern[str]]:
    """Yield the patterns of one date run together, and of its year alone."""
    y, m, d = f"{day.year:04}", f"{day.month:02}", f"{day.day:02}"
    spelled = {
        y + m + d, d + m + y, m + d + y, y + d + m, y[2:] + m + d, d + m + y[2:], m + d + y[2:], y[2:] + d + m, y,
    }  # fmt: skip
    yield re.compile(rf"(?<!\d)(?:{'|'.join(sorted(spelled, key=len, reverse=True))})(?!\d)")


def _found(patterns: Sequence[re.Pattern[str]], text: str) -> Iterator[tuple[int, int]]:
    # Full-width digits are digits; each stands for one character, so that the places are the same.
    plain = "".join(chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else c for c in text)
    for pattern in patterns:
        for match in pattern.finditer(plain):
            yield match.span("taken" if "taken" in pattern.groupindex else 0)


def _joined(places: Sequence[tuple[int, int]], text: str) -> Iterator[tuple[int, int]]:
    """Yield places, those as one that overlap or have nothing between them but separators."""
    if not places:
        return
    start, end = places[0]
    for following, last in places[1:]:
        if following <= end or not re.search(r"[^\s,.^=_;'\u2019-]", text[end:following]):
            end = max(end, last)
            continue
        yield start, end
        start, end = following, last
    yield start, end
