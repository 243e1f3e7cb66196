"""Instructions with their responses, as OpenOrca has them, in the form of LongLLaMA's instruction tuning.

A row is: BOS, prompt and question, response, EOS. Prompt and question are one text and the response is another; each is
turned into tokens by itself and cut by itself, and the whole is cut again; what is cut off is always the end. The loss
counts the response and its EOS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longfocus.loading.prompts import encode_text
from longfocus.training.examples import Example, Record
from longfocus.training.records import text_field
from longfocus.training.special_tokens import beginning, ending


@dataclass(frozen=True)
class InstructionFields:
    """Where a record has its parts.

    Attributes:
        prompt: The field of the system prompt; None where records have none.
        question: The field of the question.
        response: The field of the response.
    """

    prompt: str | None = "system_prompt"
    question: str = "question"
    response: str = "response"

    def messages(self, record: Record) -> list[dict[str, str]]:
        """The record as messages for a chat template; an empty system prompt is left out.

        Raises:
            DocumentError: A field is missing or no text.
        """
        prompt = text_field(record, self.prompt) if self.prompt is not None else ""
        question, response = text_field(record, self.question), text_field(record, self.response)
        system = [{"role": "system", "content": prompt}] if prompt else []
        return [*system, {"role": "user", "content": question}, {"role": "assistant", "content": response}]


@dataclass(frozen=True)
class InstructionFormat:
    """LongLLaMA's form of instructions; the defaults are its own.

    Attributes:
        fields: Where a record has its parts. Without a field for the prompt, the texts around it are left out too; an
            empty prompt does not leave them out.
        before_prompt: Text before the prompt; the other texts around the parts likewise.
        longest_input: Most tokens of BOS, prompt and question.
        longest_output: Most tokens of response and EOS.
        longest: Most tokens of a row. A response that is cut has no EOS.
    """

    fields: InstructionFields = InstructionFields()
    before_prompt: str = ""
    after_prompt: str = "\n"
    before_question: str = ""
    after_question: str = "\n"
    before_response: str = ""
    after_response: str = ""
    longest_input: int = 2048
    longest_output: int = 2048
    longest: int = 2048

    def texts(self, record: Record) -> tuple[str, str]:
        """Input and response of a record, as text.

        Raises:
            DocumentError: A field is missing or no text.
        """
        prompt = ""
        if self.fields.prompt is not None:
            prompt = self.before_prompt + text_field(record, self.fields.prompt) + self.after_prompt
        question = self.before_question + text_field(record, self.fields.question) + self.after_question
        return prompt + question, self.before_response + text_field(record, self.fields.response) + self.after_response

    def encode(self, record: Record, tokenizer: Any) -> Example:
        """Tokens of a record. What it says stays text, also where it looks like a special token.

        Raises:
            DocumentError: A field is missing or no text.
            RequestError: The tokenizer has no end-of-sequence token.
        """
        asked, answered = self.texts(record)
        first = beginning(tokenizer) + encode_text(tokenizer, asked)
        second = encode_text(tokenizer, answered) + ending(tokenizer)
        pieces = [(first[: self.longest_input], False), (second[: self.longest_output], True)]
        return Example.of(pieces, self.longest)
