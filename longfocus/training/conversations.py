"""Conversations, as ShareGPT has them, in the form of LongLLaMA's chat tuning.

A row is: BOS, the initial prompt, and for each turn a prefix, the text, and after the model's turns EOS. Each of these
is turned into tokens by itself. What is too long is cut at its end. The loss counts the model's texts and their EOS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from longfocus.errors import DocumentError, RequestError
from longfocus.loading.prompts import encode_frame, encode_text
from longfocus.training.examples import Example, Piece, Record
from longfocus.training.records import text_field
from longfocus.training.special_tokens import beginning, ending

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""Who speaks, in ShareGPT's words and in those of chat templates."""

_BETWEEN_RULES, _REPLACED_BY = "<;>", "<R>"


class Turn(NamedTuple):
    """What one side says at a time."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Replacements:
    """Regular expressions and what their matches become, one after the other; a dot matches line ends too."""

    rules: tuple[tuple[re.Pattern[str], str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Replacements:
        r"""Read rules `REGEX<R>REPLACEMENT`, joined by `<;>`; `\1` in a replacement is the first group.

        Raises:
            RequestError: They are not written like this.
        """
        rules = []
        for rule in text.split(_BETWEEN_RULES) if text else ():
            parts = rule.split(_REPLACED_BY)
            if len(parts) != 2:
                raise RequestError(f"the replacement {rule!r} has {len(parts) - 1} {_REPLACED_BY}; wanted REGEX<R>TEXT")
            try:
                pattern = re.compile(parts[0], re.DOTALL)
                pattern.sub(parts[1], "")  # reads the replacement, though nothing need match
            except re.error as error:
                raise RequestError(f"the replacement {rule!r} cannot be used: {error}") from error
            rules.append((pattern, parts[1]))
        return cls(tuple(rules))

    def apply(self, text: str) -> str:
        """The text with all matches replaced."""
        for pattern, replacement in self.rules:
            text = pattern.sub(replacement, text)
        return text


@dataclass(frozen=True)
class ConversationFields:
    """Where a record has its turns.

    Attributes:
        conversation: The field with the list of turns.
        text: The field of a turn with what is said: "value", or "markdown" in some editions.
        speaker: The field of a turn with who says it.
        replacements: What is changed in every text.
    """

    conversation: str = "conversations"
    text: str = "value"
    speaker: str = "from"
    replacements: Replacements = Replacements()

    def turns(self, record: Record) -> list[Turn]:
        """What was said.

        Raises:
            DocumentError: The record has no such list, or a turn lacks a field.
        """
        found = record.get(self.conversation)
        if not isinstance(found, list | tuple) or not all(isinstance(turn, dict) for turn in found):
            raise DocumentError(
                f"a record was to have a list of turns in its field {self.conversation!r}; it is {found!r:.60}"
            )
        return [
            Turn(text_field(turn, self.speaker), self.replacements.apply(text_field(turn, self.text))) for turn in found
        ]

    def messages(self, record: Record) -> list[dict[str, str]]:
        """The record as messages for a chat template.

        Raises:
            DocumentError: As of `turns`, or somebody speaks whose role is not known.
        """
        turns = self.turns(record)
        for turn in turns:
            if turn.speaker not in ROLES:
                raise DocumentError(f"a turn is by {turn.speaker!r}; wanted one of {', '.join(ROLES)}")
        return [{"role": ROLES[turn.speaker], "content": turn.text} for turn in turns]


@dataclass(frozen=True)
class ConversationFormat:
    """LongLLaMA's form of conversations; the defaults are its own.

    Attributes:
        fields: Where a record has its turns.
        model: Who the model is; all others are treated as the human.
        initial_prompt: Text before the first turn. Special tokens in it and in the prefixes are meant as such.
        model_prefix: Text before each of the model's turns.
        human_prefix: Text before each other turn.
        longest: Most tokens of a row.
    """

    fields: ConversationFields = ConversationFields()
    model: str = "gpt"
    initial_prompt: str = "You are a helpful ASSISTANT.\n\n"
    model_prefix: str = "\nASSISTANT: "
    human_prefix: str = "\nUSER: "
    longest: int = 2048

    def encode(self, record: Record, tokenizer: Any) -> Example:
        """Tokens of a record. What is said stays text, also where it looks like a special token.

        Raises:
            DocumentError: The record has no such turns.
            RequestError: The tokenizer has no end-of-sequence token.
        """
        end = ending(tokenizer)
        prefixes = {True: encode_frame(tokenizer, self.model_prefix), False: encode_frame(tokenizer, self.human_prefix)}
        pieces: list[Piece] = [(beginning(tokenizer), False), (encode_frame(tokenizer, self.initial_prompt), False)]
        for turn in self.fields.turns(record):
            by_model = turn.speaker == self.model
            pieces.append((prefixes[by_model], False))
            pieces.append((encode_text(tokenizer, turn.text), by_model))
            pieces.append((end if by_model else [], by_model))
        return Example.of(pieces, self.longest)
