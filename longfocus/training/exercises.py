"""Exercises in recall: documents made up as they are needed, with questions whose answers lie in them.

Questions and answers are turns of a conversation behind the document. Some questions have passages before them, such as
looking them up would find: where the answer stands, mostly, and what is like it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longfocus.loading.prompts import Frame, encode_frame, frame_of, with_passages
from longfocus.training.examples import IGNORED
from longfocus.training.exercise_kinds import EXERCISES
from longfocus.training.exercise_source import Made, Question, Source
from longfocus.training.tales import Tale

_WORD = re.compile(r"[A-Za-z]{3,}")
_FOUND = 0.9  # of look-ups find all that an answer needs
_WRONG = 7  # most passages that are found besides


@dataclass(frozen=True)
class Exercise:
    """A document and what is asked about it.

    Attributes:
        kind: Its name in EXERCISES.
        document: Token ids, with the prompt's opening.
        asked: Token ids that follow: question, answer, question, answer; or the document's continuation.
        labels: The same where a token is to be predicted, -100 elsewhere.
    """

    kind: str
    document: list[int]
    asked: list[int]
    labels: list[int]


class Writer(Source):
    """Writes exercises; arguments are those of `Source`."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], seed: int, tales: Sequence[Tale] = ()) -> None:
        super().__init__(tokenizer, texts, seed, tales)
        self.frame: Frame = frame_of(tokenizer)

    def write(self, kind: str, tokens: int, room: int, looked_up: float = 0.0) -> Exercise:
        """One exercise.

        Args:
            kind: Its name in EXERCISES.
            tokens: Tokens of the document, exactly.
            room: Most tokens of questions and answers.
            looked_up: The share of questions that have passages of the document before them.
        """
        opening = ([self.tokenizer.bos_token_id] if self.frame.begins_sequence else []) + encode_frame(
            self.tokenizer, self.frame.opening
        )
        if kind == "continuation":
            return self._continuation(opening, tokens, room)
        made = EXERCISES[kind](self, tokens - len(opening))
        asked, labels = self._conversation(made, room, looked_up)
        return Exercise(kind, (opening + made.ids)[:tokens], asked, labels)

    def _continuation(self, opening: list[int], tokens: int, room: int) -> Exercise:
        """A stretch of a book; asked for is how it goes on, token by token."""
        ids = self.prose_ids(tokens - len(opening) + room)
        document, asked = ids[: tokens - len(opening)], ids[tokens - len(opening) :]
        return Exercise("continuation", opening + document, asked, [IGNORED, *asked[1:]])

    def _conversation(self, made: Made, room: int, looked_up: float) -> tuple[list[int], list[int]]:
        """Questions and answers as turns of one conversation, as many as fit; at least one."""
        ids: list[int] = []
        labels: list[int] = []
        end = [self.tokenizer.eos_token_id]
        for number, question in enumerate(made.questions):
            before = encode_frame(self.tokenizer, self.frame.between_turns if number else self.frame.before_question)
            if number and before[:1] == end:  # it ended the answer before
                before = before[1:]
            passages = self._looked_up(question, made.passages) if self.chance.random() < looked_up else []
            after = encode_frame(self.tokenizer, self.frame.after_question)
            answer = self.encode(question.answer) + end
            fixed = len(before) + len(after) + len(answer)
            asked = self.encode(with_passages(question.text, passages))
            if fixed + len(asked) > room:
                asked = self.encode(question.text)
            if number and len(ids) + fixed + len(asked) > room:
                break
            ids += before + asked + after + answer
            labels += [IGNORED] * (fixed - len(answer) + len(asked)) + answer
        return ids[:room], labels[:room]

    def _looked_up(self, question: Question, passages: Sequence[str]) -> list[str]:
        """What looking a question up may find: where its answer stands, usually, and what is like it."""
        chance = self.chance
        found = set(question.places if chance.random() < _FOUND else question.places[:-1])
        others = [place for place in range(len(passages)) if place not in question.places]
        asked = set(_WORD.findall(question.text))
        like = sorted(others, key=lambda place: -len(asked.intersection(_WORD.findall(passages[place]))))
        wrong = chance.randint(0 if found else 1, _WRONG)
        found.update(like[: wrong // 2])
        found.update(chance.sample(others, min(wrong - wrong // 2, len(others))))
        return [passages[place] for place in sorted(found)]
