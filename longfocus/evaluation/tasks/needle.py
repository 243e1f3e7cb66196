"""A needle without word overlap: a made-up fact among pages, asked for in words that do not occur in it.

After Modarressi et al., "NoLiMa: Long-Context Evaluation Beyond Literal Matching", 2025: question and fact are joined
by a piece of common knowledge alone, so looking for the question's words finds nothing. Facts, questions and names are
ours. A name is only drawn if the pages do not have it, and a fact only if they do not speak of what is asked for.
"""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from longfocus.evaluation.pieces import most_pieces
from longfocus.evaluation.task import AnswerTask, Count, DoesNotFit, Length, Question, Sheet, depth_in_turn
from longfocus.training.book_questions import books_of

ASKED = "{} Reply with the name alone."
_ENDS = (". ", ".\n", "\n\n")
_LOOKED_THROUGH = 8  # characters for each token; more than those of a token on average, with any usual tokenizer


@dataclass(frozen=True)
class Hidden:
    """A fact and what is asked about it.

    Attributes:
        fact: A sentence with a place for a name.
        question: Has that name as its answer.
        subject: What pages must not speak of, as they would have another answer.
    """

    fact: str
    question: str
    subject: tuple[str, ...]


FACTS = (
    Hidden("The kitchen of {} looks out on the Semper Opera.", "Who has been to Dresden?", ("Dresden",)),
    Hidden("{} sketched the Brandenburg Gate in the rain.", "Who has been to Berlin?", ("Berlin",)),
    Hidden("{} was married in the Sagrada Familia.", "Who has been to Barcelona?", ("Barcelona",)),
    Hidden("{} hands out the coats at the door of the Prado.", "Who has been to Madrid?", ("Madrid",)),
    Hidden("{} ran down the steps of the Acropolis at noon.", "Who has been to Athens?", ("Athens",)),
    Hidden("{} lost a glove beside the statue of the Little Mermaid.", "Who has been to Copenhagen?", ("Copenhagen",)),
    Hidden("{} dusts the frames of the Hermitage.", "Who has been to Russia?", ("Russia", "Petersburg")),
    Hidden("{} proposed to a guide on top of Table Mountain.", "Who has been to Africa?", ("Africa",)),
    Hidden("{} learned to ski below the crater of Fuji.", "Who has been to Japan?", ("Japan",)),
    Hidden("{} spent a birthday in the gardens of the Taj Mahal.", "Who has been to India?", ("India",)),
    Hidden("{} camped three nights under the walls of Machu Picchu.", "Who has been to Peru?", ("Peru",)),
    Hidden("{} fell asleep on a bench at Bondi Beach.", "Who has been to Australia?", ("Australia",)),
    Hidden("{} says good night to grandparents in Rio de Janeiro.", "Who has family in Brazil?", ("Brazil",)),
    Hidden("{} wept in front of the Mona Lisa.", "Who has visited the Louvre?", ("Louvre",)),
    Hidden("{} has not touched meat, milk or eggs for years.", "Who is a vegan?", ("vegan",)),
    Hidden("{} carries insulin everywhere.", "Who has diabetes?", ("diabet",)),
    Hidden("{} takes ripe tomatoes for green ones.", "Who is colour-blind?", ("colour-blind", "color-blind")),
    Hidden("{} received the Fields Medal last spring.", "Who is a mathematician?", ("mathematic",)),
    Hidden("{} owns a bow and a Stradivarius.", "Who plays the violin?", ("violin",)),
    Hidden("{} kneels towards Mecca five times a day.", "Who is a Muslim?", ("Muslim", "Moslem", "Moham", "Mahom")),
    Hidden("{} has left footprints on the Moon.", "Who is an astronaut?", ("astronaut",)),
    Hidden("{} keeps eleven hives behind the barn.", "Who is able to sell honey?", ("honey",)),
)  # fmt: skip
NAMES = (
    "Anouk", "Anselm", "Bastien", "Bram", "Caio", "Dagny", "Emre", "Ewald", "Fumiko", "Henrike", "Ilse", "Iolanda",
    "Jorun", "Katrijn", "Kofi", "Leocadia", "Marisol", "Mirela", "Noor", "Oleksandr", "Ottilie", "Pavel", "Pilar",
    "Rasmus", "Ravindra", "Renzo", "Shirin", "Signe", "Sunniva", "Tadeo", "Tomasz", "Torvald", "Ulrike", "Vasco",
    "Viggo", "Wanda", "Xenia", "Yara", "Yusuf", "Zsofia",
)  # fmt: skip
_THINGS = (
    "barrel", "basket", "bench", "bridge", "candle", "cellar", "chair", "ditch", "door", "fence", "hill", "kettle",
    "ladder", "lamp", "meadow", "mill", "oven", "path", "pond", "roof", "shed", "stone", "table", "wheel",
)  # fmt: skip
_QUALITIES = ("broad", "brown", "dry", "grey", "heavy", "long", "narrow", "old", "plain", "round", "small", "wet")
_PLACES = ("above", "before", "behind", "beside", "far from", "near", "opposite", "under")


class Needle(AnswerTask):
    """A fact behind a sentence, at depths that come in turn: the middle of each tenth, in an order that mixes them."""

    units: tuple[str, ...] = ("tokens",)
    answer_tokens = 16

    @abstractmethod
    def pages(self, chance: random.Random) -> Iterator[str]:
        """Text to hide a fact in, piece by piece, until there is no more."""

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`; there is one question a document.

        Raises:
            DoesNotFit: The length is too small for a fact, or longer than all books.
            DocumentError: The books cannot be read.
        """
        chance = random.Random(f"{self.name} {seed} {length} {number}")
        pages = _first(self.pages(chance), _LOOKED_THROUGH * length.amount)
        facts = [each for each in FACTS if not any(word in pages for word in each.subject)]
        names = [name for name in NAMES if name not in pages]
        if not facts or not names:
            raise DoesNotFit(f"pages of {length} tokens speak of all that {self.name} asks for; take a shorter length")
        hidden, name = chance.choice(facts), chance.choice(names)
        depth = depth_in_turn(number)
        fact = hidden.fact.format(name)

        def document(characters: int) -> str:
            place = sentence_end(pages, round(characters * depth))
            return f"{pages[:place]}{fact} {pages[place:characters]}"

        characters = most_pieces(document, len(pages), length.amount, count, first=4096)
        text = document(characters)
        if characters == len(pages) and count(text) < length.amount:
            raise DoesNotFit(f"{length} tokens were asked for; all pages of {self.name} have fewer")
        return Sheet(text, (Question(ASKED.format(hidden.question), (name,), text.index(fact) / len(text)),))

    def score(self, question: Question, answer: str) -> float:
        """1 if the name occurs in the answer."""
        return float(re.search(rf"\b{question.answers[0]}\b", answer, re.IGNORECASE) is not None)


class BookNeedle(Needle):
    """Pages of the books that are for reporting; they begin anywhere in one and go on with others.

    Args:
        data: A folder with `books/index.json` and `narrativeqa/qa_valid_test.jsonl.gz`.
        split: Which books.
    """

    name = "needle"

    def __init__(self, data: Path, split: str = "test") -> None:
        self._data = data
        self._split = split

    def look(self) -> None:
        """See `Task.look`."""
        books_of(self._data, splits=(self._split,), for_reporting=True)

    def pages(self, chance: random.Random) -> Iterator[str]:
        """See `Needle.pages`.

        Raises:
            DocumentError: The books cannot be read.
        """
        first, *others = chance.sample(self._stories, len(self._stories))
        place = sentence_end(first, chance.randrange(len(first)))
        yield first[place:]
        yield from others
        yield first[:place]

    @cached_property
    def _stories(self) -> list[str]:
        books = books_of(self._data, splits=(self._split,), for_reporting=True)
        return [book.story().strip() + "\n\n" for book in books]


class FillingNeedle(Needle):
    """Made-up sentences that tell where things are; no books are needed, and there is no end."""

    name = "needle-filling"

    def pages(self, chance: random.Random) -> Iterator[str]:
        """See `Needle.pages`."""
        while True:
            first, second = chance.sample(_THINGS, 2)
            yield (
                f"The {chance.choice(_QUALITIES)} {first} is {chance.choice(_PLACES)} the "
                f"{chance.choice(_QUALITIES)} {second}. "
            )


def _first(pieces: Iterator[str], characters: int) -> str:
    """So much of a text, or all there is."""
    held, total = [], 0
    while total < characters and (piece := next(pieces, "")):
        held.append(piece)
        total += len(piece)
    return "".join(held)[:characters]


def sentence_end(text: str, before: int) -> int:
    """Where the last sentence or paragraph that ends before this place has ended; 0 if none does."""
    return max(
        (text.rfind(mark, 0, before) + len(mark) for mark in _ENDS if text.find(mark, 0, before) >= 0), default=0
    )
