"""One line of plain text: is it a chapter's heading, and what does it number?

Judges a line by itself; `chapters` judges it by its surroundings.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from longfocus.reading.documents.heading_languages import LANGUAGES
from longfocus.reading.documents.heading_words import (
    folded,
    kinds,
    names,
    number_of,
    number_words,
    ordinals,
)

HeadlineKind = Literal["part", "chapter", "front", "back", "numeral"]

_LONGEST = 120
_LONGEST_NAME = 80

_KEYWORD = re.compile(r"([^\W\d_]+)\.?\s+(?:the\s+)?(\S.*)", re.I)
_IN_FRONT = re.compile(r"(?:the\s+)?(\S+(?:\s+\S+)?)\s+([^\W\d_]+)\b(.*)", re.I)
_SHORT_FRONT = re.compile(r"(?:the\s+)?(\S+)\s+([^\W\d_]+)\b(.*)", re.I)
_SUFFIX = r"(?:\.?[ºª°]|(?:er|re|ère|e|ème|de|ste)|-?(?:я|й|ая|ый|ое|е))"
_NUMERAL = re.compile(rf"(?:([IVXLC]+)|(\d{{1,3}})){_SUFFIX}?(?![\w'’])")
_LEADING = re.compile(rf"(?:([IVXLC]+)|(\d{{1,3}}))({_SUFFIX}?\.?)")
_LETTERS = re.compile(r"[^\W\d_]+")
_NUMBER_WORDS = re.compile(r"[^\W\d_]+(?:[- ][^\W\d_]+){0,2}")
_PARTED = re.compile(r"\s*(?:[.:]|[-–—]+)\s*(.*)")
# A lone "I" before words is the numeral only where a stop or a wide gap parts them: "I Go to Styles" is a title.
_ROMAN_LINE = re.compile(r"([IVXLC]{1,8})(?:[.:)]*|(?:[.:)]\s*|\s{2,}|(?<!^I)\s|\s*[-–—]+\s*)(\S.*))")
_ARABIC_LINE = re.compile(r"(\d{1,3})\.?")
_SMALL_WORDS = frozenset({"with", "from", "into", "upon", "over", "that", "when", "than", "under", "after", "before"})
_WORD = re.compile(r"[^\W\d_]+")
_ORNAMENT = " \t\f\v_*=~-–—"


@dataclass(frozen=True)
class Headline:
    """A line that may head a chapter: `word` is what is counted ("chapter", "roman"), `title` what follows it."""

    kind: HeadlineKind
    word: str
    number: int | None
    title: str
    text: str
    sentence_case: bool = False
    """Whether titles of its language are written like sentences, with few capitals."""

    @property
    def rank(self) -> int:
        """How far in it belongs by its kind: parts hold chapters, chapters hold numerals."""
        return {"part": 0, "chapter": 1, "front": 1, "back": 1, "numeral": 2}[self.kind]


def bare_line(line: str) -> str:
    """The line without surrounding white space and ornament ("_IV_", "* * *")."""
    return line.strip(_ORNAMENT)


def parse_headline(line: str) -> Headline | None:
    """What the line heads, or None where it reads like prose."""
    text = " ".join(bare_line(line).split())
    if not text or len(text) > _LONGEST or not (text[0].isupper() or text[0].isdigit()):
        return None
    return _named(text) or _counted(text) or _counted_in_front(text) or _numeral(bare_line(line), text)


def looks_like_title(text: str) -> bool:
    """Whether a short line reads like a title: in capitals, or most of its longer words capitalised."""
    words: list[str] = _WORD.findall(text)
    if not words or len(text) > 1.5 * _LONGEST or text[-1] in ",;:-–—":
        return False
    if text == text.upper():
        return True
    if text[-1] == "." or text[0] in "\"'“‘«" or not (words[0][0].isupper() or text[0].isdigit()):
        return False
    long_words = [word for word in words if len(word) > 3 and word not in _SMALL_WORDS]
    return sum(word[0].isupper() for word in long_words) >= 0.6 * len(long_words)


def fits_as_title(text: str, head: Headline) -> bool:
    """Whether a short line can be the title that belongs to a heading, as its language writes titles."""
    return looks_like_title(text) or (head.sentence_case and _reads_like_a_name(text))


def _reads_like_a_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and text[:1].isupper() and not re.search(r"[.;:!?…]|[,–—-]$", text)


def roman_number(text: str) -> int | None:
    """Value of a roman numeral in capitals and in canonical form, up to 399."""
    return _roman_numbers().get(text)


def _named(text: str) -> Headline | None:
    name = re.sub(r"^(?:the|author's)\s+", "", folded(text.rstrip(".:")))
    if text.islower():
        return None
    stem = re.sub(r"\s+(?:[a-z]|[ivx]+|\d{1,2})$", "", name)
    if names().get(name) == "front":
        return Headline("front", name, None, "", text)
    return Headline("back", name, None, "", text) if names().get(stem) == "back" else None


def _counted(text: str) -> Headline | None:
    match = _KEYWORD.fullmatch(text)
    if not match or not (match[1].isupper() or match[1].istitle()):
        return None
    kind, codes = _kind(match[1])
    counted = _number(match[2], codes)
    return _with_title(kind, match[1], codes, *counted, text) if kind and counted else None


def _counted_in_front(text: str) -> Headline | None:
    """Such as "The Second Part", "Erstes Kapitel", "2. Kapitel", "Première partie"."""
    for match in filter(None, (_IN_FRONT.fullmatch(text), _SHORT_FRONT.fullmatch(text))):
        kind, codes = _kind(match[2])
        if not (match[2].isupper() or match[2].istitle()):
            codes = frozenset(code for code in codes if LANGUAGES[code].lower)
        number = _leading_number(match[1], codes) if kind else None
        if kind and number:
            return _with_title(kind, match[2], codes, number, match[3], text)
    return None


def _leading_number(text: str, codes: frozenset[str]) -> int | None:
    numeral = _LEADING.fullmatch(text)
    if numeral and any(LANGUAGES[code].leads for code in codes):
        return (roman_number(numeral[1]) if numeral[1] else int(numeral[2])) if numeral[3] else None
    words = [folded(word[0]) for word in _LETTERS.finditer(text)]
    if re.sub(r"[- ]", "", text) != "".join(_LETTERS.findall(text)):
        return None
    return next((number for code in sorted(codes) if (number := number_of(words, code, ordinals(code)))), None)


def _numeral(line: str, text: str) -> Headline | None:
    arabic = _ARABIC_LINE.fullmatch(text)
    if arabic:
        return Headline("numeral", "arabic", int(arabic[1]), "", text)
    roman = _ROMAN_LINE.fullmatch(line)
    number = roman_number(roman[1]) if roman else None
    if not roman or number is None:
        return None
    title = " ".join((roman[2] or "").split())
    return None if title and not looks_like_title(title) else Headline("numeral", "roman", number, title, text)


def _with_title(
    kind: HeadlineKind, word: str, codes: frozenset[str], number: int, rest: str, text: str
) -> Headline | None:
    parted = _PARTED.fullmatch(rest)
    title = parted[1] if parted else rest.strip()
    head = Headline(kind, folded(word), number, title, text, sentence_case="en" not in codes)
    # "Part two of the plan" is prose: without a stop behind the number, the rest must look like a title.
    if title and (title[0].islower() if parted else not (rest[0].isspace() and fits_as_title(title, head))):
        return None
    return head


def _kind(word: str) -> tuple[HeadlineKind | None, frozenset[str]]:
    """What a word counts, if anything, and in which languages."""
    kind, codes = kinds().get(folded(word), (None, frozenset()))
    return kind, codes


def _number(text: str, codes: frozenset[str]) -> tuple[int, str] | None:
    """The number that the text begins with, in numerals or in words of the languages, and what follows it."""
    numeral = _NUMERAL.match(text)
    if numeral:
        number = roman_number(numeral[1]) if numeral[1] else int(numeral[2])
        return (number, text[numeral.end() :]) if number else None
    match = _NUMBER_WORDS.match(text)
    words = list(_LETTERS.finditer(match[0])) if match else []
    for count in range(len(words), 0, -1):
        end = words[count - 1].end()
        if re.match(r"[\w'’]", text[end:]):
            continue
        said = [folded(word[0]) for word in words[:count]]
        for code in sorted(codes):
            number = number_of(said, code, number_words(code))
            if number:
                return number, text[end:]
    return None


@cache
def _roman_numbers() -> dict[str, int]:
    tens = ("", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC")
    units = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
    return {"C" * (n // 100) + tens[n // 10 % 10] + units[n % 10]: n for n in range(1, 400)}
