"""Made-up documents that a checkpoint is probed with, and what tells a passage that has what a question asks for.

Records of lines, asked for in their own words; and a short story with facts in it that share no word with their
questions, and a pass key. No data set is needed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longfocus.evaluation.task import Count, Length
from longfocus.evaluation.tasks import lines, needle, passkey
from longfocus.reading.documents import load_document

SAMPLE = Path(__file__).parent.parent / "samples" / "cask_of_amontillado.txt"
LINES, NEEDLES, PASSKEYS = "lines", "needles", "pass keys"


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        measure: What kind it is.
        question: Its text.
        wanted: Whether a passage with this text has what is asked for.
    """

    measure: str
    question: str
    wanted: Callable[[str], object]


@dataclass(frozen=True)
class AskedText:
    """A document and its questions.

    Attributes:
        text: The document.
        questions: One or more.
    """

    text: str
    questions: tuple[Asked, ...]


def record(tokens: int, questions: int, number: int, seed: int, count: Count) -> AskedText:
    """LongChat's lines, as many as so many tokens hold.

    Raises:
        RequestError: The package wonderwords is missing.
    """
    sheet = lines.Lines().sheet(Length(tokens), number, count, questions, seed)
    asked = []
    for question in sheet.questions:
        key = re.search(r"in line (\S+)\?", question.text)
        assert key is not None
        asked.append(Asked(LINES, question.text, _beginning_with(f"line {key[1]}:")))
    return AskedText(sheet.document, tuple(asked))


def _beginning_with(start: str) -> Callable[[str], object]:
    return lambda passage: passage.startswith(start)


def story(tokens: int, count: Count) -> str:
    """The sample story, or so much of it as has about so many tokens."""
    document = load_document(SAMPLE)
    text = document.text[slice(*document.body)]
    whole = count(text)
    return text if whole <= tokens else text[: needle.sentence_end(text, len(text) * tokens // whole)]


def planted(text: str, facts: int, number: int, seed: int) -> AskedText:
    """A text with so many facts and a pass key in it, evenly spread, each behind a sentence."""
    chance = random.Random(f"probe {seed} {number}")
    free = [fact for fact in needle.FACTS if not any(word in text for word in fact.subject)]
    hidden = chance.sample(free, min(facts, len(free)))
    names = chance.sample([name for name in needle.NAMES if name not in text], len(hidden))
    key = chance.randint(1, 50_000)
    said = [fact.fact.format(name) for fact, name in zip(hidden, names, strict=True)] + [passkey.hidden(key)]
    asked = [
        Asked(NEEDLES, needle.ASKED.format(fact.question), re.compile(rf"\b{name}\b").search)
        for fact, name in zip(hidden, names, strict=True)
    ]
    asked.append(Asked(PASSKEYS, passkey.QUESTION, re.compile(rf"\b{key}\b").search))
    chance.shuffle(said)
    length = len(text)
    for place in reversed(range(len(said))):
        cut = needle.sentence_end(text, length * (2 * place + 1) // (2 * len(said)))
        text = f"{text[:cut]}{said[place]} {text[cut:]}"
    return AskedText(text, tuple(asked))
