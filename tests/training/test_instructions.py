"""Instructions: every token and label of a row, what is cut, and the real records."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from longfocus.errors import DocumentError, RequestError
from longfocus.training.examples import IGNORED
from longfocus.training.instructions import InstructionFields, InstructionFormat
from longfocus.training.records import load_records

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT.parent / "shared/data/instruct/openorca_sample_283.jsonl.gz"
RECORD = {"id": "a", "system_prompt": "Be brief.", "question": "Where is the lamp?", "response": "On the table."}
BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder, pad_token="<|pad|>")


def plain(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_row_is_input_and_response(tokenizer):
    example = InstructionFormat().encode(RECORD, tokenizer)
    asked = [BOS, *plain(tokenizer, "Be brief.\nWhere is the lamp?\n")]
    answered = [*plain(tokenizer, "On the table."), EOS]
    assert example.ids.tolist() == asked + answered
    assert example.labels.tolist() == [IGNORED] * len(asked) + answered
    row = example.row()
    assert set(row) == {"input_ids", "labels", "attention_mask"}
    assert row["attention_mask"].tolist() == [1] * len(asked + answered)


def test_texts_around_the_parts():
    form = InstructionFormat(
        before_prompt="P(",
        after_prompt=")",
        before_question="Q(",
        after_question=")",
        before_response="R(",
        after_response=")",
    )
    assert form.texts(RECORD) == ("P(Be brief.)Q(Where is the lamp?)", "R(On the table.)")
    assert form.texts({**RECORD, "system_prompt": ""})[0] == "P()Q(Where is the lamp?)"


def test_without_a_prompt_field_its_texts_are_left_out():
    form = InstructionFormat(InstructionFields(None, "instruction", "output"), before_prompt="P(", after_prompt=")")
    assert form.texts({"instruction": "Go", "output": "Gone"}) == ("Go\n", "Gone")


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text(max_size=20),
    question=st.text(max_size=40),
    response=st.text(max_size=40),
    lengths=st.tuples(*[st.integers(1, 60)] * 3),
)
def test_each_cut_keeps_the_beginning(tokenizer, prompt, question, response, lengths):
    record = {"system_prompt": prompt, "question": question, "response": response}
    form = InstructionFormat(longest_input=lengths[0], longest_output=lengths[1], longest=lengths[2])
    example = form.encode(record, tokenizer)
    asked = [BOS, *plain(tokenizer, f"{prompt}\n{question}\n")][: lengths[0]]
    answered = [*plain(tokenizer, response), EOS][: lengths[1]]
    assert example.ids.tolist() == (asked + answered)[: lengths[2]]
    assert example.labels.tolist() == ([IGNORED] * len(asked) + answered)[: lengths[2]]


def test_what_looks_like_a_special_token_stays_text(tokenizer):
    ids = InstructionFormat().encode({**RECORD, "response": "Say <|end|> now <|pad|>"}, tokenizer).ids.tolist()
    assert ids.count(EOS) == 1 and ids[-1] == EOS
    assert tokenizer.pad_token_id not in ids
    assert tokenizer.decode(ids[:-1]).endswith("Say <|end|> now <|pad|>")


def test_a_tokenizer_without_a_beginning_has_none_and_without_an_end_is_refused(tiny_folder):
    bare = PreTrainedTokenizerFast.from_pretrained(tiny_folder)
    bare.bos_token = None
    assert InstructionFormat().encode(RECORD, bare).ids[0] != BOS
    bare.eos_token = None
    with pytest.raises(RequestError, match="no end-of-sequence token"):
        InstructionFormat().encode(RECORD, bare)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"system_prompt": "a", "question": "b"}, "field 'response'; there are question, system_prompt"),
        ({**RECORD, "question": None}, "field 'question'; it is None"),
    ],
)
def test_records_that_lack_something(tokenizer, record, message):
    with pytest.raises(DocumentError, match=message):
        InstructionFormat().encode(record, tokenizer)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the shared folder of data is not here")
def test_real_records(tokenizer):
    records = load_records(SAMPLE)
    assert len(records) > 200
    form = InstructionFormat(longest_input=10**6, longest_output=10**6, longest=10**6)
    for record in records[:60]:
        example = form.encode(record, tokenizer)
        counted = example.labels != IGNORED
        assert tokenizer.decode(example.ids[counted]) == record["response"] + "<|end|>"
        said = f"<|begin|>{record['system_prompt']}\n{record['question']}\n"
        assert tokenizer.decode(example.ids[~counted]) == said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x", "wanted .json or .jsonl"),
        ("a.json", "[{]", "not JSON in line 1"),
        ("a.json", "[\n{},\n{]", "not JSON in line 3"),
        ("a.jsonl", '{"a": 1}\n\n{"a"\n', "not JSON in line 3"),
        ("a.jsonl", "1\n", "something else than records"),
        ("a.json", '{"a": 1}', "something else than records"),
        ("a.json", "[]", "holds no records"),
        ("a.jsonl.gz", "not packed", "cannot be read"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DocumentError, match=message):
        load_records(tmp_path / name)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(DocumentError, match="cannot be read"):
        load_records(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(DocumentError, match="not UTF-8 \\(byte 2\\)"):
        load_records(tmp_path / "latin.json")


def test_line_separators_inside_a_record_end_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "one\u2028two\x85three"}\n{"a": "four"}\r\n', "utf-8")
    assert [record["a"] for record in load_records(path)] == ["one\u2028two\x85three", "four"]
