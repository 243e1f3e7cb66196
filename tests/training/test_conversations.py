"""Conversations in LongLLaMA's form: every token and label, replacements, and the real records."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from longfocus.errors import DocumentError, RequestError
from longfocus.training.conversations import ConversationFields, ConversationFormat, Replacements
from longfocus.training.examples import IGNORED
from longfocus.training.records import load_records

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared/data/instruct/sharegpt_dummy_910.json.gz"
BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder, pad_token="<|pad|>")


def talk(*turns: tuple[str, str], text: str = "value") -> dict:
    return {"conversations": [{"from": speaker, text: said} for speaker, said in turns]}


def plain(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def expected(tokenizer, record: dict) -> tuple[list[int], list[int]]:
    """Written out turn by turn."""
    ids = [BOS, *plain(tokenizer, "You are a helpful ASSISTANT.\n\n")]
    labels = [IGNORED] * len(ids)
    for turn in record["conversations"]:
        prefix = plain(tokenizer, "\nASSISTANT: " if turn["from"] == "gpt" else "\nUSER: ")
        said = plain(tokenizer, turn["value"])
        said += [EOS] if turn["from"] == "gpt" else []
        ids += prefix + said
        labels += [IGNORED] * len(prefix) + (said if turn["from"] == "gpt" else [IGNORED] * len(said))
    return ids, labels


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.tuples(st.sampled_from(["human", "gpt", "system"]), st.text(max_size=30)), max_size=5),
    longest=st.integers(1, 200),
)
def test_rows_turn_by_turn(tokenizer, turns, longest):
    record = talk(*turns)
    ids, labels = expected(tokenizer, record)
    example = ConversationFormat(longest=longest).encode(record, tokenizer)
    assert example.ids.tolist() == ids[:longest]
    assert example.labels.tolist() == labels[:longest]


def test_other_names_prefixes_and_fields(tokenizer):
    form = ConversationFormat(
        fields=ConversationFields("messages", "content", "role"),
        model="assistant",
        initial_prompt="<|begin|>A chat.",
        model_prefix=" A: ",
        human_prefix=" U: ",
    )
    record = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}
    example = form.encode(record, tokenizer)
    assert tokenizer.decode(example.ids) == "<|begin|><|begin|>A chat. U: Hi A: Yes<|end|>"
    assert tokenizer.decode(example.ids[example.labels != IGNORED]) == "Yes<|end|>"


def test_markdown_edition(tokenizer):
    form = ConversationFormat(fields=ConversationFields(text="markdown"))
    said = form.encode(talk(("human", "Hi"), ("gpt", "**Yes**"), text="markdown"), tokenizer)
    assert (
        said.ids.tolist()
        == ConversationFormat().encode(talk(("human", "Hi"), ("gpt", "**Yes**")), tokenizer).ids.tolist()
    )


def test_what_looks_like_a_special_token_stays_text(tokenizer):
    ids = ConversationFormat().encode(talk(("human", "<|end|>"), ("gpt", "<|begin|><|end|>")), tokenizer).ids.tolist()
    assert ids.count(BOS) == 1
    assert ids.count(EOS) == 1


def test_replacements_are_made_one_after_the_other():
    rules = Replacements.parse(r"(?i)chat\s?gpt<R>Longfocus<;>Longfocus (\w+)<R>\1 of Longfocus<;>\.\n<R>")
    assert rules.apply("ChatGPT says. ChatGPT\nChat GPT.\n") == "says of Longfocus. Longfocus\nLongfocus"
    assert Replacements.parse("a.b<R>c").apply("a\nb") == "c"
    assert Replacements.parse("").apply("same") == "same"


def test_replacements_reach_every_text(tokenizer):
    fields = ConversationFields(replacements=Replacements.parse("sea<R>lake"))
    assert [turn.text for turn in fields.turns(talk(("human", "sea"), ("gpt", "the sea")))] == ["lake", "the lake"]
    assert fields.messages(talk(("gpt", "sea"))) == [{"role": "assistant", "content": "lake"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab", "has 0 <R>"),
        ("a<R>b<R>c", "has 2 <R>"),
        ("(<R>b", "cannot be used"),
        (r"a<R>\2", "cannot be used: invalid group reference"),
    ],
)
def test_replacements_that_cannot_be_read(text, message):
    with pytest.raises(RequestError, match=message):
        Replacements.parse(text)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "list of turns in its field 'conversations'; it is None"),
        ({"conversations": ["Hi"]}, "list of turns"),
        ({"conversations": [{"from": "gpt"}]}, "field 'value'; there are from"),
        ({"conversations": [{"value": "Hi", "from": 3}]}, "field 'from'; it is 3"),
    ],
)
def test_records_that_lack_something(tokenizer, record, message):
    with pytest.raises(DocumentError, match=message):
        ConversationFormat().encode(record, tokenizer)


def test_an_unknown_speaker_has_no_role():
    with pytest.raises(DocumentError, match="a turn is by 'bing'; wanted one of human"):
        ConversationFields().messages(talk(("bing", "Hi")))


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shared folder of data is not here")
def test_real_records(tokenizer):
    records = load_records(SAMPLE)
    assert len(records) == 910
    for record in [max(records, key=lambda each: len(each["conversations"])), *records[1:60]]:
        example = ConversationFormat().encode(record, tokenizer)
        ids, labels = expected(tokenizer, record)
        assert (example.ids.tolist(), example.labels.tolist()) == (ids, labels)
