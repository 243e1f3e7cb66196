"""The rule language: each condition, each kind of path, what cannot be read, and the rules LongLLaMA was tuned with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from longfocus.errors import DocumentError, RequestError
from longfocus.training.filters import Filter, parse_filters
from longfocus.training.records import load_records

DATA = Path(__file__).parents[3] / "shared/data/instruct"
TALK = {"lang": "en", "conversations": [{"from": "human", "value": "one\ntwo"}, {"from": "gpt", "value": "three"}]}


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("", True),
        ("lang<M>en", True),
        ("lang<M>n", False),  # from the beginning
        ("lang<M>e", True),  # not to the end
        ("lang<M>^e$", False),
        ("lang<M>en<;>lang<M>de", False),
        ("lang<LENLT>3", True),
        ("lang<LENLT>2", False),
        ("lang<LENGT>1", True),
        ("lang<LENGT>2", False),
        ("conversations.<int>0.value<M>one.two", True),  # a dot matches a line's end
        ("conversations.<int>-1.value<M>three", True),
        ("conversations.<int>*^.value<M>o", False),
        ("conversations.<int>*v.value<M>o", True),
        ("conversations.<int>*^.value<M>[ot]", True),
        ("conversations.<int>*.value<LENLT>13", True),
        ("conversations.<int>*.value<LENLT>12", False),
        ("conversations.<int>*.value<LENGT>11", True),
        ("conversations.<int>1.value<LENGT>4<;>lang<M>en", True),
        ("lang<M>", True),
    ],
)
def test_what_rules_keep(tokenizer, rules, kept):
    assert Filter.parse(rules).keeps(TALK, tokenizer) is kept


@given(text=st.text(max_size=40), limit=st.integers(0, 40))
def test_limits_by_characters_and_tokens(tokenizer, text, limit):
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    record = {"a": [text, text]}
    for mode, holds in {
        "<LENLT>": 2 * len(text) < limit,
        "<LENGT>": 2 * len(text) > limit,
        "<TOKLT>": 2 * tokens < limit,
        "<TOKGT>": 2 * tokens > limit,
    }.items():
        assert Filter.parse(f"a.<int>*{mode}{limit}").keeps(record, tokenizer) is holds


def test_all_and_any_of_nothing(tokenizer):
    nothing = {"a": []}
    assert Filter.parse("a.<int>*^<M>x").keeps(nothing, tokenizer)
    assert not Filter.parse("a.<int>*v<M>x").keeps(nothing, tokenizer)
    assert Filter.parse("a.<int>*<LENLT>1").keeps(nothing, tokenizer)


def test_rules_for_several_data_sets():
    first, second, third = parse_filters("<,>lang<M>en<;>text<LENLT>9<,>")
    assert first == third == Filter()
    assert [rule.text for rule in second.rules] == ["lang<M>en", "text<LENLT>9"]
    assert parse_filters("") == [Filter()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lang", "has 0 conditions; wanted one of <M>, <LENLT>"),
        ("lang<M>a<M>b", "has 2 conditions"),
        ("lang<M>a<LENLT>3", "has 2 conditions"),
        ("lang<M>(", "no regular expression behind <M>"),
        ("lang<LENLT>many", "'many' behind <LENLT>; wanted a whole number"),
        ("a..b<M>x", "an empty step"),
        ("<M>x", "an empty step"),
        ("a.<int>*<M>x", "wanted <int>N or <int>\\*\\^ or <int>\\*v"),
        ("a.<int>*^<LENLT>3", "with <LENLT>, wanted <int>N or <int>\\*$"),
        ("a.<int>x<M>b", "has the step '<int>x'"),
        ("a<M>b<;>", "has 0 conditions"),
    ],
)
def test_rules_that_cannot_be_read(text, message):
    with pytest.raises(RequestError, match=message):
        Filter.parse(text)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("language<M>en", "wanted the field 'language'; there is lang, conversations"),
        ("lang.x<M>en", "wanted the field 'x'; there is 'en'"),
        ("conversations<M>x", "wanted text and came to"),
        ("lang.<int>0<M>e", "wanted a list and came to 'en'"),
        ("lang.<int>*<LENLT>3", "wanted a list and came to 'en'"),
        ("conversations.<int>2.value<M>x", "wanted element 2 of a list of 2"),
    ],
)
def test_paths_that_lead_nowhere(tokenizer, rules, message):
    with pytest.raises(DocumentError, match=message):
        Filter.parse(rules).keeps(TALK, tokenizer)


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of data is not here")
def test_real_records_by_the_rules_of_the_published_tuning(tokenizer):
    rules = (
        "conversations.<int>*^.value<M>(?i)^((?!openai).)*$<;>conversations.<int>*^.value<M>^((?!DAN).)*$"
        "<;>conversations.<int>0.value<LENLT>8000"
    )
    records = load_records(DATA / "sharegpt_dummy_910.json.gz")
    kept = [record for record in records if Filter.parse(rules).keeps(record, tokenizer)]

    def wanted(record) -> bool:
        said = [turn["value"] for turn in record["conversations"]]
        return not any("openai" in text.lower() or "DAN" in text for text in said) and len(said[0]) < 8000

    assert kept == [record for record in records if wanted(record)]
    assert 0 < len(kept) < len(records)
