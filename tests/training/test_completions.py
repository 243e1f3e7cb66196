"""Prompts with completions: the completion alone is learnt, and what is too long loses the middle of its prompt."""

import pytest
from transformers import PreTrainedTokenizerFast

from longfocus.errors import DocumentError
from longfocus.training.completions import CompletionFormat
from longfocus.training.examples import IGNORED
from tests.conftest import story

QUESTION = "\n\nQuestion: who lit the lamp? <|end|>\nAnswer:"
RECORD = {"prompt": f"Read this.\n\n{story(150)}{QUESTION}", "completion": " The captain."}


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder)


def test_all_of_a_record_where_it_fits(tokenizer):
    example = CompletionFormat().encode(RECORD, tokenizer)
    assert tokenizer.decode(example.ids) == f"<|begin|>{RECORD['prompt']} The captain.<|end|>"
    assert tokenizer.decode(example.ids[example.labels != IGNORED]) == " The captain.<|end|>"
    assert (example.ids == tokenizer.eos_token_id).sum() == 1, "what is said is never a special token"


def test_a_long_prompt_loses_its_middle_and_keeps_its_question(tokenizer):
    whole = CompletionFormat().encode(RECORD, tokenizer)
    for longest in (200, len(whole.ids) - 1):
        example = CompletionFormat(longest=longest).encode(RECORD, tokenizer)
        assert len(example.ids) == longest
        text = tokenizer.decode(example.ids)
        head, tail = text.split("\n\n[...]\n\n")
        assert f"<|begin|>{RECORD['prompt']}".startswith(head)
        assert f"{RECORD['prompt']} The captain.<|end|>".endswith(tail)
        assert QUESTION in tail
        assert tokenizer.decode(example.ids[example.labels != IGNORED]) == " The captain.<|end|>"
    exact = CompletionFormat(longest=len(whole.ids)).encode(RECORD, tokenizer)
    assert exact.ids.tolist() == whole.ids.tolist()
    early = CompletionFormat(longest=200, head_share=0.1).encode(RECORD, tokenizer)
    assert tokenizer.decode(early.ids).index("[...]") < text.index("[...]")


@pytest.mark.parametrize(
    ("record", "message"),
    [({"prompt": "a"}, "in its field 'completion'"), ({"prompt": "a" * 99, "completion": story(40)}, "no room")],
)
def test_records_that_cannot_be_used(tokenizer, record, message):
    with pytest.raises(DocumentError, match=message):
        CompletionFormat(longest=60).encode(record, tokenizer)
