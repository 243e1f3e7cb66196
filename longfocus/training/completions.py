"""Prompts with their completions, in the form of Anima 100K: plain text, learnt from the completion alone.

A row is: BOS, prompt, completion, EOS. A prompt that is too long loses tokens of its middle, so what it begins with and
the question that it ends with stay. (Anima's own script cut the end off, and the question with it.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longfocus.errors import DocumentError
from longfocus.loading.prompts import encode_text
from longfocus.training.examples import Example, Record
from longfocus.training.long_questions import OMISSION
from longfocus.training.records import text_field
from longfocus.training.special_tokens import beginning, ending


@dataclass(frozen=True)
class CompletionFormat:
    """Records of a prompt and a completion.

    Attributes:
        prompt: The field of the prompt.
        completion: The field of the completion.
        longest: Most tokens of a row.
        omission: Text in place of what is left out of a prompt.
        head_share: How much of what is kept of such a prompt is its beginning.
    """

    prompt: str = "prompt"
    completion: str = "completion"
    longest: int = 100_000
    omission: str = OMISSION
    head_share: float = 0.5

    def encode(self, record: Record, tokenizer: Any) -> Example:
        """Tokens of a record. What it says stays text, also where it looks like a special token.

        Raises:
            DocumentError: A field is missing or no text, or the completion leaves the prompt no room.
            RequestError: The tokenizer has no end-of-sequence token.
        """
        asked = encode_text(tokenizer, text_field(record, self.prompt))
        answered = encode_text(tokenizer, text_field(record, self.completion)) + ending(tokenizer)
        first = beginning(tokenizer)
        room = self.longest - len(first) - len(answered)
        if len(asked) > room:
            left_out = encode_text(tokenizer, self.omission)
            kept = room - len(left_out)
            if kept < 2:
                raise DocumentError(
                    f"a completion of {len(answered)} tokens leaves its prompt no room in a row of {self.longest}"
                )
            head = min(max(round(kept * self.head_share), 1), kept - 1)
            asked = asked[:head] + left_out + asked[len(asked) - (kept - head) :]
        return Example.of([(first, False), (asked, False), (answered, True)])
