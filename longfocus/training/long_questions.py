"""Long question answering: a whole book and a question as the prompt, the answer as what is learnt.

In the manner of Anima 100K, which was tuned on records (prompt, completion) of 30,000 to 100,000 tokens: an answer
that depends on all of a long input teaches more about it than more of the same text does. A prompt is an instruction,
the book and the question, and the loss counts the answer and its end alone. Where a book is longer than its row, a
stretch of its middle is left out, never its ends and never the question; the record says which. Several questions
about one book may share a row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from longfocus.errors import DocumentError, RequestError
from longfocus.loading.prompts import Frame, encode_frame, encode_text, encode_with_places, frame_of
from longfocus.training.book_questions import Question, QuestionedBook
from longfocus.training.examples import Example, Row
from longfocus.training.special_tokens import beginning, ending, special_ids

INSTRUCTION = "Read the text below. Then answer what is asked about it, in as few words as will do.\n\n"
OMISSION = "\n\n[...]\n\n"
ANIMA_FRAME = Frame("", "\n\nQuestion: ", "\nAnswer:", "\n\nQuestion: ", begins_sequence=True)
"""Plain text without a chat template."""


@dataclass(frozen=True)
class LengthBand:
    """Lengths drawn alike: all from `low` to `high` tokens, both included.

    Attributes:
        low: The shortest.
        high: The longest.
        share: How often the band is drawn, beside others.
    """

    low: int
    high: int
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high or self.share <= 0:
            raise RequestError(f"lengths from {self.low} to {self.high} with a share of {self.share} cannot be drawn")


ANIMA_LENGTHS = (LengthBand(30_000, 100_000),)


@dataclass(frozen=True)
class LongRecord:
    """One row as text.

    Attributes:
        document: The id of the book.
        title: Its title.
        questions: Ids of the questions, in order.
        parts: The row in order: text, and whether the loss counts it.
        left_out: Which characters of the book's file stand in its middle and not in the row; None where all is there.
        tokens: How many tokens the row has.
    """

    document: str
    title: str
    questions: tuple[str, ...]
    parts: tuple[tuple[str, bool], ...]
    left_out: tuple[int, int] | None
    tokens: int

    @property
    def prompt(self) -> str:
        """Everything before the last answer."""
        last = max(number for number, (_, counted) in enumerate(self.parts) if counted)
        return "".join(text for text, _ in self.parts[:last])

    @property
    def completion(self) -> str:
        """The last answer, without what ends it."""
        return [text for text, counted in self.parts if counted][-1]


@dataclass(frozen=True)
class _Part:
    text: str
    ids: list[int]
    counted: bool = False


@dataclass(frozen=True)
class _Tokens:
    """A book's story without space around it: where in its file it starts, and the ids and characters of its tokens.

    `ids`, `starts` and `ends` are [tokens]; characters are those of `text`.
    """

    book: str
    start: int
    text: str
    ids: Tensor
    starts: Tensor
    ends: Tensor


class LongQuestions(Dataset[Row]):
    """Books with questions as rows of tokens.

    Of the texts only the one asked for last is held. What a row is depends on its number, the seed and the epoch alone:
    questions are joined into rows once; lengths, cuts and which answer is taken are drawn anew in each epoch.

    Args:
        books: See `longfocus.training.book_questions.load_book_questions`.
        tokenizer: The model's.
        lengths: How many tokens rows have at most, with question and answer; shorter books give shorter rows.
        questions_per_row: Most questions about one book in a row.
        frame: The fixed parts of a prompt; None for those in which the model is asked about a document, by its chat
            template where it has one.
        instruction: Text before the book; an empty one gives the prompts in which documents are asked.
        omission: Text in place of what is left out.
        head_share: Bounds of how much of what is kept of an over-long book is its beginning, drawn uniformly.
        seed: For all that is drawn.

    Raises:
        RequestError: Settings that make no sense, or a tokenizer without an end-of-sequence token.
    """

    def __init__(
        self,
        books: Sequence[QuestionedBook],
        tokenizer: Any,
        *,
        lengths: Sequence[LengthBand] = ANIMA_LENGTHS,
        questions_per_row: int = 1,
        frame: Frame | None = None,
        instruction: str = INSTRUCTION,
        omission: str = OMISSION,
        head_share: tuple[float, float] = (0.25, 0.75),
        seed: int = 0,
    ) -> None:
        if not books or not lengths:
            raise RequestError(f"{len(books)} books and {len(lengths)} bands of lengths were given; wanted one or more")
        if questions_per_row < 1:
            raise RequestError(f"{questions_per_row} questions were to share a row; give 1 or more")
        if not 0 < head_share[0] <= head_share[1] < 1:
            raise RequestError(f"head_share is {head_share}; wanted two shares between 0 and 1, the lower one first")
        self._tokenizer = tokenizer
        self._lengths = tuple(lengths)
        self._frame = frame_of(tokenizer) if frame is None else frame
        self._instruction = instruction
        self._omission = omission
        self._head_share = head_share
        self._seed = seed
        self._epoch = 0
        self._held: _Tokens | None = None
        self._end, self._after_end = _ending(tokenizer, self._frame)
        self._rows: list[tuple[QuestionedBook, tuple[Question, ...]]] = []
        for book in books:
            order = list(book.questions)
            random.Random(f"{seed} {book.id}").shuffle(order)
            for start in range(0, len(order), questions_per_row):
                self._rows.append((book, tuple(order[start : start + questions_per_row])))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """Row number `index`: `input_ids`, `labels`, `attention_mask`, each [T].

        Raises:
            DocumentError: The book's file cannot be used.
            RequestError: The length drawn leaves no room for the book.
        """
        parts, _ = self._parts(index)
        return Example.of((part.ids, part.counted) for part in parts).row()

    def record(self, index: int) -> LongRecord:
        """The same row as text, and what was left out of its book.

        Raises:
            DocumentError, RequestError: As for the row.
        """
        book, questions = self._rows[index]
        parts, left_out = self._parts(index)
        return LongRecord(
            document=book.id,
            title=book.title,
            questions=tuple(question.id for question in questions),
            parts=tuple((part.text, part.counted) for part in parts),
            left_out=left_out,
            tokens=sum(len(part.ids) for part in parts),
        )

    def set_epoch(self, epoch: int) -> None:
        """Draw lengths, cuts and answers as for this epoch."""
        self._epoch = epoch

    def _parts(self, index: int) -> tuple[list[_Part], tuple[int, int] | None]:
        """The row piece by piece, and which characters of the book's file it lacks."""
        book, questions = self._rows[index]
        chance = random.Random(f"{self._seed} {self._epoch} {index}")
        band = chance.choices(self._lengths, [band.share for band in self._lengths])[0]
        length = chance.randint(band.low, band.high)
        share = chance.uniform(*self._head_share)
        before = [
            self._fixed("", beginning(self._tokenizer) if self._frame.begins_sequence else []),
            self._fixed(self._frame.opening),
            _Part(self._instruction, encode_text(self._tokenizer, self._instruction)),
        ]
        after: list[_Part] = []
        for number, question in enumerate(questions):
            after += self._turn(question, chance.choice(question.answers), first=number == 0)
        room = length - sum(len(part.ids) for part in (*before, *after))
        story, left_out = self._story(book, room, share)
        return before + story + after, left_out

    def _turn(self, question: Question, answer: str, first: bool) -> list[_Part]:
        """A question and its answer, with what stands around them; each answer ends as generation does."""
        opening = self._frame.before_question if first else self._after_end
        answer = _set_apart(self._tokenizer, self._frame.after_question, answer)
        return [
            self._fixed(opening),
            _Part(question.text, encode_text(self._tokenizer, question.text)),
            self._fixed(self._frame.after_question),
            _Part(answer, encode_text(self._tokenizer, answer) + self._end, counted=True),
        ]

    def _story(self, book: QuestionedBook, room: int, share: float) -> tuple[list[_Part], tuple[int, int] | None]:
        """The book in at most `room` tokens, `share` of them its beginning where it has more."""
        tokens = self._tokens(book)
        if len(tokens.ids) <= room:
            return [_Part(tokens.text, tokens.ids.tolist())], None
        omission = encode_text(self._tokenizer, self._omission)
        kept = room - len(omission)
        if kept < 2:
            raise RequestError(
                f"a row about {book.title} has {max(kept, 0)} tokens left for the book beside its questions; "
                "draw longer rows, or let fewer questions share one"
            )
        head = min(max(round(kept * share), 1), kept - 1)
        tail = len(tokens.ids) - (kept - head)
        while head > 1 and tokens.ends[head - 1] > tokens.starts[head]:  # a character may have several tokens
            head -= 1
        while tail < len(tokens.ids) - 1 and tokens.starts[tail] < tokens.ends[tail - 1]:
            tail += 1
        first, last = int(tokens.ends[head - 1]), int(tokens.starts[tail])
        parts = [
            _Part(tokens.text[:first], tokens.ids[:head].tolist()),
            _Part(self._omission, omission),
            _Part(tokens.text[last:], tokens.ids[tail:].tolist()),
        ]
        return parts, (tokens.start + first, tokens.start + last)

    def _tokens(self, book: QuestionedBook) -> _Tokens:
        if self._held is None or self._held.book != book.id:
            story = book.story()
            text = story.strip()
            start = book.body[0] + len(story) - len(story.lstrip())
            ids, places = encode_with_places(self._tokenizer, text)
            if not ids:
                raise DocumentError(f"{book.title} has no text that the tokenizer knows")
            starts, ends = torch.tensor(places).T
            self._held = _Tokens(book.id, start, text, torch.tensor(ids), starts, ends)
        return self._held

    def _fixed(self, text: str, ids: Sequence[int] = ()) -> _Part:
        return _Part(text, [*ids, *encode_frame(self._tokenizer, text)])


def _ending(tokenizer: Any, frame: Frame) -> tuple[list[int], str]:
    """What ends an answer, and the text between that and the next question.

    Where the frame has a special token behind an answer, that is its end; elsewhere it is the end-of-sequence token.
    """
    ids, special = encode_frame(tokenizer, frame.between_turns), special_ids(tokenizer)
    for place, token in enumerate(ids):
        if token in special:
            text = tokenizer.convert_ids_to_tokens(token)
            return ids[: place + 1], frame.between_turns.split(text, 1)[1]
    return ending(tokenizer), frame.between_turns


def _set_apart(tokenizer: Any, before: str, answer: str) -> str:
    """The answer with a space before it, where neither the prompt nor the tokenizer puts one between."""
    if not before or before[-1].isspace() or any(before.endswith(t) for t in tokenizer.all_special_tokens):
        return answer
    adds_space = tokenizer.convert_ids_to_tokens(encode_text(tokenizer, "a")[:1])[0].startswith("▁")
    return answer if adds_space else f" {answer}"
