"""Learning in context: as many demonstrations as fit, then a question of the same kind.

The set-up of LongLLaMA (Tworkowski et al., "Focused Transformer", 2023), after Hao et al., "Structured Prompting",
2022, with plain concatenation: TREC's questions (Li and Roth, "Learning Question Classifiers", 2002) with their six or
fifty classes, and WebQuestions (Berant et al., 2013). Neither paper gives its templates or its names of classes, so
these are ours, and figures compare in their course more than in their height.

A sheet is one draw of demonstrations, and figures are means over twenty of them or as many as are asked for. Their text
ends with a line, and the question begins the next, so that both have the same tokens apart as together with a tokenizer
of bytes. What is written up to the end of the line counts.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from functools import cached_property
from pathlib import Path

from longfocus.errors import DocumentError
from longfocus.evaluation.answers import exact_match
from longfocus.evaluation.pieces import most_pieces
from longfocus.evaluation.task import Count, DoesNotFit, Length, Opened, Outcome, Question, Sheet, Task, Writing
from longfocus.training.records import load_records, read_bytes, text_field

DRAWS = 20
"""How many sheets share the test questions among them: LongLLaMA's figures are means over so many."""

_PARTS = sorted(range(DRAWS), key=lambda part: (part % 10 > 0, part % 5 > 0, part))
"""Parts of a sheet in turn: first those that no other of ten sheets has, then those that no other of five has."""

Answered = tuple[str, tuple[str, ...]]
"""A question and what may be answered, what a demonstration shows first."""

_COARSE = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}
_FINE = {
    "ABBR": {"abb": "abbreviation", "exp": "expansion"},
    "DESC": {"def": "definition", "desc": "description", "manner": "manner", "reason": "reason"},
    "ENTY": {
        "animal": "animal", "body": "part of the body", "color": "color", "cremat": "creative work",
        "currency": "currency", "dismed": "disease or medicine", "event": "event", "food": "food",
        "instru": "musical instrument", "lang": "language", "letter": "letter", "other": "other entity",
        "plant": "plant", "product": "product", "religion": "religion", "sport": "sport", "substance": "substance",
        "symbol": "symbol", "techmeth": "technique", "termeq": "equivalent term", "veh": "vehicle", "word": "word",
    },
    "HUM": {"desc": "description of a person", "gr": "group", "ind": "individual", "title": "title"},
    "LOC": {"city": "city", "country": "country", "mount": "mountain", "other": "other location", "state": "state"},
    "NUM": {
        "code": "code", "count": "count", "date": "date", "dist": "distance", "money": "money", "ord": "rank",
        "other": "other number", "perc": "percentage", "period": "period", "speed": "speed", "temp": "temperature",
        "volsize": "size", "weight": "weight",
    },
}  # fmt: skip


class InContext(Task):
    """Demonstrations and questions, those of a length in tokens that is not exceeded.

    Which questions a sheet asks does not depend on the length. Twenty sheets with a twentieth each ask every question
    of the test set once, and so do ten or five with as many more; a sheet can go on to all of them.

    Attributes:
        asks: What stands before an answer.
    """

    units: tuple[str, ...] = ("tokens",)
    form = "text"
    questions = 25
    draws = DRAWS
    answer_tokens: int
    asks: str

    def __init__(self, data: Path) -> None:
        self._data = data

    @abstractmethod
    def train(self) -> list[Answered]:
        """What demonstrations are made of."""

    @abstractmethod
    def test(self) -> list[Answered]:
        """What may be asked."""

    @abstractmethod
    def score(self, question: Question, answer: str) -> float:
        """From 0 for a wrong answer to 1 for a right one."""

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`.

        Raises:
            DoesNotFit: No demonstration fits, or all of them are shorter than the length.
            DocumentError: The data are not there, or damaged.
        """
        demonstrations, test = self._sets
        chance = random.Random(f"{self.name} {seed} {length} {number}")
        shown = chance.sample(demonstrations, len(demonstrations))
        fitting = most_pieces(lambda most: "".join(shown[:most]), len(shown), length.amount, count)
        document = "".join(shown[:fitting])
        if not fitting:
            raise DoesNotFit(f"no demonstration of {self.name} fits {length} tokens")
        if fitting == len(shown) and count(document) < length.amount:
            raise DoesNotFit(f"{length} tokens were asked for; all demonstrations of {self.name} have fewer")
        asked = self._asked(test, number, seed)[:questions]
        return Sheet(document, tuple(Question(self._put(question), answers) for question, answers in asked))

    def size(self, number: int, questions: int, seed: int) -> int:
        """See `Task.size`."""
        return min(questions, len(self._sets[1]))

    def look(self) -> None:
        """See `Task.look`."""
        _ = self._sets

    def everything(self) -> int | None:
        """See `Task.everything`."""
        return len(self._sets[1])

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        answer = opened.continued(question.text, Writing(self.answer_tokens, stop=("\n",))).strip()
        return Outcome(answer, self.score(question, answer))

    def _put(self, question: str) -> str:
        return f"Question: {question}\n{self.asks}:"

    @cached_property
    def _sets(self) -> tuple[list[str], list[Answered]]:
        """Demonstrations, each once and none of a question that may be asked, and what may be asked."""
        test = self.test()
        tested = {_comparable(question) for question, _ in test}
        kept = [each for each in self.train() if _comparable(each[0]) not in tested]
        return [f"{self._put(question)} {answers[0]}\n" for question, answers in dict.fromkeys(kept)], test

    def _asked(self, test: list[Answered], number: int, seed: int) -> list[Answered]:
        """All that may be asked, in the order of a sheet: first a twentieth that is its own in its round of sheets."""
        round_, turn = divmod(number, DRAWS)
        mixed = random.Random(f"{self.name} {seed} questions {round_}").sample(test, len(test))
        return [each for part in _PARTS for each in mixed[(turn + part) % DRAWS :: DRAWS]]


class Trec(InContext):
    """Classes of questions, by a word or two each; an answer is right if it is the class, without regard to case.

    Args:
        data: A folder with `trec/train_5500.label` and `trec/TREC_10.label`, a line `COARSE:fine question` for each.
    """

    asks = "Type"
    answer_tokens = 10

    def train(self) -> list[Answered]:
        """See `InContext.train`."""
        return self._read("train_5500.label")

    def test(self) -> list[Answered]:
        """See `InContext.test`."""
        return self._read("TREC_10.label")

    def score(self, question: Question, answer: str) -> float:
        """1 if it is the class."""
        return float(answer.lower().rstrip(".") == question.answers[0])

    @abstractmethod
    def named(self, coarse: str, fine: str) -> str:
        """A class in words."""

    def _read(self, name: str) -> list[Answered]:
        path = self._data / "trec" / name
        found: list[Answered] = []
        for number, line in enumerate(read_bytes(path).decode("iso-8859-1").strip().split("\n"), 1):
            label, _, question = line.strip().partition(" ")
            coarse, _, fine = label.partition(":")
            if fine not in _FINE.get(coarse, {}):
                raise DocumentError(
                    f"line {number} of {path} was to begin with a class of TREC, not with {label!r:.60}"
                )
            found.append((question.strip(), (self.named(coarse, fine),)))
        return found


class CoarseTrec(Trec):
    """Six classes."""

    name = "trec-coarse"

    def named(self, coarse: str, fine: str) -> str:
        """See `Trec.named`."""
        return _COARSE[coarse]


class FineTrec(Trec):
    """Fifty classes."""

    name = "trec-fine"

    def named(self, coarse: str, fine: str) -> str:
        """See `Trec.named`."""
        return _FINE[coarse][fine]


class WebQuestions(InContext):
    """Questions of users of a search engine; right is any of the answers, once normalised as for SQuAD.

    Args:
        data: A folder with `webquestions/train.jsonl.gz` and `webquestions/test.jsonl.gz`, records with `question` and
            `answers`.
    """

    name = "webqs"
    asks = "Answer"
    answer_tokens = 32

    def train(self) -> list[Answered]:
        """See `InContext.train`."""
        return self._read("train.jsonl.gz")

    def test(self) -> list[Answered]:
        """See `InContext.test`."""
        return self._read("test.jsonl.gz")

    def score(self, question: Question, answer: str) -> float:
        """1 if it is one of the answers."""
        return exact_match(answer, question.answers)

    def _read(self, name: str) -> list[Answered]:
        path = self._data / "webquestions" / name
        found = []
        for record in load_records(path):
            answers = record.get("answers")
            if not isinstance(answers, list) or not answers or not all(isinstance(each, str) for each in answers):
                raise DocumentError(f"{path} was to have a list of answers to each question; it has {answers!r:.60}")
            found.append((text_field(record, "question"), tuple(answers)))
        return found


def _comparable(question: str) -> str:
    return " ".join(question.lower().split())
