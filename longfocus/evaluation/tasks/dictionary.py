"""Dictionary lookup: words are defined, each once, and then asked for.

The synthetic task of the Focused Transformer paper (Tworkowski et al., 2023, section 5.4), which its small models do
to 16 million tokens: `<k> key <v> value` defines, `<q> key <v>` asks. Keys and values are random, so nothing but the
right definition tells a value. `longfocus train dictionary` makes a model that can do nothing else; others may try,
and find a definition to be several tokens longer.
"""

from __future__ import annotations

import random

from longfocus.evaluation.pieces import most_pieces
from longfocus.evaluation.task import Count, DoesNotFit, Length, Opened, Outcome, Question, Sheet, Task, Writing
from longfocus.training.dictionary import Dictionary

_TOKENS_A_SYMBOL = 2
"""Most tokens of a symbol with the space before it, for usual tokenizers: some cut a digit off its space."""


class DictionaryLookup(Task):
    """Definitions; which of them are asked for is drawn without repeats, from anywhere.

    The score is the share of a value's symbols that are right, as the paper counts; `exact` is 1 where all are. Unlike
    there, a symbol is written behind those that were written before it, not behind the right ones.

    Args:
        dictionary: What entries look like.
    """

    name = "dictionary"
    units: tuple[str, ...] = ("definitions", "tokens")
    usual_lengths = ("4k", "64k")
    form = "text"
    questions = 25

    def __init__(self, dictionary: Dictionary | None = None) -> None:
        self._dictionary = dictionary or Dictionary()

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`. A length in tokens is that of as many definitions as it holds.

        Raises:
            DoesNotFit: There is no room for a definition, or there are not as many keys.
        """
        drawn = f"{self.name} {seed} {length} {number}"
        definitions = _Definitions(self._dictionary, random.Random(drawn))
        amount = length.amount
        if length.unit == "tokens":
            keys = self._dictionary.keys
            amount = most_pieces(definitions.text, min(length.amount, keys), length.amount, count, first=4096)
        if not amount:
            raise DoesNotFit(f"a dictionary of {length} has no room for a definition")
        document = definitions.text(amount)
        asked = random.Random(f"{drawn} asked").sample(range(amount), amount)
        return Sheet(document, tuple(definitions.question(place, place / amount) for place in asked[:questions]))

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        most = _TOKENS_A_SYMBOL * self._dictionary.value
        answer = opened.continued(question.text, Writing(most, stop=("<",))).strip()
        wanted, found = question.answers[0].split(), answer.split()
        right = sum(one == other for one, other in zip(wanted, found, strict=False))
        return Outcome(answer, right / len(wanted), more={"exact": float(right == len(wanted))})


class _Definitions:
    """Definitions without an end, each key once, drawn as they are needed."""

    def __init__(self, dictionary: Dictionary, chance: random.Random) -> None:
        self._dictionary, self._chance = dictionary, chance
        self._used: set[int] = set()
        self._told: list[str] = []

    def text(self, count: int) -> str:
        """The first so many.

        Raises:
            DoesNotFit: There are not as many keys.
        """
        if count > self._dictionary.keys:
            raise DoesNotFit(f"{count} definitions were asked for; there are {self._dictionary.keys} keys")
        while len(self._told) < count:
            self._draw()
        return " ".join(self._told[:count])

    def question(self, place: int, depth: float) -> Question:
        """The question that asks for one, as it goes on behind them."""
        words = self._told[place].split()
        key, value = words[1 : self._dictionary.key + 1], words[self._dictionary.key + 2 :]
        _, between, asking = self._dictionary.marks
        return Question(" ".join((f" {asking}", *key, between)), (" ".join(value),), depth)

    def _draw(self) -> None:
        symbols = self._dictionary.words
        number = self._chance.randrange(self._dictionary.keys)
        while number in self._used:
            number = self._chance.randrange(self._dictionary.keys)
        self._used.add(number)
        key = []
        for _ in range(self._dictionary.key):
            number, digit = divmod(number, len(symbols))
            key.append(symbols[digit])
        value = self._chance.choices(symbols, k=self._dictionary.value)
        defining, between, _ = self._dictionary.marks
        self._told.append(" ".join((defining, *key, between, *value)))
