"""Words of headings, looked up: what a word counts, in which languages, and which number words say.

Words are compared folded: in lower case, without accents. A number's words are read in the languages of the word that
they number, so that "elf" is eleven chapters of a German book and no number in an English one.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from longfocus.reading.documents.heading_languages import LANGUAGES

_AND = frozenset({"y", "e", "et"})
"""What may stand between a ten and a unit."""


def folded(text: str) -> str:
    """The text in the form in which words are compared: lower case, without accents and the like."""
    letters = unicodedata.normalize("NFD", text.casefold().replace("’", "'"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@cache
def kinds() -> dict[str, tuple[Literal["part", "chapter"], frozenset[str]]]:
    """For each word that is counted, folded: "part" or "chapter", and the languages that have it."""
    found: dict[str, tuple[Literal["part", "chapter"], frozenset[str]]] = {}
    for code, language in LANGUAGES.items():
        for word in map(folded, language.parts.split()):
            found[word] = "part", found[word][1] | {code} if word in found else frozenset({code})
        for word in map(folded, language.chapters.split()):
            found[word] = "chapter", found[word][1] | {code} if word in found else frozenset({code})
    return found


@cache
def names() -> dict[str, str]:
    """For each name of what stands before or behind the chapters, folded: "front" or "back"."""
    found = {folded(name): "back" for language in LANGUAGES.values() for name in language.back}
    return found | {folded(name): "front" for language in LANGUAGES.values() for name in language.front}


@cache
def ordinals(code: str) -> dict[str, int]:
    """A language's ordinal numbers in one word, folded."""
    language = LANGUAGES[code]
    endings = language.endings.split() or [""]
    words = [stem + ending for stem in language.ordinals.split() for ending in endings]
    found = {folded(word): 1 + place // len(endings) for place, word in enumerate(words)}
    found |= {folded(word): value for word, value in language.others.items()}
    return found | _german_compounds("ste", "ster", "stes") if code == "de" else found


@cache
def number_words(code: str) -> dict[str, int]:
    """A language's numbers in one word, cardinal and ordinal, folded."""
    found = {folded(word): value for value, word in enumerate(LANGUAGES[code].cardinals.split(), 1)}
    return found | ordinals(code) | (_german_compounds("") if code == "de" else {})


def number_of(words: Sequence[str], code: str, known: Mapping[str, int]) -> int | None:
    """The number that folded words say together in a language, its single words being `known`."""
    whole = known.get("-".join(words))
    if whole is not None or len(words) < 2 or (len(words) == 3 and words[1] not in _AND) or len(words) > 3:
        return whole
    ten, unit = LANGUAGES[code].tens.get(words[0]), known.get(words[-1], 10)
    return ten + unit if ten is not None and unit < 10 else None


def _german_compounds(*endings: str) -> dict[str, int]:
    """From twenty to ninety-nine, which German writes in one word."""
    units = ["", *(f"{unit}und" for unit in ("ein", "zwei", "drei", "vier", "funf", "sechs", "sieben", "acht", "neun"))]
    tens = ("zwanzig", "dreissig", "vierzig", "funfzig", "sechzig", "siebzig", "achtzig", "neunzig")
    return {
        f"{before}{word}{ending}": 10 * ten + unit
        for ten, word in enumerate(tens, 2)
        for unit, before in enumerate(units)
        for ending in endings
    }
