"""Data sets for tuning: records filtered and padded, mixtures by proportion, and lists written as strings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from longfocus.errors import DocumentError, RequestError
from longfocus.training.conversations import ConversationFormat
from longfocus.training.examples import IGNORED
from longfocus.training.filters import Filter
from longfocus.training.instructions import InstructionFields, InstructionFormat
from longfocus.training.padding import Collator, Padding
from longfocus.training.tuning_data import TuningDataset, TuningMixture
from longfocus.training.tuning_options import TuningOptions

DATA = Path(__file__).parents[3] / "shared/data/instruct"
ORCA = [{"question": f"Question {n}?", "response": f"Answer {n}.", "lang": "en" if n % 3 else "de"} for n in range(30)]
FORM = InstructionFormat(InstructionFields(prompt=None))


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder, pad_token="<|pad|>")


def said(tokenizer, row) -> str:
    return tokenizer.decode(row["input_ids"][row["labels"] != IGNORED])


def test_records_are_filtered_once(tokenizer):
    dataset = TuningDataset(ORCA, FORM, tokenizer, rules=Filter.parse("lang<M>de"))
    assert [said(tokenizer, row) for row in dataset] == [f"Answer {n}.<|end|>" for n in range(0, 30, 3)]
    assert dataset.kept == list(range(0, 30, 3))
    with pytest.raises(DocumentError, match="of 30 records the filter keeps none"):
        TuningDataset(ORCA, FORM, tokenizer, rules=Filter.parse("lang<M>pl"))


def test_rows_are_padded_and_drawn_anew_each_epoch(tokenizer):
    dataset = TuningDataset(ORCA, FORM, tokenizer, padding=Padding.of(tokenizer, 64, random_left=True), hidden={2})

    def masks():
        return torch.stack([row["attention_mask"] for row in dataset])

    first = masks()
    assert first.shape == (30, 64)
    assert torch.equal(first, masks())
    dataset.set_epoch(1)
    assert not torch.equal(first, masks())
    row = dataset[0]
    assert row["attention_mask"][row["input_ids"] == 2].tolist() == [0]


def test_a_loader_gives_batches(tokenizer):
    loader = DataLoader(TuningDataset(ORCA, FORM, tokenizer), batch_size=8, collate_fn=Collator.of(tokenizer))
    batches = list(loader)
    assert [len(batch["input_ids"]) for batch in batches] == [8, 8, 8, 6]
    assert said(tokenizer, {name: tensor[0] for name, tensor in batches[1].items()}) == "Answer 8.<|end|>"


def test_mixtures_are_drawn_as_the_references_generator_does(tokenizer):
    sets = [TuningDataset(ORCA[:count], FORM, tokenizer) for count in (20, 7, 10)]
    shares = [0.5, 0.2, 0.3]
    mixture = TuningMixture(sets, shares)
    edges = np.cumsum(shares)
    np.random.seed(42)
    wanted = np.searchsorted(edges / edges[-1], np.random.random_sample(37), side="right")
    assert mixture.source.tolist() == wanted.tolist()
    assert len(mixture) == 37
    assert mixture.drawn == [int((wanted == number).sum()) for number in range(3)]
    for index in range(37):
        chosen = sets[wanted[index]]
        assert torch.equal(mixture[index]["input_ids"], chosen[index % len(chosen)]["input_ids"])
    assert mixture.source.tolist() != TuningMixture(sets, shares, seed=1).source.tolist()
    assert len(list(mixture)) == 37


def test_proportions_come_out(tokenizer):
    mixture = TuningMixture([TuningDataset(ORCA * 100, FORM, tokenizer)] * 2, [0.99, 0.01])
    assert 30 < mixture.drawn[1] < 90  # 60 expected, standard deviation 7.7


def test_one_data_set_alone_is_itself(tokenizer):
    mixture = TuningMixture([TuningDataset(ORCA, FORM, tokenizer)], [1.0])
    assert [said(tokenizer, row) for row in mixture] == [f"Answer {n}.<|end|>" for n in range(30)]


@pytest.mark.parametrize("shares", [[], [1.0], [0.5, 0.4], [1.5, -0.5], [0.5, 0.25, 0.25]])
def test_proportions_that_do_not_fit(tokenizer, shares):
    with pytest.raises(RequestError, match=r"were given with|not shares that make 1"):
        TuningMixture([TuningDataset(ORCA, FORM, tokenizer)] * 2, shares)


@pytest.fixture
def files(tmp_path):
    talks = [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Talk {n}"}]} for n in range(9)
    ]
    (tmp_path / "orca.jsonl").write_text("\n".join(map(json.dumps, ORCA)), "utf-8")
    (tmp_path / "talks.json").write_text(json.dumps(talks), "utf-8")
    return f"{tmp_path}/orca.jsonl,{tmp_path}/talks.json"


def test_options_for_two_data_sets(tokenizer, files):
    options = TuningOptions(
        files,
        data_type="instructions,chat",
        data_filter="lang<M>en<,>",
        data_proportions=(0.6, 0.4),
        question_field="question",
        response_field="response",
        max_total_length=80,
        mask_by_id=True,
        chat_replace_rules="Talk<R>Word",
    )
    mixture = options.mixture(tokenizer)
    assert [len(dataset) for dataset in mixture.datasets] == [20, 9]
    assert said(tokenizer, mixture.datasets[0][0]) == "Answer 1.<|end|>"
    assert said(tokenizer, mixture.datasets[1][3]) == "Word 3<|end|>"
    ends = [bool(dataset[0]["attention_mask"][dataset[0]["input_ids"] == 2].all()) for dataset in mixture.datasets]
    assert ends == [True, False]
    assert {len(row["input_ids"]) for row in mixture} == {80}
    bare = TuningOptions(files.split(",")[0], question_field="question", response_field="response", always_pad=False)
    assert len(bare.mixture(tokenizer)[0]["input_ids"]) < 40


def test_lists_are_over_the_data_sets_of_their_type():
    forms = TuningOptions(
        "a,b,c",
        data_type="instructions,chat,instructions",
        prompt_field="system,None",
        question_field="question",
        response_field="response,output",
        pre_question_text="Q: <,>Ask, ",
        chat_data_field="markdown",
        chat_initial_prompt="Hello. ",
    ).formats()
    assert [type(form) for form in forms] == [InstructionFormat, ConversationFormat, InstructionFormat]
    assert [form.fields.prompt for form in (forms[0], forms[2])] == ["system", None]
    assert [form.fields.response for form in (forms[0], forms[2])] == ["response", "output"]
    assert [form.before_question for form in (forms[0], forms[2])] == ["Q: ", "Ask, "]
    assert [form.fields.question for form in (forms[0], forms[2])] == ["question", "question"]
    assert forms[1].fields.text == "markdown"
    assert forms[1].initial_prompt == "Hello. "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_proportions": (0.5, 0.5)}, "data_path 1, data_filter 1, data_proportions 2"),
        ({"data_filter": "a<M>b<,>"}, "data_filter 2"),
        ({"data_type": "instructions,chat"}, "data_type 2, data_path 1"),
        ({"question_field": "a,b"}, "question_field has 2 places for 1 data sets"),
        ({"post_prompt_text": "a<,>b<,>c"}, "post_prompt_text has 3 places"),
        ({"question_field": "None"}, "question_field and response_field are needed"),
        ({"data_type": "text"}, "data_type has 'text'"),
        ({"data_type": "chat", "chat_data_field": "None"}, "chat_data_field, .* are needed"),
    ],
)
def test_lists_that_do_not_fit(tokenizer, files, changes, message):
    given = {"data_path": files.split(",")[0], "question_field": "question", "response_field": "response", **changes}
    with pytest.raises(RequestError, match=message):
        TuningOptions(**given).mixture(tokenizer)


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of data is not here")
def test_real_mixture(tokenizer):
    options = TuningOptions(
        f"{DATA}/openorca_sample_283.jsonl.gz,{DATA}/sharegpt_dummy_910.json.gz",
        data_type="instructions,chat",
        data_proportions=(0.99, 0.01),
        prompt_field="system_prompt",
        question_field="question",
        response_field="response",
        max_total_length=512,
    )
    mixture = options.mixture(tokenizer)
    assert len(mixture) == sum(map(len, mixture.datasets)) > 1000
    assert 1 <= mixture.drawn[1] < 40
    batch = Collator.of(tokenizer)([mixture[index] for index in range(4)])
    assert batch["input_ids"].shape == (4, 512)
