"""Small models with made-up weights, written as GGUF files the way llama.cpp's converter writes them."""

import json
from pathlib import Path

import numpy as np
import pytest

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.\n\n"
    "1775 was the year: there were a king with a large jaw and a queen with a plain face.\n\n2 cities, 45 chapters.\n"
) * 4
VOCABULARY = 330
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class TinyGguf:
    """Makes models and tokenizers, and writes them as GGUF."""

    TEMPLATE = TEMPLATE
    TEXT = TEXT

    def tokenizer(self, cut, specials=SPECIALS):
        """A byte-level BPE tokenizer trained on a few sentences, cutting text as `cut` says."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        llama3 = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        cuts = {
            "gpt-2": [byte_level],
            "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level],
            "llama-bpe": [
                pre_tokenizers.Split(Regex(llama3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ],
        }
        made = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
        made.pre_tokenizer = pre_tokenizers.Sequence(cuts[cut])
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(specials),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator([TEXT], trainer)
        return made

    def model(self, kind="llama", vocab_size=VOCABULARY, tied=True, **config):
        """A causal model of three small layers with random weights."""
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

        made = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[kind](
            **{
                "vocab_size": vocab_size,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 256,
                "rms_norm_eps": 1e-5,
                "tie_word_embeddings": tied,
                "initializer_range": 0.2,
                "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
                **({"head_dim": 32} if kind == "qwen3" else {}),
                **config,
            }
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(made)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("norm.weight", ".bias")):
                    parameter.normal_(1.0 if "norm" in name else 0.0, 0.1)
        return model.eval()

    def write(self, path: Path, model, tokenizer=None, cut="smollm", quantise=False, tokens=None, **extra):
        """Write `model` and `tokenizer` to `path`; `extra` are further metadata, with None to leave a key out."""
        import gguf

        config = model.config
        arch = config.model_type
        writer = gguf.GGUFWriter(path, arch, use_temp_file=False)
        for key, value in extra.pop("general", {}).items():
            {int: writer.add_uint32, str: writer.add_string}[type(value)](key, value)
        metadata = {
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "block_count": config.num_hidden_layers,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
        }
        for key, value in {**metadata, **extra.pop("metadata", {})}.items():
            if value is None:
                continue
            put = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
            put(f"{arch}.{key}", value)
        writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
        writer.add_float32(f"{arch}.rope.freq_base", config.rope_parameters["rope_theta"])
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if arch == "llama":
            writer.add_uint32("llama.rope.dimension_count", head_dim)
        if arch == "qwen3":
            writer.add_uint32("qwen3.attention.key_length", head_dim)
        if tokens is not None:
            tokens(writer)
        elif tokenizer is not None:
            self._write_tokenizer(writer, tokenizer, cut, **extra)
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            self._write_tensor(writer, name, tensor.float().numpy(), config, quantise)
        if (factors := extra.get("rope_factors")) is not None:
            writer.add_tensor("rope_freqs.weight", np.asarray(factors, dtype=np.float32))
        for name, array in extra.get("more_tensors", {}).items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _write_tokenizer(self, writer, tokenizer, cut, bos=1, eos=2, add_bos=False, template=TEMPLATE, **_):
        recipe = json.loads(tokenizer.to_str())
        vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
        special = {token["content"] for token in recipe["added_tokens"]}
        merges = [m if isinstance(m, str) else " ".join(m) for m in recipe["model"]["merges"]]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(cut)
        writer.add_token_list(vocabulary)
        writer.add_token_types([3 if token in special else 1 for token in vocabulary])
        writer.add_token_merges(merges)
        writer.add_bos_token_id(bos)
        writer.add_eos_token_id(eos)
        writer.add_pad_token_id(eos)
        writer.add_unk_token_id(0)
        if add_bos is not None:
            writer.add_add_bos_token(add_bos)
        if template is not None:
            writer.add_chat_template(template)

    def _write_tensor(self, writer, name, array, config, quantise):
        import gguf

        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            part, suffix = rest.rsplit(".", 1)
            stored = f"blk.{layer}.{_PARTS[part]}.{suffix}"
        else:
            part, stored = "", _NAMES[name]
        if config.model_type == "llama" and part.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
            # llama.cpp rotates neighbouring rows, Hugging Face a row and the one half a head further on.
            array = array.reshape(heads, 2, array.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
        array = np.ascontiguousarray(array)
        if quantise and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stored, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, array)


@pytest.fixture(scope="session")
def tiny() -> TinyGguf:
    return TinyGguf()


@pytest.fixture(scope="session")
def tiny_gguf(tiny, tmp_path_factory) -> Path:
    """A small SmolLM2-like file, whole and convertible."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return tiny.write(path, tiny.model(), tiny.tokenizer("smollm"))


@pytest.fixture(scope="session")
def checkpoint(tiny, tmp_path_factory):
    """Writes a small model of a family as a Hugging Face folder; returns the folder and transformers' own model."""
    import torch
    import transformers

    def write(kind="llama", shards=None, **config):
        family = getattr(transformers, {"llama": "Llama", "mistral": "Mistral"}.get(kind, kind.capitalize()) + "Config")
        made = family(
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 128,
                "initializer_range": 0.2,
                "bos_token_id": 1,
                "eos_token_id": 2,
                **config,
            }
        )
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(made).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("norm.weight", ".bias")):
                    parameter.normal_(1.0 if "norm" in name else 0.0, 0.1)
        folder = tmp_path_factory.mktemp("checkpoint") / kind
        model.save_pretrained(folder, **({} if shards is None else {"max_shard_size": shards}))
        tiny.tokenizer("smollm").save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder, model

    return write


@pytest.fixture(scope="session")
def sentencepiece_model():
    """Trains a small SentencePiece model of LLaMA's kind on a few sentences, and writes it to a path."""
    import io

    import sentencepiece

    def write(path, **options):
        trained = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.splitlines()),
            model_writer=trained,
            **{
                "model_type": "bpe",
                "vocab_size": 400,
                "byte_fallback": True,
                "split_digits": True,
                "hard_vocab_limit": False,
                "normalization_rule_name": "identity",
                "minloglevel": 2,
                **options,
            },
        )
        path.write_bytes(trained.getvalue())
        return sentencepiece.SentencePieceProcessor(model_file=str(path))

    return write
