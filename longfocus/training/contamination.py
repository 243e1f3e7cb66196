"""Whether training documents hold what a model will be tested on.

Texts are compared by their words, without case, accents and punctuation: which runs of 13 words (n-grams, as in Brown
et al., "Language Models are Few-Shot Learners", 2020, appendix C) stand both in a document and in an evaluation set.
Of a text shorter than that, a question say, all words have to stand there in a row. Names are compared too.

The evaluation sets are held as sorted 64-bit hashes, some 16 bytes an n-gram; documents pass by one at a time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from longfocus.errors import RequestError
from longfocus.training.documents import TrainingDocument

_WORD = re.compile(r"[^\W_]+")
_SPACED_NOT = re.compile(r"(?<=\w) n't\b", re.IGNORECASE)  # "do n't", as tokenized texts have it
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

_Hashes = np.ndarray[Any, np.dtype[np.uint64]]
_Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class EvaluationTexts:
    """What must not be trained on.

    Attributes:
        name: Of the evaluation set.
        texts: Its texts, each compared for itself: a question, an answer, a summary, a book. Gone through once.
        ids: Names of its documents, as training data may call them.
        shortest: Fewest words of a text that is compared; shorter ones would be found anywhere. Questions can be
            shorter than answers and statements.
    """

    name: str
    texts: Iterable[str]
    ids: frozenset[str] = frozenset()
    shortest: int = 8


@dataclass(frozen=True)
class Overlap:
    """What a document and an evaluation set have in common.

    Attributes:
        number: The document's place in the stream, from 0.
        document: Its id.
        evaluation: Name of the set.
        shared: Different n-grams of the set that stand in the document.
        document_share: Share of the document's words that lie in such n-grams.
        text_share: Greatest share of one text's n-grams that stand in the document; 1 is a whole question or book.
        texts: Texts of the set that have any of them.
        sample: Words of the first.
        same_name: Whether the document is called as one of the set's.
    """

    number: int
    document: str
    evaluation: str
    shared: int
    document_share: float
    text_share: float
    texts: int
    sample: str
    same_name: bool


@dataclass(frozen=True)
class Checked:
    """How an evaluation set could be compared.

    Attributes:
        texts: Texts that were compared.
        too_short: Texts of too few words to tell anything; they were not compared.
        ngrams: Different n-grams.
    """

    texts: int
    too_short: int
    ngrams: int


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        documents: How many documents were looked at.
        evaluations: How each set could be compared, by name.
        overlaps: All that documents and sets have in common, in the order of the documents.
        contaminated: Those of them that are more than a quotation.
    """

    documents: int
    evaluations: dict[str, Checked]
    overlaps: tuple[Overlap, ...]
    contaminated: tuple[Overlap, ...]

    def numbers(self) -> frozenset[int]:
        """Places of the contaminated documents in the stream: what `LeftOut` takes."""
        return frozenset(overlap.number for overlap in self.contaminated)

    def require_clean(self) -> None:
        """Nothing where no document is contaminated.

        Raises:
            RequestError: Some are.
        """
        if self.contaminated:
            worst = max(self.contaminated, key=lambda overlap: (overlap.text_share, overlap.shared))
            said = "the same name" if worst.same_name and not worst.shared else f'{worst.shared} runs, "{worst.sample}"'
            raise RequestError(
                f"{len(self.numbers())} of {self.documents} training documents hold evaluation data, such as "
                f"{worst.document} of {worst.evaluation} ({said}). Leave them out, or do not report on those sets."
            )


def check_contamination(
    documents: Iterable[TrainingDocument],
    evaluations: Iterable[EvaluationTexts],
    *,
    words: int = 13,
    tolerated: int = 20,
    tolerated_share: float = 0.5,
) -> Report:
    """Look for evaluation sets in training documents.

    The defaults come from 33 novels and the sets of NarrativeQA, TREC and WebQuestions. No two of the novels share more
    than seven runs of 13 words, a quotation. By chance, questions of up to four words stand in them, and answers of up
    to seven ("the early hours of the morning"); longer ones never do.

    Args:
        documents: The training documents, once.
        evaluations: The sets, of different names.
        words: Words of an n-gram; a shorter text counts as one.
        tolerated: Most n-grams of a set that a document may hold: a quotation that both make.
        tolerated_share: Share of one text's n-grams from which on a document is contaminated, however few they are.

    Returns:
        What was found; `require_clean` raises where that is too much.

    Raises:
        RequestError: Numbers that make no sense, or two sets of one name.
    """
    if words < 1 or tolerated < 0 or not 0 < tolerated_share <= 1:
        raise RequestError(
            f"Cannot check with n-grams of {words} words, {tolerated} of them and a share of {tolerated_share} "
            "tolerated; wanted words from 1, n-grams from 0, and a share above 0 and up to 1."
        )
    indexes: list[_Index] = []
    for evaluation in evaluations:
        if any(index.name == evaluation.name for index in indexes):
            raise RequestError(f"Two evaluation sets are called {evaluation.name!r}; give them different names.")
        indexes.append(_Index(evaluation, words))
    shortest = min((index.shortest for index in indexes), default=words)
    count, overlaps = 0, []
    for number, document in enumerate(documents):
        count = number + 1
        said = normalised_words(document.text)
        hashes = _ngram_hashes(said, shortest, words)
        found = (index.overlap(number, document, said, hashes) for index in indexes)
        overlaps += [overlap for overlap in found if overlap is not None]
    contaminated = (
        overlap
        for overlap in overlaps
        if overlap.same_name or overlap.shared > tolerated or overlap.text_share >= tolerated_share
    )
    return Report(count, {index.name: index.checked for index in indexes}, tuple(overlaps), tuple(contaminated))


def normalised_words(text: str) -> list[str]:
    """The words of a text without case, accents and punctuation; an apostrophe parts words."""
    text = _SPACED_NOT.sub("n't", text)
    if not text.isascii():
        text = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return _WORD.findall(text.casefold())


def _ngram_hashes(words: list[str], shortest: int, longest: int) -> dict[int, _Hashes]:
    """For each length in words, the hash of the n-gram at each place; equal in one process only."""
    each = np.fromiter((hash(word) for word in words), np.int64, len(words)).view(np.uint64)
    hashes: dict[int, _Hashes] = {}
    running = np.zeros(len(words), np.uint64)
    for length in range(1, min(longest, len(words)) + 1):
        running = running[: len(words) - length + 1] * _FACTOR + each[length - 1 :]  # wraps at 64 bits
        if length >= shortest:
            hashes[length] = running
    return hashes


class _Index:
    """The n-grams of an evaluation set and the texts that they are of."""

    def __init__(self, evaluation: EvaluationTexts, words: int) -> None:
        self.name = evaluation.name
        self.shortest = max(1, min(evaluation.shortest, words))
        self._names = frozenset(_names(evaluation.ids))
        made: dict[int, list[tuple[_Hashes, int]]] = {}
        sizes: list[int] = []  # different n-grams of each text
        too_short = 0
        for text in evaluation.texts:
            said = normalised_words(text)
            if len(said) < self.shortest:
                too_short += 1
                continue
            length = min(words, len(said))
            different = np.unique(_ngram_hashes(said, length, length)[length])
            made.setdefault(length, []).append((different, len(sizes)))
            sizes.append(len(different))
        self._sizes: _Numbers = np.array(sizes, np.int64)
        self._tables = {length: _table(parts) for length, parts in made.items()}
        self.checked = Checked(len(sizes), too_short, sum(len(keys) for keys, _, _ in self._tables.values()))

    def overlap(
        self, number: int, document: TrainingDocument, words: list[str], hashes: dict[int, _Hashes]
    ) -> Overlap | None:
        """What a document has in common with the set, or None."""
        shared, per_text = 0, np.zeros(0, np.int64)
        covered, first = np.zeros(len(words), np.bool_), (len(words), 0)
        for length, (keys, ends, texts) in self._tables.items():
            if length not in hashes:
                continue
            places = np.searchsorted(keys, hashes[length])
            hits = np.flatnonzero(keys[np.minimum(places, len(keys) - 1)] == hashes[length])
            if not len(hits):
                continue
            different = np.unique(places[hits])
            shared += len(different)
            starts = np.where(different == 0, 0, ends[different - 1])
            owned = [texts[start:end] for start, end in zip(starts, ends[different], strict=True)]
            per_text = np.concatenate((per_text, *owned))
            for offset in range(length):
                covered[hits + offset] = True
            first = min(first, (int(hits[0]), length))
        same_name = not self._names.isdisjoint(_names([document.id]))
        if not shared and not same_name:
            return None
        found, counts = np.unique(per_text, return_counts=True)
        return Overlap(
            number=number,
            document=document.id,
            evaluation=self.name,
            shared=shared,
            document_share=float(covered.mean()) if words else 0.0,
            text_share=float((counts / self._sizes[found]).max(initial=0.0)),
            texts=len(found),
            sample=" ".join(words[first[0] : first[0] + first[1]]),
            same_name=same_name,
        )


def _table(parts: list[tuple[_Hashes, int]]) -> tuple[_Hashes, _Numbers, _Numbers]:
    """The different hashes in order, where the texts of each end, and the texts of all."""
    hashes = np.concatenate([different for different, _ in parts])
    texts = np.repeat(np.array([text for _, text in parts], np.int64), [len(different) for different, _ in parts])
    order = np.argsort(hashes, kind="stable")
    keys, counts = np.unique(hashes[order], return_counts=True)
    return keys, np.cumsum(counts), texts[order]


def _names(ids: Iterable[str]) -> Iterable[str]:
    """Each id as it is, and as a file's name without folders and suffixes."""
    for id in ids:
        yield id
        yield PurePosixPath(id).name.split(".")[0] or id
