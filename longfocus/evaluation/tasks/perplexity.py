"""Perplexity by memory length: how well a passage of a book is predicted when so much before it was read.

For every length the same passages are predicted, so differences between lengths are not differences between texts.
"""

from __future__ import annotations

import random
from pathlib import Path

from longfocus.errors import RequestError
from longfocus.evaluation.fitting import fit
from longfocus.evaluation.task import Count, Length, Opened, Outcome, Question, Sheet, Task
from longfocus.training.book_questions import books_of

LONGEST = Length.parse("64k")
"""How much stands before every passage, whatever part of it is read."""
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
        self._found: list[str] | None = None

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`; there is one passage a document.

        Raises:
            RequestError: No book is long enough, or more is to be read than stands before a passage.
        """
        if length.amount > LONGEST.amount:
            raise RequestError(f"perplexity is measured up to {LONGEST}, {length} was asked for")
        stories = self._stories()
        story = stories[number % len(stories)]
        chance = random.Random(f"perplexity {seed} {number}")
        # A token has seldom more than five characters, so the most that can be read always stands before a passage.
        first = 5 * LONGEST.amount
        place = chance.randrange(first, len(story) - PASSAGE_CHARACTERS)
        place = story.find(" ", place)
        document = fit(lambda n: story[max(place - n, 0) : place], length.amount, count)
        passage = story[place : place + PASSAGE_CHARACTERS]
        return Sheet(document, (Question(passage, ()),))

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        loss, predicted = opened.loss(question.text)
        return Outcome(loss=loss, predicted=predicted)

    def _stories(self) -> list[str]:
        """The books that are long enough, read once."""
        if self._found is None:
            books = books_of(self._data, splits=(self._split,), for_reporting=True)
            stories = [book.story() for book in books]
            self._found = [story for story in stories if len(story) > 5 * LONGEST.amount + 4 * PASSAGE_CHARACTERS]
        if not self._found:
            raise RequestError(f"no book of the {self._split} split in {self._data} is long enough")
        return self._found
