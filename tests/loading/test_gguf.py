import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from longfocus.errors import CheckpointError
from longfocus.loading.gguf import convert_gguf


def load(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)


def logits_of(model, length=40):
    import torch

    ids = torch.randint(0, model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(ids).logits.float()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_same_logits_as_the_source(tiny, tmp_path, kind, tied):
    import torch

    source = tiny.model(kind, tied=tied)
    tiny.write(tmp_path / "m.gguf", source, tiny.tokenizer("smollm"))
    convert_gguf(tmp_path / "m.gguf", tmp_path / "full", dtype="float32")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "half")
    full, _ = load(tmp_path / "full")
    half, _ = load(tmp_path / "half")
    torch.testing.assert_close(logits_of(full), logits_of(source), atol=1e-4, rtol=1e-4)
    assert half.dtype == torch.bfloat16
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_(parameter.bfloat16())
    # Rounded weights, full arithmetic: so that only the conversion can make a difference.
    torch.testing.assert_close(logits_of(half.float()), logits_of(source), atol=1e-3, rtol=1e-3)
    assert (half.lm_head.weight is half.model.embed_tokens.weight) is tied
    assert half.config.model_type == kind
    assert half.config.rms_norm_eps == 1e-5
    assert half.config.rope_parameters == {"rope_type": "default", "rope_theta": 100000.0}


def test_quantised_weights_come_out_close(tiny, tmp_path):
    source = tiny.model()
    tiny.write(tmp_path / "m.gguf", source, tiny.tokenizer("smollm"), quantise=True)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", dtype="float32")
    model, _ = load(tmp_path / "out")
    for name, weight in source.state_dict().items():
        got = model.state_dict()[name]
        assert (got - weight).abs().max() <= weight.abs().max() / 127, name


def test_folder_is_plain_hugging_face(tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert not any(name.endswith((".bin", ".pt", ".pkl", ".lock", ".partial")) for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert "_model_name_or_path" not in config


TEXTS = [
    "1234",
    "in 1999\n\n123",
    "  two spaces",
    "\n\n\t x",
    "",
    " ",
    "héllo — 你好 🙂 e\u0301",
    "I'm <|im_end|>\r\ny",
    "a 1 b\n2",
]


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "llama-bpe"])
def test_byte_level_tokenizer_is_the_source_tokenizer(tiny, tmp_path, cut):
    source = tiny.tokenizer(cut)
    tiny.write(tmp_path / "m.gguf", tiny.model(), source, cut=cut)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    _, tokenizer = load(tmp_path / "out")
    for text in [*TEXTS, tiny.TEXT]:
        ids = tokenizer(text).input_ids
        assert ids == source.encode(text).ids, text
        assert tokenizer.decode(ids) == text
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.model_max_length == 256
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == "<|im_start|>user\nHi<|im_end|>\n"


def test_digits_are_kept_apart_where_the_file_says_so(tiny, tiny_gguf, tmp_path):
    convert_gguf(tiny_gguf, tmp_path / "out")
    _, tokenizer = load(tmp_path / "out")
    assert tokenizer.tokenize("1775") == ["1", "7", "7", "5"]
    # The two ends of line stay one token only if the digit is cut off before GPT-2's expression looks at them.
    assert tokenizer.tokenize("\n\n2") == ["ĊĊ", "2"]


@pytest.mark.parametrize(
    ("stated", "cut", "wanted"),
    [(True, "smollm", True), (False, "llama-bpe", False), (None, "llama-bpe", True), (None, "smollm", False)],
)
def test_bos_is_added_as_the_file_says_or_as_llama_cpp_does(tiny, tmp_path, stated, cut, wanted):
    tiny.write(tmp_path / "m.gguf", tiny.model(), tiny.tokenizer(cut), cut=cut, add_bos=stated)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    _, tokenizer = load(tmp_path / "out")
    assert (tokenizer("times").input_ids[0] == tokenizer.bos_token_id) is wanted


def test_no_token_beyond_the_vocabulary(tiny, tmp_path):
    """transformers' GPT-2 class brings <|endoftext|> along even where the vocabulary has none."""
    source = tiny.tokenizer("llama-bpe", specials=["<unk>", "<|begin|>", "<|end|>"])
    tiny.write(tmp_path / "m.gguf", tiny.model(), source, cut="llama-bpe")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    model, tokenizer = load(tmp_path / "out")
    assert len(tokenizer) == source.get_vocab_size() <= model.config.vocab_size
    assert max(tokenizer("<|endoftext|>").input_ids) < model.config.vocab_size


def test_sentencepiece_tokenizer_is_the_source_tokenizer(tiny, tmp_path):
    import io

    import sentencepiece

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.TEXT.splitlines()), model_writer=trained, vocab_size=390, model_type="bpe",
        byte_fallback=True, split_digits=True, add_dummy_prefix=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    source = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())

    def tokens(writer):
        kinds = [
            2 if source.is_unknown(i) else 3 if source.is_control(i) else 6 if source.is_byte(i) else 1
            for i in range(source.vocab_size())
        ]
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([source.id_to_piece(i) for i in range(source.vocab_size())])
        writer.add_token_scores([source.get_score(i) for i in range(source.vocab_size())])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)

    tiny.write(tmp_path / "m.gguf", tiny.model(vocab_size=source.vocab_size()), tokens=tokens)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    _, tokenizer = load(tmp_path / "out")
    for text in ["It was the best of times", "  two", "1775 kings", "你好 🙂", "a\n\nb", tiny.TEXT]:
        ids = tokenizer(text).input_ids
        assert ids == [1, *source.encode(text)], text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.pad_token is None
    assert len(tokenizer) == source.vocab_size()


def test_llama3_positions_survive(tiny, tmp_path):
    import torch

    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    source = tiny.model(rope_parameters=rope, max_position_embeddings=65536)
    wavelengths = 2 * np.pi * 500000.0 ** (np.arange(0, 16, 2) / 16)
    smooth = (8192 / wavelengths - 1.0) / 3.0
    between = 1 / ((1 - smooth) / 8.0 + smooth)
    factors = np.where(wavelengths < 8192 / 4, 1.0, np.where(wavelengths > 8192, 8.0, between))
    tiny.write(tmp_path / "m.gguf", source, tiny.tokenizer("llama-bpe"), cut="llama-bpe", rope_factors=factors)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", dtype="float32")
    model, _ = load(tmp_path / "out")
    assert model.config.rope_parameters == rope
    torch.testing.assert_close(logits_of(model, 200), logits_of(source, 200), atol=1e-4, rtol=1e-4)

    tiny.write(tmp_path / "other.gguf", source, tiny.tokenizer("smollm"), rope_factors=np.linspace(1, 8, 8))
    with pytest.raises(CheckpointError, match="rotary factors"):
        convert_gguf(tmp_path / "other.gguf", tmp_path / "never")


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope.scaling.type": "none"}, {"rope_type": "default"}),
        ({"rope.scaling.factor": 1.0}, {"rope_type": "default"}),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_scaled_positions_survive(tiny, tmp_path, metadata, wanted):
    import torch

    rope = {**wanted, "rope_theta": 100000.0}
    source = tiny.model(rope_parameters=rope)
    tiny.write(tmp_path / "m.gguf", source, tiny.tokenizer("smollm"), metadata=metadata)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out", dtype="float32")
    model, _ = load(tmp_path / "out")
    assert model.config.rope_parameters == rope
    torch.testing.assert_close(logits_of(model, 100), logits_of(source, 100), atol=1e-4, rtol=1e-4)


def test_an_answer_may_end_with_the_turn_or_the_text(tiny, tmp_path):
    turn = {"tokenizer.ggml.eot_token_id": 1}
    tiny.write(tmp_path / "m.gguf", tiny.model(), tiny.tokenizer("smollm"), general=turn)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert load(tmp_path / "out")[0].generation_config.eos_token_id == [2, 1]


def test_a_neighbouring_tokenizer_is_not_taken(tiny, tmp_path):
    other = tiny.tokenizer("gpt-2", specials=["<a>", "<b>", "<c>"])
    other.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "bos_token": "<a>"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    source = tiny.tokenizer("smollm")
    tiny.write(tmp_path / "m.gguf", tiny.model(), source)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    model, tokenizer = load(tmp_path / "out")
    assert tokenizer.get_vocab() == source.get_vocab()
    assert tokenizer.bos_token == "<|im_start|>"
    assert model.config.model_type == "llama"


def refusal(source, out):
    with pytest.raises(CheckpointError) as caught:
        convert_gguf(source, out)
    message = str(caught.value)
    assert "\n" not in message
    assert not out.exists()
    return message


def test_refuses_what_is_not_gguf(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model")
    assert "not a GGUF file" in refusal(tmp_path / "text.gguf", tmp_path / "out")
    assert "No such file" in refusal(tmp_path / "absent.gguf", tmp_path / "out")
    assert "directory" in refusal(tmp_path, tmp_path / "out").lower()


@pytest.mark.parametrize("keep", [6, 60, 2000, 0.5, 0.999])
def test_refuses_a_file_cut_short(tiny_gguf, tmp_path, keep):
    whole = tiny_gguf.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    assert "cut short or damaged" in refusal(tmp_path / "cut.gguf", tmp_path / "out")


def test_refuses_other_architectures_and_variants(tiny, tiny_gguf, tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "gpt2.gguf", "gpt2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "architecture 'gpt2'" in refusal(tmp_path / "gpt2.gguf", tmp_path / "out")

    experts = {"blk.0.ffn_gate_inp.weight": np.zeros((4, 64), dtype=np.float32)}
    tiny.write(tmp_path / "moe.gguf", tiny.model(), tiny.tokenizer("smollm"), more_tensors=experts)
    assert "ffn_gate_inp" in refusal(tmp_path / "moe.gguf", tmp_path / "out")

    tiny.write(tmp_path / "cut.gguf", tiny.model(), tiny.tokenizer("smollm"), cut="somebody-elses")
    assert "'somebody-elses'" in refusal(tmp_path / "cut.gguf", tmp_path / "out")

    tiny.write(tmp_path / "part.gguf", tiny.model(), tiny.tokenizer("smollm"), general={"split.count": 3})
    assert "one of 3 parts" in refusal(tmp_path / "part.gguf", tmp_path / "out")

    left_out = {"attention.head_count_kv": None}
    tiny.write(tmp_path / "kv.gguf", tiny.model(), tiny.tokenizer("smollm"), metadata=left_out)
    assert "head_count_kv" in refusal(tmp_path / "kv.gguf", tmp_path / "out")


def test_refuses_missing_weights(tiny, tmp_path):
    tiny.write(tmp_path / "m.gguf", tiny.model(), tiny.tokenizer("smollm"), metadata={"block_count": 4})
    assert "lacks" in refusal(tmp_path / "m.gguf", tmp_path / "out")


def test_refuses_weights_of_another_shape(tiny, tmp_path):
    tiny.write(tmp_path / "m.gguf", tiny.model(vocab_size=340), tiny.tokenizer("smollm"))
    assert "330 tokens but 340 rows" in refusal(tmp_path / "m.gguf", tmp_path / "out")

    lied = {"feed_forward_length": 128}
    tiny.write(tmp_path / "ffn.gguf", tiny.model(), tiny.tokenizer("smollm"), metadata=lied)
    assert "cannot be converted" in refusal(tmp_path / "ffn.gguf", tmp_path / "out")


def test_never_overwrites(tiny_gguf, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        convert_gguf(tiny_gguf, tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert_gguf(tiny_gguf, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()
    with pytest.raises(CheckpointError, match="float8"):
        convert_gguf(tiny_gguf, tmp_path / "odd", dtype="float8")


def test_says_nothing(tiny_gguf, tmp_path, capfd):
    convert_gguf(tiny_gguf, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_killed_conversion_leaves_no_model(tiny_gguf, tmp_path):
    """Killed at the last moment: every file is written, only the renaming is missing."""
    script = (
        "import sys, time\n"
        "from longfocus.loading import cache, gguf\n"
        "cache._write_through = lambda folder: (print('written', flush=True), time.sleep(60))\n"
        "gguf.convert_gguf(sys.argv[1], sys.argv[2])\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tiny_gguf), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.*.partial"))) == 1
    convert_gguf(tiny_gguf, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    load(out)
