"""config.json in every spelling, into our configuration."""

import copy

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from longfocus.errors import CheckpointError
from longfocus.loading.architectures import FAMILIES, has_own_memory, to_longllama
from longfocus.loading.defaults import training_free
from longfocus.model.rope import RotaryEmbedding

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LONGROPE = {
    "short_factor": [1.0 + 0.01 * i for i in range(64)],
    "long_factor": [2.0 + 0.1 * i for i in range(64)],
    "factor": 4.0,
    "original_max_position_embeddings": 512,
}
SCALINGS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn-tuned": {"factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 16.0, "attention_factor": 1.2},
    "longrope": LONGROPE,
    "llama3": LLAMA3,
}


def spelled(spelling, kind, numbers, theta):
    """The same scaling as it was written at different times."""
    if spelling == "new":
        return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **numbers}}
    if kind == "default":
        return {"rope_scaling": None, "rope_theta": theta}
    return {"rope_scaling": {"type" if spelling == "oldest" else "rope_type": kind, **numbers}, "rope_theta": theta}


@pytest.mark.parametrize("spelling", ["oldest", "old", "new"])
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "longllama"])
def test_rotary_scaling(family, name, spelling):
    kind, numbers = name.split("-")[0], SCALINGS[name]
    fields = {"model_type": family, "max_position_embeddings": 4096}
    fields |= spelled(spelling, kind, copy.deepcopy(numbers), 500000.0)
    before = copy.deepcopy(fields)
    made = to_longllama(fields)
    assert fields == before, "what was given is left as it was"
    assert made.rope_parameters == {"rope_type": kind, "rope_theta": 500000.0, **numbers}

    plain = LlamaConfig(**{key: value for key, value in before.items() if key != "model_type"})
    theirs = LlamaRotaryEmbedding(plain)
    positions = torch.arange(96)[None]
    cosines, sines = theirs(torch.zeros(1, dtype=torch.float32), positions)
    ours = RotaryEmbedding(made)(positions, torch.float32)
    torch.testing.assert_close(ours[0][:, 0], cosines)
    torch.testing.assert_close(ours[1][:, 0], sines)


def test_top_level_theta_and_absent_fields():
    assert to_longllama({"model_type": "llama"}).rope_parameters["rope_theta"] == 10000.0
    assert to_longllama({"model_type": "llama", "rope_theta": 1000000}).rope_parameters["rope_theta"] == 1000000
    assert to_longllama({"model_type": "mistral"}).num_key_value_heads == 8
    assert to_longllama({"model_type": "qwen3"}).head_dim == 128


def test_families_differ_where_they_should():
    llama = to_longllama(LlamaConfig(num_key_value_heads=8, attention_bias=True, mlp_bias=True))
    assert (llama.num_key_value_heads, llama.attention_bias, llama.mlp_bias) == (8, True, True)
    assert (llama.attention_out_bias, llama.qk_norm) == (None, False)
    mistral = to_longllama(MistralConfig(sliding_window=None, head_dim=96))
    assert (mistral.head_dim, mistral.attention_bias, mistral.window_length) == (96, False, None)
    qwen2 = to_longllama(Qwen2Config(hidden_size=1536, num_attention_heads=12))
    assert (qwen2.attention_bias, qwen2.attention_out_bias, qwen2.head_dim) == (True, False, 128)
    qwen3 = to_longllama(Qwen3Config(hidden_size=1024, num_attention_heads=16, num_key_value_heads=8))
    assert (qwen3.qk_norm, qwen3.head_dim, qwen3.attention_bias) == (True, 128, False)


def test_head_dim_need_not_divide_the_hidden_size():
    made = to_longllama({"model_type": "qwen3", "hidden_size": 100, "num_attention_heads": 3, "head_dim": 64})
    assert (made.hidden_size, made.num_attention_heads, made.head_dim) == (100, 3, 64)


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({"model_type": "mistral", "max_position_embeddings": 32768}, 4096),
        ({"model_type": "mistral", "max_position_embeddings": 32768, "sliding_window": None}, None),
        ({"model_type": "mistral", "max_position_embeddings": 4096, "sliding_window": 4096}, None),
        ({"model_type": "mistral", "max_position_embeddings": 512, "sliding_window": 64}, 64),
        ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}, None),
        ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 20}, 64),
        ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 32}, None),
        (
            {
                "model_type": "qwen3",
                "num_hidden_layers": 2,
                "sliding_window": 64,
                "use_sliding_window": True,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            64,
        ),
        ({"model_type": "llama", "sliding_window": 64}, None),
    ],
)
def test_a_sliding_window_bounds_ours(fields, window):
    assert to_longllama(fields).window_length == window


@pytest.mark.parametrize(("pad", "kept"), [(0, 0), (31999, 31999), (32000, None), (-1, None), (None, None)])
def test_padding_outside_the_vocabulary_is_none(pad, kept):
    assert to_longllama({"model_type": "llama", "pad_token_id": pad}).pad_token_id == kept


def test_several_ends_and_tied_embeddings():
    made = to_longllama({"model_type": "llama", "eos_token_id": [128001, 128009], "vocab_size": 128256})
    assert made.eos_token_id == [128001, 128009]
    assert made.tie_word_embeddings is False
    assert to_longllama({"model_type": "qwen2", "tie_word_embeddings": True}).tie_word_embeddings is True


def test_notes_of_a_checkpoint_are_left_behind():
    fields = {
        "model_type": "llama",
        "auto_map": {"AutoConfig": "somewhere.Config"},
        "use_cache": False,
        "dtype": "float16",
        "torch_dtype": "float16",
        "architectures": ["LlamaForCausalLM"],
        "transformers_weights": "../elsewhere.safetensors",
        "_name_or_path": "/home/someone",
        "attn_implementation": "eager",
    }
    made = to_longllama(fields)
    assert made.use_cache is True
    assert made.dtype is None
    assert not {"auto_map", "transformers_weights"} & vars(made).keys()


def test_only_a_longllama_keeps_memory_fields():
    fields = {"mem_layers": [6, 12], "window_length": 512, "window_overlap": 16, "last_context_length": 100}
    made = to_longllama({"model_type": "longllama", **fields})
    assert {name: getattr(made, name) for name in fields} == fields
    plain = to_longllama({"model_type": "llama", **fields})
    assert (plain.mem_layers, plain.window_length, plain.window_overlap) == ([], None, 0)
    assert has_own_memory({"model_type": "longllama"})
    assert not has_own_memory({"model_type": "llama", **fields})


def test_training_free_memory_fits_the_model():
    made = to_longllama({"model_type": "llama", "num_hidden_layers": 5, "max_position_embeddings": 8192})
    fields = training_free(made)
    assert fields["mem_layers"] == [2, 3]
    default = to_longllama({"model_type": "llama", "num_hidden_layers": 30, "max_position_embeddings": 8192})
    assert training_free(default)["mem_layers"] == [17, 18, 19, 20, 21, 22, 23]
    assert (fields["window_length"], fields["window_overlap"]) == (1024, 508)
    kept = fields["window_overlap"] + fields["sink_tokens"] + fields["last_context_length"]
    assert kept <= fields["window_length"]
    assert training_free(made, 100)["window_overlap"] == 46
    short = to_longllama({"model_type": "mistral", "sliding_window": 64})
    assert training_free(short)["window_length"] == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "architecture None; wanted one of llama, longllama, mistral, qwen2, qwen3"),
        ({"model_type": "mixtral"}, "architecture 'mixtral'"),
        ({"model_type": "qwen3_moe"}, "architecture 'qwen3_moe'"),
        ({"model_type": "gpt2"}, "architecture 'gpt2'"),
        ({"model_type": ["llama"]}, "architecture"),
        ({"model_type": "llama", "num_local_experts": 8}, "mixture of experts"),
        ({"model_type": "llama", "is_encoder_decoder": True}, "encoder"),
        ({"model_type": "qwen2", "is_causal": False}, "encoder"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantised weights .gptq."),
        ({"model_type": "llama", "per_layer_config": {"1": {"head_dim": 4}}}, "different shapes"),
        ({"model_type": "llama", "partial_rotary_factor": 0.5}, "a part of each head"),
        ({"model_type": "llama", "rope_theta": None}, "rotary base None"),
        ({"model_type": "llama", "rope_theta": -1.0}, "rotary base -1.0"),
        ({"model_type": "llama", "rope_scaling": {"type": "su", "factor": 2.0}}, "by 'su'; wanted one of default"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear"}}, "makes no sense.*factor"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": "much"}}, "makes no sense"),
        ({"model_type": "llama", "rope_scaling": [1]}, "makes no sense"),
        ({"model_type": "llama", "hidden_size": "4096"}, "makes no sense.*hidden_size"),
        ({"model_type": "llama", "hidden_size": 100, "num_attention_heads": 3}, "makes no sense.*multiple"),
        ({"model_type": "llama", "num_attention_heads": 0}, "makes no sense"),
        ({"model_type": "longllama", "mem_layers": [99]}, "mem_layers has layer 99"),
        ({"model_type": "longllama", "mem_dtype": "bfloat17"}, "mem_dtype"),
        ({"model_type": "qwen2", "layer_types": ["linear_attention"] * 32}, "kind 'linear_attention'"),
    ],
)
def test_refusals_are_one_line(fields, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        to_longllama(fields, "the folder")
    assert "the folder" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_one_rotary_for_all_layers():
    rope = {"rope_type": "default", "rope_theta": 5.0}
    kinds = ["full_attention", "sliding_attention"]
    fields = {"model_type": "qwen2", "num_hidden_layers": 2, "layer_types": kinds}
    alike = {**fields, "rope_parameters": {kind: dict(rope) for kind in kinds}}
    assert to_longllama(alike).rope_parameters == rope
    unlike = {**fields, "rope_parameters": {kinds[0]: rope, kinds[1]: {**rope, "rope_theta": 6.0}}}
    with pytest.raises(CheckpointError, match="some layers differently"):
        to_longllama(unlike)


def test_families_are_sorted():
    assert list(FAMILIES) == sorted(FAMILIES)
