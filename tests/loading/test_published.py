"""The published LongLLaMA checkpoints: their config.json as it stands on the hub, and files as old as theirs."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from longfocus.loading.architectures import to_longllama
from longfocus.loading.load import load
from longfocus.model.modeling import LongLlamaForCausalLM

CODE = {
    "AutoConfig": "configuration_longllama.LongLlamaConfig",
    "AutoModel": "modeling_longllama.LongLlamaModel",
    "AutoModelForCausalLM": "modeling_longllama.LongLlamaForCausalLM",
    "AutoModelForSequenceClassification": "modeling_longllama.LongLlamaForSequenceClassification",
}
COMMON = {
    "model_type": "longllama",
    "architectures": ["LongLlamaForCausalLM"],
    "auto_map": CODE,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "mem_dtype": "bfloat16",
    "mem_positionals": True,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.30.0",
    "use_cache": True,
}
SMALL = {
    **COMMON,
    "hidden_size": 3200,
    "intermediate_size": 8640,
    "num_hidden_layers": 26,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "mem_layers": [6, 12, 18],
}
LARGE = {
    **COMMON,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32016,
    "max_position_embeddings": 4096,
    "mem_layers": [8, 16, 24],
    "rope_theta": 1000000,
    "rope_scaling": None,
}
PUBLISHED = {
    "long_llama_3b": SMALL,
    "long_llama_3b_v1_1": {**SMALL, "mem_attention_grouping": None, "torch_attention": False},
    "long_llama_3b_instruct": {**SMALL, "last_context_length": 1024, "gradient_checkpoint_every_ith": 1},
    "long_llama_code_7b": {**LARGE, "last_context_length": 3072},
    "long_llama_code_7b_instruct": {**LARGE, "last_context_length": 2048},
    "derived": {
        **SMALL,
        "auto_map": {name: f"syzymon/long_llama_3b--{value}" for name, value in CODE.items()},
        "mem_attention_grouping": [1, 1024],
        "torch_dtype": "float16",
    },
}
PARAMETERS = {2048: 3_426_473_600, 4096: 6_738_546_688}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config(name):
    fields = PUBLISHED[name]
    config = to_longllama(json.loads(json.dumps(fields)), name)
    assert config.mem_layers == fields["mem_layers"]
    assert config.last_context_length == fields.get("last_context_length", 1024)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": fields.get("rope_theta", 10000.0)}
    assert config.mem_attention_grouping == fields.get("mem_attention_grouping")
    assert (config.window, config.window_overlap) == (fields["max_position_embeddings"], 0)
    assert config.head_dim == fields["hidden_size"] // 32
    assert (config.mem_dtype, config.mem_positionals, config.torch_attention) == ("bfloat16", True, False)
    assert config.pad_token_id == 0

    with torch.device("meta"):
        model = LongLlamaForCausalLM(config)
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[config.window]
    assert len(model.state_dict()) == 9 * config.num_hidden_layers + 3


@pytest.fixture(scope="module")
def plain():
    """A model of the published kind, small, in plain LLaMA's form: what LongLLaMA computes within one window."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def published(plain, sentencepiece_model, tmp_path, monkeypatch):
    """Writes that model as the published ones were: an old config, a pickle, SentencePiece, and code beside it."""
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))

    def write(base="long_llama_3b", shards=1, **changes):
        folder = tmp_path / "published"
        folder.mkdir()
        shape = {
            name: getattr(plain.config, name)
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "max_position_embeddings",
            )
        }
        fields = {**PUBLISHED[base], **shape, "mem_layers": [1, 2], **changes}
        (folder / "config.json").write_text(json.dumps(fields))
        (folder / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}')
        for name in ("configuration_longllama", "modeling_longllama"):
            (folder / f"{name}.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
        sentencepiece_model(folder / "tokenizer.model", remove_extra_whitespaces=True)
        settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

        weights = dict(plain.state_dict())
        for layer in range(plain.config.num_hidden_layers):
            weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.full((8,), float("nan"))
        if shards == 1:
            torch.save(weights, folder / "pytorch_model.bin")
            return folder
        placed = {}
        for shard in range(shards):
            file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
            part = dict(list(weights.items())[shard::shards])
            torch.save(part, folder / file)
            placed |= dict.fromkeys(part, file)
        index = {"metadata": {"total_size": 1}, "weight_map": placed}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        return folder

    return write


@pytest.mark.parametrize(
    ("base", "shards"), [("long_llama_3b", 1), ("long_llama_3b_instruct", 1), ("long_llama_code_7b", 2), ("derived", 1)]
)
def test_old_files_load_with_our_code(published, plain, capfd, base, shards):
    folder = published(base, shards, **({"rope_theta": 10000.0} if "code" in base else {}))
    loaded = load(folder, dtype="float32", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert type(loaded.model) is LongLlamaForCausalLM
    config = loaded.model.config
    assert config.mem_layers == [1, 2]
    assert (config.window, config.window_overlap) == (64, 0)
    assert loaded.model.generation_config.eos_token_id == 2
    tokens = torch.randint(3, 400, (1, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = loaded.model(tokens, last_context_length=64).logits
        theirs = plain(tokens).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_shorter_window_takes_the_last_context_along(published):
    loaded = load(published(), window=32, dtype="float32", device="cpu")
    assert loaded.model.config.window == 32
    assert loaded.model.config.last_context_length == 32
    assert loaded.model.config.mem_layers == [1, 2]


def test_memory_is_switched_off_by_request(published):
    assert load(published(), mem_layers=[], dtype="float32", device="cpu").model.config.mem_layers == []
