"""What dates look like, and numbers that stand for a person: patterns in the spellings of many countries."""

from __future__ import annotations

import re

_MONTH = (
    r"(?:jan(?:uary|uar|vier|eiro|uari|ner)?|j[äa]nner|ene(?:ro)?|gen(?:naio)?|feb(?:ruary|ruar|brero|braio|ruari)?|"
    r"f[ée]v(?:rier|ereiro)?|mar(?:ch|s|zo|ço|t)?|m[äa]rz|mrz|maart|apr(?:il|ile|iel)?|avr(?:il)?|abr(?:il)?|may|mai|maio|mayo|"
    r"mei|mag(?:gio)?|june?|juni|juin|jun(?:io|ho)?|giu(?:gno)?|july?|juli|juil(?:let)?|jul(?:io|ho)?|lug(?:lio)?|"
    r"aug(?:ust|ustus)?|ao[ûu]t|ago(?:sto)?|sept?(?:ember|embre|iembre)?|set(?:tembre|embro)?|o[ck]t(?:ober|obre|ubre)?|"
    r"out(?:ubro)?|ott(?:obre)?|nov(?:ember|embre|iembre|embro)?|de[cz](?:ember|embre|embro)?|dic(?:iembre|embre)?|"
    r"d[ée]c(?:embre)?|"
    r"янв\w*|фев\w*|мар(?:т\w*)?|апр\w*|ма[йя]|июн\w*|июл\w*|авг\w*|сен\w*|окт\w*|ноя\w*|дек\w*|"
    r"stycz\w*|lut(?:y|ego)|kwie\w*|maja|czerw\w*|lip(?:iec|ca)|sierp\w*|wrze\w*|pa[źz]dz\w*|listop\w*|grud\w*|"
    r"ocak|[şs]ubat|mart|nisan|may[ıi]s|haziran|temmuz|a[ğg]ustos|eyl[üu]l|ekim|kas[ıi]m|aral[ıi]k|"
    r"ιαν\w*|φεβ\w*|μαρ\w*|απρ\w*|μα[ιΐϊ]\w*|ιο[υύ]ν\w*|ιο[υύ]λ\w*|α[υύ]γ\w*|σεπ\w*|οκτ\w*|νο[εέ]\w*|δεκ\w*)"
)
_SURE_MONTH = (
    r"(?:jan(?:uary|uar|vier|eiro|uari)?|enero|gennaio|feb(?:ruary|ruar|brero|braio|ruari)?|f[ée]vrier|fevereiro|"
    r"march|marzo|märz|maart|apr(?:il|ile)?|avril|abril|june|juni|juin|junio|junho|giugno|july|juli|juillet|julio|julho|"
    r"luglio|aug(?:ust|ustus)?|ao[ûu]t|agosto|sept?(?:ember|embre|iembre)?|setembro|o[ck]t(?:ober|obre|ubre)?|outubro|"
    r"ottobre|nov(?:ember|embre|iembre|embro)?|de[cz](?:ember|embre|embro)?|dic(?:iembre|embre)?|d[ée]cembre|"
    r"января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря)"
)
"""Months that are no other word: 1 out of 2, may, mag and set are."""
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:(?:18|19|20|21)\d\d)"
_SHORT_YEAR = r"(?:['\u2019]?\d\d)"
_ORDINAL = r"(?:st|nd|rd|th|\.|er|o|º|ª)?"
_OF = r"(?:\s+(?:de|del|of|di|da))?"
_ON = (
    r"(?:on|from|since|dated|date|until|till|by|vom|am|seit|bis|le|du|depuis|el|desde|del|dal|il|op|sinds|от|с|dob|born|"
    r"geb(?:oren)?)"
)

_DATES = (
    rf"{_YEAR}\s?[-/._]\s?{_MONTH_NUMBER}\s?[-/._]\s?{_DAY}(?!\d)(?:[T ]\d\d:?\d\d(?::?\d\d)?)?",
    rf"{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{{2,6}}(?:\.\d+)?)?",
    rf"(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2]){_YEAR}",
    rf"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]){_YEAR}",
    rf"\d{{1,2}}(?P<s>[-/.])\d{{1,2}}(?P=s)(?:{_YEAR}|{_SHORT_YEAR})",
    rf"\d{{1,2}}\s?[/.-]\s?\d{{1,2}}\s?[/.-]\s?{_YEAR}",
    rf"\d{{1,2}}\. \d{{1,2}}\. {_SHORT_YEAR}",
    rf"{_DAY}{_ORDINAL}{_OF}[\s./-]*{_MONTH}{_OF}[\s.,/-]*(?:{_YEAR}|{_SHORT_YEAR}(?!\s?(?:mm|cm|mg|ml|y|%)))",
    rf"{_MONTH}[\s.]*{_DAY}{_ORDINAL}[\s,]+{_YEAR}",
    rf"{_MONTH}\.?{_OF}[\s,./-]*{_YEAR}",
    rf"(?:{_DAY}{_ORDINAL}{_OF}\s?{_SURE_MONTH}|{_SURE_MONTH}\.?\s{_DAY}(?:st|nd|rd|th)?)(?!\s?(?:mm|cm|mg|ml|/|\.\d))",
    rf"{_YEAR}[\s./-]*{_MONTH}[\s./-]*{_DAY}",
    rf"{_MONTH_NUMBER}[/.-]{_YEAR}",
    rf"{_YEAR}[/-]{_MONTH_NUMBER}",
    r"(?:(?:明治|大正|昭和|平成|令和|[MTSHR])\s?(?:\d{1,2}|元)|民國\s?\d{1,3}|\d{2,4})\s?[年년]\s?\d{1,2}\s?[月월](?:\s?\d{1,2}\s?[日일])?",
    r"[MTSHR]\d{1,2}[./-]\d{1,2}[./-]\d{1,2}",
    r"\d{1,2}\s?月\s?\d{1,2}\s?日",
    r"\d{1,2}\s?월\s?\d{1,2}\s?일",
)
_BARE_DAYS = (
    rf"(?<![^\W_]){_ON}[\s:.]+(?P<taken>{_DAY}[./]\s?{_DAY}\.?|{_DAY} may|may {_DAY}(?:st|nd|rd|th)?)(?![\w/])"
)
"""Day and month without a year could as well be a grade or a count: only after a word that goes before a date."""

KEYWORD = r"(?:mrn|pid|pat(?:ient)?(?:en)?|fall|case|acc(?:ession)?|id|nr|no|nummer|number|#)"
"""What goes before a number of a person."""
_NUMBERS = (
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    r"(?:https?://|www\.)\S+",
    r"\d+(?:\.\d+){5,}",
    rf"{KEYWORD}\.?\s?[:#=]\s?[A-Za-z]{{0,4}}-?\d{{3,}}",
    r"\d{3}-\d{2}-\d{4}",
    r"(?:\+|00)\d{1,3}[\s./-]?(?:\(0?\d*\)[\s./-]?)?\d(?:[\s./-]?\d){5,12}",
    r"(?:\(0\d{1,4}\)|0\d{1,4})[\s./-]?\d{2,4}(?:[\s./-]?\d{2,4}){1,3}",
    r"(?:\(\d{3}\)|\d{3})[\s.-]\d{3}[\s.-]\d{4}",
    r"(?:tel|phone|mobile|fax|telefon|handy|電話|전화)\w*[\s.:]*[\d][\d\s()./-]{4,}\d",
    r"[A-Za-z]{0,5}-?\d{6,}[A-Za-z]{0,3}",
)
"""Telephone numbers, addresses on the net, UIDs, and any six digits in a row."""

_WHOLE = (rf"(?<![^\W_])(?<!\d\.)(?:{pattern})(?![^\W_])" for pattern in (*_DATES, *_NUMBERS))
PATTERNS = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (*_WHOLE, _BARE_DAYS))
"""Everything here; of a pattern with a group ``taken`` only that group is meant."""
