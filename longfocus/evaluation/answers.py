"""How near an answer comes to what was wanted: exact match, F1 over words, ROUGE-L.

Each figure is from 0 to 1 and the best over all references. Papers often report a hundred times that.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TYPOGRAPHIC = {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--"}
_LETTERS = {"æ": "ae", "œ": "oe", "ø": "o", "ß": "ss"}
_ASCII = str.maketrans(_TYPOGRAPHIC | _LETTERS)


def normalised(text: str) -> str:
    """As for SQuAD (Rajpurkar et al., 2016): lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_NO_PUNCTUATION)).split())


def in_ascii(text: str) -> str:
    """A text in lower case with its letters bare of marks and its typographic signs as ASCII writes them.

    For languages in Latin letters that is what transliteration gives; letters of other scripts are left out.
    """
    return unicodedata.normalize("NFKD", text.translate(_ASCII)).encode("ascii", "ignore").decode()


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is one of the references once all are normalised."""
    return float(normalised(answer) in map(normalised, references))


def f1(answer: str, references: Sequence[str]) -> float:
    """SQuAD's F1: the harmonic mean of precision and recall over words, however often each comes; of no words, 0."""
    found = normalised(answer).split()
    return max(_f1(found, normalised(each).split()) for each in references)


def zeroscrolls_f1(answer: str, references: Sequence[str]) -> float:
    """`f1` of texts that were written in ASCII after they were normalised (Shaham et al., "ZeroSCROLLS", 2023)."""
    found = in_ascii(normalised(answer)).split()
    return max(_f1(found, in_ascii(normalised(each)).split()) for each in references)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The harmonic mean of the shares of both texts that their longest common subsequence of words has (Lin, 2004).

    Words are runs of ASCII letters and digits in lower case, not stemmed.
    """
    found = _words(answer)
    return max(_rouge_l(found, _words(each)) for each in references)


def _f1(found: list[str], wanted: list[str]) -> float:
    return _harmonic((Counter(found) & Counter(wanted)).total(), found, wanted)


def _rouge_l(found: list[str], wanted: list[str]) -> float:
    """By dynamic programming: `longest` has, for so many of the wanted words, what they share with those found so far.

    Time is proportional to the product of both lengths.
    """
    longest = [0] * (len(wanted) + 1)
    for word in found:
        before = 0  # what one wanted word less shares with one found word less
        for place, other in enumerate(wanted, 1):
            above = longest[place]
            longest[place] = before + 1 if word == other else max(above, longest[place - 1])
            before = above
    return _harmonic(longest[-1], found, wanted)


def _harmonic(common: int, found: list[str], wanted: list[str]) -> float:
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
