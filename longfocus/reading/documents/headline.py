"""One line of plain text: is it a chapter's heading, and what does it number?

Judges a line by itself; `chapters` judges it by its surroundings.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

HeadlineKind = Literal["part", "chapter", "front", "back", "numeral"]

_LONGEST = 120
_PARTS = frozenset({"part", "book", "volume", "vol", "act"})
_CHAPTERS = frozenset({"chapter", "chap", "stave", "adventure", "canto", "letter", "scene", "section"})
_FRONT = frozenset({"preface", "foreword", "introduction", "introductory note", "prologue", "interlude"})
_BACK = frozenset({"epilogue", "afterword", "conclusion", "postscript", "appendix"})

_CARDINALS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

_KEYWORD = re.compile(r"([A-Za-z]+)\.?\s+(?:the\s+)?(\S.*)", re.I)
_ORDINAL_FIRST = re.compile(r"(?:the\s+)?([A-Za-z]+(?:-[A-Za-z]+)?)\s+([A-Za-z]+)\b(.*)", re.I)
_NUMBER = re.compile(r"(?:([IVXLC]+)|(\d{1,3})|([A-Za-z]+[- ][A-Za-z]+)|([A-Za-z]+))(?![\w'’])")
_NUMBER_WORD = re.compile(r"([A-Za-z]+)(?![\w'’])")
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


def roman_number(text: str) -> int | None:
    """Value of a roman numeral in capitals and in canonical form, up to 399."""
    return _roman_numbers().get(text)


def _named(text: str) -> Headline | None:
    name = re.sub(r"^(?:the|author['’]s)\s+", "", text.rstrip(".:").lower())
    if name in _FRONT and not text.islower():
        return Headline("front", name, None, "", text)
    stem = re.sub(r"\s+(?:[a-z]|[ivx]+|\d{1,2})$", "", name)
    return Headline("back", name, None, "", text) if stem in _BACK else None


def _counted(text: str) -> Headline | None:
    match = _KEYWORD.fullmatch(text)
    if not match or not (match[1].isupper() or match[1].istitle()):
        return None
    kind = _kind(match[1].lower())
    counted = _number(match[2])
    if not kind or not counted:
        return None
    number, rest = counted
    return _with_title(kind, match[1].lower(), number, rest, text)


def _counted_in_front(text: str) -> Headline | None:
    match = _ORDINAL_FIRST.fullmatch(text)
    if not match or not (match[2].isupper() or match[2].istitle()):
        return None
    kind, number = _kind(match[2].lower()), _number_words(ordinal=True).get(match[1].lower())
    return _with_title(kind, match[2].lower(), number, match[3], text) if kind and number else None


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


def _with_title(kind: HeadlineKind, word: str, number: int, rest: str, text: str) -> Headline | None:
    parted = _PARTED.fullmatch(rest)
    title = parted[1] if parted else rest.strip()
    # "Part two of the plan" is prose: without a stop behind the number, the rest must look like a title.
    if title and (title[0].islower() if parted else not (rest[0].isspace() and looks_like_title(title))):
        return None
    return Headline(kind, word, number, title, text)


def _kind(word: str) -> HeadlineKind | None:
    return "part" if word in _PARTS else "chapter" if word in _CHAPTERS else None


def _number(text: str) -> tuple[int, str] | None:
    """The number that the text begins with, and what follows it."""
    match = _NUMBER.match(text)
    if not match:
        return None
    if match[1] or match[2]:
        number = roman_number(match[1]) if match[1] else int(match[2])
        return (number, text[match.end() :]) if number else None
    words = _number_words(ordinal=False) | _number_words(ordinal=True)
    if match[3] and match[3].lower().replace(" ", "-") in words:
        return words[match[3].lower().replace(" ", "-")], text[match.end() :]
    single = _NUMBER_WORD.match(text)
    return (words[single[1].lower()], text[single.end() :]) if single and single[1].lower() in words else None


@cache
def _number_words(ordinal: bool) -> dict[str, int]:
    words = {word: value for value, word in enumerate(_ORDINALS if ordinal else _CARDINALS, 1)}
    small = list(words.items())[:9]
    for value, ten in enumerate(_TENS, 2):
        words[ten[:-1] + "ieth" if ordinal else ten] = 10 * value
        words.update({f"{ten}-{word}": 10 * value + unit for word, unit in small})
    return words


@cache
def _roman_numbers() -> dict[str, int]:
    tens = ("", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC")
    units = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
    return {"C" * (n // 100) + tens[n // 10 % 10] + units[n % 10]: n for n in range(1, 400)}
