"""How a document and a question become one prompt, by the tokenizer's chat template where it has one.

The document comes first, so that it can be read before any question is known: opening, document, question, answer.
Only the template's own text is searched for special tokens; what a document or a question says stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longfocus.errors import RequestError

_DOCUMENT, _QUESTION, _ANSWER = "(((document)))", "(((question)))", "(((answer)))"
_PLAIN = (f"{_DOCUMENT}\n\nQuestion: {_QUESTION}\nAnswer:", f"{_ANSWER}\n\nQuestion: {_QUESTION}\nAnswer:")


@dataclass(frozen=True)
class Frame:
    """The fixed parts of a prompt, as text.

    Attributes:
        opening: Before the document.
        before_question: Between the document and the first question.
        after_question: Between a question and its answer.
        between_turns: Between an answer and the next question.
        begins_sequence: Whether the tokenizer's beginning-of-sequence token is to be put first.
    """

    opening: str
    before_question: str
    after_question: str
    between_turns: str
    begins_sequence: bool


def frame_of(tokenizer: Any) -> Frame:
    """The frame that the tokenizer's chat template gives; a plain one where there is none that can be used."""
    first = _render(tokenizer, [("user", f"{_DOCUMENT}\n\n{_QUESTION}")])
    second = _render(tokenizer, [("user", "x"), ("assistant", _ANSWER), ("user", _QUESTION)])
    begins = False
    if first is None or second is None:
        first, second = _PLAIN
        begins = tokenizer.bos_token_id is not None
    opening, rest = first.split(_DOCUMENT)
    before_question, after_question = rest.split(_QUESTION)
    between_turns = second.split(_ANSWER)[1].split(_QUESTION)[0]
    return Frame(opening, before_question, after_question, between_turns, begins)


def _render(tokenizer: Any, turns: list[tuple[str, str]]) -> str | None:
    """A conversation up to the answer that is wanted, or None where the template does not keep to its parts."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template is a program of the checkpoint's authors and may raise anything
        return None
    marks = [mark for _, content in turns for mark in (_DOCUMENT, _QUESTION, _ANSWER) if mark in content]
    whole = all(text.count(mark) == 1 for mark in marks)
    ordered = [text.find(mark) for mark in marks] == sorted(text.find(mark) for mark in marks)
    return text if whole and ordered else None


def with_passages(question: str, passages: Sequence[str]) -> str:
    """A question with passages of the document that were looked up for it, which stand before it."""
    if not passages:
        return question
    return "\n\n".join(("Passages of it:", *passages, question))


def encode_frame(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a part of the frame; special tokens in it are meant."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
    return ids


def opening_ids(tokenizer: Any, framed: bool = True) -> list[int]:
    """Token ids of what stands before a document that will be asked about; or, not framed, before any text."""
    if not framed:
        return bare_opening_ids(tokenizer)
    frame = frame_of(tokenizer)
    first = [tokenizer.bos_token_id] if frame.begins_sequence else []
    return first + encode_frame(tokenizer, frame.opening)


def bare_opening_ids(tokenizer: Any) -> list[int]:
    """Token ids that the tokenizer puts before any text: its beginning-of-sequence token, or nothing."""
    first = tokenizer.bos_token_id
    begins = first is not None and tokenizer("x", verbose=False)["input_ids"][:1] == [first]
    return [first] if begins else []


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text from outside, in which nothing is a special token.

    Raises:
        RequestError: It holds what is no character, as bytes that are not UTF-8 become.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError("the text holds bytes that are not UTF-8; write it in that encoding") from error
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def encode_with_places(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of text from outside and the characters (start, end) that each stands for."""
    found = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    return found["input_ids"], found["offset_mapping"]
