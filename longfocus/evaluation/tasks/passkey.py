"""Passkey: a number hidden in sentences that say nothing.

Mohtashami and Jaggi, "Landmark Attention", 2023, and the evaluation of LongLLaMA (Tworkowski et al., 2023) after it.
`Passkey` measures a document in tokens and hides keys at depths spread evenly over the examples;
`ReferencePasskey` is LongLLaMA's script: filling cut by characters, places and keys drawn by numpy from a seed.
"""

from __future__ import annotations

import random
import re

import numpy as np

from longfocus.evaluation.fitting import fit
from longfocus.evaluation.task import (
    AnswerTask,
    Count,
    Length,
    Opened,
    Outcome,
    Question,
    Sheet,
    Writing,
    depth_in_turn,
)

OPENING = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
FILLING = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key? The pass key is"


class Passkey(AnswerTask):
    """One key a document, at depths that come in turn: the middle of each tenth, in an order that mixes them."""

    name = "passkey"
    units: tuple[str, ...] = ("tokens",)
    answer_tokens = 12
    questions = 1

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`; there is one question a document.

        Raises:
            DoesNotFit: The length is too small for the key and what surrounds it.
        """
        key = random.Random(f"passkey {seed} {length} {number}").randint(1, 50_000)
        depth = depth_in_turn(number)

        def make(characters: int) -> str:
            filling = ((FILLING + " ") * (characters // len(FILLING) + 1))[:characters]
            before = round(characters * depth)
            return "\n".join((OPENING, filling[:before], hidden(key), filling[before:]))

        return Sheet(fit(make, length.amount, count), (Question(QUESTION, (str(key),), depth),))

    def score(self, question: Question, answer: str) -> float:
        """1 if the first number in the answer is the key."""
        return float(re.findall(r"\d+", answer.replace(",", ""))[:1] == [question.answers[0]])


class ReferencePasskey(Passkey):
    """As LongLLaMA's script makes them; a length is the number of characters of filling, a sheet's number its seed.

    The script as it was published has filling for 449,999 characters. Longer ones have more of the same, as the figures
    at 256k tokens must have had.

    The text is gone on with, without anything of a conversation, and right is what begins with the key: the script
    writes just as many tokens as the key has.
    """

    name = "passkey-reference"
    units: tuple[str, ...] = ("characters",)
    usual_lengths: tuple[str, ...] = ("8kcharacters", "30kcharacters")
    form = "text"

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`."""
        whole = " ".join([FILLING] * (length.amount // len(FILLING) + 1))
        draw = np.random.RandomState(seed + number)
        before = int(draw.randint(0, length.amount))
        key = int(draw.randint(1, 50_000))
        parts = (OPENING, whole[:before], hidden(key), whole[: length.amount - before])
        asked = Question(f"\n{QUESTION}", (str(key),), before / length.amount)
        return Sheet("\n".join(parts), (asked,))

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        written = opened.continued(question.text, Writing(self.answer_tokens))
        return Outcome(written, self.score(question, written))

    def score(self, question: Question, answer: str) -> float:
        """1 if the answer begins with the key."""
        return float(answer.lstrip().startswith(question.answers[0]))


def hidden(key: int) -> str:
    """The sentence to be found."""
    return f"The pass key is {key}. Remember it. {key} is the pass key."
