"""Tokenizers: as their files say, whatever transformers' classes would make of them."""

import json

import pytest

from longfocus.errors import CheckpointError
from longfocus.loading.vocabulary import load_tokenizer, vocabulary_files
from longfocus.model.config import LongLlamaConfig

TEXTS = [
    "It was the best of times,  it was the worst of times",
    "  two spaces first",
    "\n line first",
    "a line last \n",
    "def f(x):\n    return x\n\n\tif x:\n",
    "naïve café 漢字 😀 1775",
    "",
    " ",
    "end ",
    "\n\n  \n",
    "▁",
]
CONFIG = LongLlamaConfig(vocab_size=500)


def write(folder, **settings):
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **settings}))


@pytest.mark.parametrize(
    "options",
    [
        {"remove_extra_whitespaces": True},  # OpenLLaMA, and so LongLLaMA 3B
        {"remove_extra_whitespaces": False},  # LLaMA, OpenLLaMA v2, and so LongLLaMA 3B v1.1
        {"add_dummy_prefix": False},
        {"normalization_rule_name": "nmt_nfkc"},
    ],
    ids=str,
)
@pytest.mark.parametrize("stated", [True, False], ids=["configured", "bare"])
def test_tokens_are_those_of_sentencepiece(sentencepiece_model, tmp_path, options, stated):
    theirs = sentencepiece_model(tmp_path / "tokenizer.model", **options)
    if stated:
        write(tmp_path, add_bos_token=True, add_eos_token=False, model_max_length=16)
    ours = load_tokenizer(tmp_path, CONFIG, "longllama")
    for text in TEXTS:
        tokens = ours(text).input_ids
        assert tokens == [1, *theirs.encode(text)], repr(text)
        assert ours.decode(tokens, skip_special_tokens=True) == theirs.decode(theirs.encode(text)), repr(text)
    assert (ours.bos_token_id, ours.eos_token_id, ours.unk_token_id, ours.pad_token) == (1, 2, 0, None)


def test_a_converted_tokenizer_survives_saving(sentencepiece_model, tmp_path):
    sentencepiece_model(tmp_path / "tokenizer.model", remove_extra_whitespaces=True)
    write(tmp_path, add_eos_token=True, chat_template="{{ messages[0].content }}")
    ours = load_tokenizer(tmp_path, CONFIG, "llama")
    ours.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved", CONFIG, "longllama")
    for text in TEXTS:
        assert again(text).input_ids == ours(text).input_ids
    assert ours("x").input_ids[-1] == 2
    assert again.chat_template == "{{ messages[0].content }}"


def test_added_tokens_count(sentencepiece_model, tmp_path):
    theirs = sentencepiece_model(tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<turn>": theirs.vocab_size()}))
    write(tmp_path, pad_token="<turn>")
    ours = load_tokenizer(tmp_path, CONFIG, "llama")
    assert ours("<turn>").input_ids == [1, theirs.vocab_size()]
    assert ours.pad_token == "<turn>"
    assert [path.name for path in vocabulary_files(tmp_path)] == ["tokenizer.model", "added_tokens.json"]


def test_a_tokenizer_json_is_taken_as_it_is(tiny, tmp_path):
    """LlamaTokenizer would put SentencePiece's way of cutting in the place of this one's."""
    made = tiny.tokenizer("llama-bpe")
    made.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, auto_map={"AutoTokenizer": ["code.Tokenizer", None]}, bos_token="<|im_start|>")
    (tmp_path / "code.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    ours = load_tokenizer(tmp_path, CONFIG, "llama")
    for text in TEXTS:
        assert ours(text).input_ids == made.encode(text).ids
    assert ours.bos_token == "<|im_start|>"


def test_a_vocabulary_with_merges(tiny, tmp_path):
    made = tiny.tokenizer("gpt-2")
    made.model.save(str(tmp_path))
    write(tmp_path, tokenizer_class="Qwen2Tokenizer")
    assert [path.name for path in vocabulary_files(tmp_path)] == ["vocab.json", "merges.txt"]
    ours = load_tokenizer(tmp_path, CONFIG, "qwen2")
    text = "it was the age of wisdom, it was the age of foolishness"
    assert ours(text).input_ids == made.encode(text).ids
    write(tmp_path, tokenizer_class=None)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not say which tokenizer"):
        load_tokenizer(tmp_path, CONFIG, "qwen2")


def test_code_for_a_tokenizer_is_not_run(tiny, tmp_path):
    tiny.tokenizer("gpt-2").model.save(str(tmp_path))
    (tmp_path / "code.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    write(tmp_path, tokenizer_class="OurOwnTokenizer", auto_map={"AutoTokenizer": ["code.Tokenizer", None]})
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be read"):
        load_tokenizer(tmp_path, CONFIG, "llama")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00\xff" * 50])
def test_a_damaged_sentencepiece_model(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_tokenizer(tmp_path, CONFIG, "llama")


def test_other_kinds_of_sentencepiece_are_refused(sentencepiece_model, tmp_path):
    sentencepiece_model(tmp_path / "tokenizer.model", model_type="unigram")
    with pytest.raises(CheckpointError, match="is no byte-pair encoding"):
        load_tokenizer(tmp_path, CONFIG, "llama")


@pytest.mark.parametrize(("kind", "digits"), [("mistral", 3), ("llama", 1)])
def test_mistrals_way_of_cutting_is_mended(tmp_path, kind, digits):
    """Large Mistral tokenizers were published with a wrong pattern, which keeps the digits of a number together."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    vocabulary = {character: token for token, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {"12": 256, "123": 257}
    vocabulary |= {f"unused {number}": 258 + number for number in range(100_000)}
    made = Tokenizer(models.BPE(vocabulary, [("1", "2"), ("12", "3")]))
    cut = pre_tokenizers.Split(Regex(r"\p{N}+|\P{N}+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "transformers_version": "4.50.0"}))
    ours = load_tokenizer(tmp_path, LongLlamaConfig(vocab_size=131072), kind)
    assert len(ours("123").input_ids) == digits
