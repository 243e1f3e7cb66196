"""Perplexity by memory length: how well a passage of a book is predicted when so much before it was read.

For every length up to 64k the same passages are predicted, so differences between lengths are not differences between
texts; likewise for lengths above that up to 128k, and so on as far as there are books long enough.
"""

from __future__ import annotations

import random
from pathlib import Path

from longfocus.evaluation.fitting import fit
from longfocus.evaluation.task import Count, DoesNotFit, Length, Opened, Outcome, Question, Sheet, Task
from longfocus.training.book_questions import books_of

USUAL = Length.parse("64k").amount
"""So many tokens stand before every passage, or twice as many, or four times, whatever part of them is read."""
PASSAGE_CHARACTERS = 1500


class Perplexity(Task):
    """Passages of the books that are for reporting, in turn.

    Args:
        data: A folder with `books/index.json` and `narrativeqa/qa_valid_test.jsonl.gz`.
        split: Which books.
    """

    name = "perplexity"
    units: tuple[str, ...] = ("tokens",)
    form = "text"

    def __init__(self, data: Path, split: str = "test") -> None:
        self._data = data
        self._split = split
        self._read: list[str] = []
        self._found: dict[tuple[int, Count], list[tuple[str, int]]] = {}

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`; there is one passage a document.

        Raises:
            DoesNotFit: No book is long enough.
        """
        before = USUAL
        while before < length.amount:
            before *= 2
        stories = self._stories(before, count)
        story, first = stories[number % len(stories)]
        chance = random.Random(f"perplexity {seed} {number}")
        place = chance.randrange(first, len(story) - PASSAGE_CHARACTERS)
        place = story.find(" ", place)
        document = fit(lambda n: story[max(place - n, 0) : place], length.amount, count)
        passage = story[place : place + PASSAGE_CHARACTERS]
        return Sheet(document, (Question(passage, ()),))

    def look(self) -> None:
        """See `Task.look`."""
        books_of(self._data, splits=(self._split,), for_reporting=True)

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        loss, predicted = opened.loss(question.text)
        return Outcome(loss=loss, predicted=predicted)

    def _stories(self, before: int, count: Count) -> list[tuple[str, int]]:
        """The books in which a passage can have so many tokens before it, and from which character on it has."""
        if not self._read:
            books = books_of(self._data, splits=(self._split,), for_reporting=True)
            self._read = [book.story() for book in books]
        if (before, count) not in self._found:
            firsts = ((story, _first(story, before, count)) for story in self._read)
            room = 4 * PASSAGE_CHARACTERS
            self._found[before, count] = [(story, first) for story, first in firsts if len(story) > first + room]
        if not self._found[before, count]:
            raise DoesNotFit(
                f"no book of the {self._split} split in {self._data} has a passage with {Length(before)} before it"
            )
        return self._found[before, count]


def _first(story: str, before: int, count: Count) -> int:
    """From which character on there are so many tokens before a passage."""
    if before == USUAL or len(story) < before:
        # A token has seldom more than five characters, so this does without counting.
        return 5 * before
    first = len(story) * before // max(count(story), 1)
    while first < len(story) and count(story[:first]) < before:
        first += max(first // 50, 1)
    return first
